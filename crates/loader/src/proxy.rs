//! A loaded backend as a [`Runtime`].

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use stanchion_abi::{self as abi, method};
use stanchion_runtime::{
    ContainerConfig, ContainerId, DiskUsage, Error, ErrorKind, Event, EventKind, ExecId, ExecRequest, ExecStdio,
    ExitStatus, Health, Image, ImageDetails, ImageStore, ImportImages, Inventory, Millis, OpenRequest, PodName,
    Progress, PullImage, Result, Runtime, SandboxConfig, SandboxId, SandboxInfo, Stats, TerminalSize, UnusedImage,
    Version,
};

use crate::{
    call::Answer,
    descriptor::{self, Descriptor},
    instance::{GiveUp, Instance},
};

/// Events that are buffered for the observer; when there are more, it gets `Resync`.
const EVENTS: usize = 256;
/// Progress reports of a pull that are buffered.
const REPORTS: usize = 16;
/// Time limits of calls, by what they do.
const QUICK: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(120);

/// A backend behind the library boundary.
#[derive(Clone, Debug)]
pub struct LoadedBackend {
    instance: Arc<Instance>,
    name: Arc<str>,
}

impl LoadedBackend {
    pub(crate) async fn open(descriptor: Descriptor, library: PathBuf, request: OpenRequest) -> Result<Self> {
        let instance = Instance::open(descriptor, library, &request).await?;
        Ok(Self { name: descriptor.name().into(), instance: Arc::new(instance) })
    }

    /// Opens a backend that is linked statically, over the same boundary.
    ///
    /// # Errors
    /// As [`load`](crate::load), except those of the file.
    #[allow(unsafe_code, reason = "reads a descriptor")]
    pub async fn from_static(backend: &'static abi::Backend, name: &str, request: OpenRequest) -> Result<Self> {
        // SAFETY: a static reference is valid for ever.
        let checked = unsafe { descriptor::check(backend, name) };
        let checked =
            checked.map_err(|message| Error::new(ErrorKind::Invalid, format!("backend {name}")).because(message));
        Self::open(checked?, PathBuf::new(), request).await
    }

    /// Returns the name of the backend.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path of the library that it was loaded from; empty for one that is linked statically.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.instance.library
    }

    /// Returns the version of the library.
    #[must_use]
    pub fn library_version(&self) -> String {
        self.instance.descriptor.version()
    }

    /// Returns the builder of the library, e.g. the SDK with its version.
    #[must_use]
    pub fn built_by(&self) -> String {
        self.instance.descriptor.built_by()
    }

    /// Returns the ABI version that it was built for: major and minor.
    #[must_use]
    pub fn abi(&self) -> (u16, u16) {
        self.instance.descriptor.abi()
    }

    /// Returns the number of calls that were cancelled more than five seconds ago and have not ended.
    #[must_use]
    pub fn stuck_calls(&self) -> u64 {
        self.instance.stuck()
    }

    /// Returns the number of calls that the backend has not ended, cancelled or not.
    #[must_use]
    pub fn calls_under_way(&self) -> usize {
        self.instance.under_way()
    }

    async fn call<Q: Serialize + ?Sized, A: DeserializeOwned>(
        &self,
        name: &str,
        method: u32,
        request: &Q,
        fds: Vec<Option<OwnedFd>>,
        deadline: Option<Duration>,
    ) -> Result<A> {
        let (answer, give_up) = self.instance.start(method, request, fds, 0, deadline)?;
        self.finish(name, answer, give_up, deadline).await
    }

    async fn finish<A: DeserializeOwned>(
        &self,
        name: &str,
        answer: Answer,
        give_up: GiveUp,
        deadline: Option<Duration>,
    ) -> Result<A> {
        #[expect(clippy::disallowed_methods, reason = "what a call takes is logged and nothing waits for it")]
        let begun = Instant::now();
        let answered = match deadline {
            Some(limit) => tokio::time::timeout(limit, answer.done).await,
            None => Ok(answer.done.await),
        };
        tracing::trace!(backend = &*self.name, call = name, took = ?begun.elapsed(), "answered");
        let body = match answered {
            Ok(Ok(body)) => {
                give_up.defuse();
                body
            }
            Ok(Err(_)) => Err(Error::new(ErrorKind::Crashed, "no answer")),
            Err(_) => {
                Err(Error::new(ErrorKind::Timeout, format!("no answer within {:?}", deadline.unwrap_or_default())))
            }
        };
        self.read(name, body)
    }

    /// Reads the answer to a call. An error names the backend and the call.
    fn read<A: DeserializeOwned>(&self, name: &str, body: Result<Vec<u8>>) -> Result<A> {
        let body = body.map_err(|error| error.context(format!("{} {name}", self.name)))?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::new(ErrorKind::Other, format!("{} {name}: its answer cannot be read", self.name)).caused_by(&error)
        })
    }
}

impl Runtime for LoadedBackend {
    async fn version(&self) -> Result<Version> {
        self.call("version", method::VERSION, &(), Vec::new(), Some(QUICK)).await
    }

    async fn health(&self) -> Result<Health> {
        match self.call("health", method::HEALTH, &(), Vec::new(), Some(QUICK)).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Health::default()),
            health => health,
        }
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        let (mut answer, give_up) = self.instance.start(method::PULL_IMAGE, &request, Vec::new(), REPORTS, None)?;
        loop {
            tokio::select! {
                biased;
                Some(report) = answer.items.recv() => {
                    if let Ok(report) = serde_json::from_slice(&report) {
                        progress.report(report);
                    }
                }
                // *Cancel-safe:* a oneshot keeps its value until it is taken.
                done = &mut answer.done => {
                    give_up.defuse();
                    let body = done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Crashed, "no answer")));
                    return self.read("pull_image", body);
                }
            }
        }
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.call("list_images", method::LIST_IMAGES, &(), Vec::new(), Some(QUICK)).await
    }

    async fn inspect_image(&self, reference: String) -> Result<ImageDetails> {
        self.call("inspect_image", method::INSPECT_IMAGE, &reference, Vec::new(), Some(QUICK)).await
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        self.call("remove_image", method::REMOVE_IMAGE, &reference, Vec::new(), Some(SLOW)).await
    }

    async fn remove_unused_image(&self, image: UnusedImage) -> Result<()> {
        self.call("remove_unused_image", method::REMOVE_UNUSED_IMAGE, &image, Vec::new(), Some(SLOW)).await
    }

    async fn image_store(&self) -> Result<ImageStore> {
        self.call("image_store", method::IMAGE_STORE, &(), Vec::new(), Some(QUICK)).await
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.call("import_images", method::IMPORT_IMAGES, &request, Vec::new(), None).await
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.call("create_sandbox", method::CREATE_SANDBOX, &config, Vec::new(), Some(SLOW)).await
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        self.call("stop_sandbox", method::STOP_SANDBOX, &id, Vec::new(), Some(SLOW)).await
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        self.call("remove_sandbox", method::REMOVE_SANDBOX, &id, Vec::new(), Some(SLOW)).await
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        self.call("create_container", method::CREATE_CONTAINER, &config, Vec::new(), Some(SLOW)).await
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        self.call("start_container", method::START_CONTAINER, &id, Vec::new(), Some(SLOW)).await
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        let request = (id, Millis::from(grace));
        let deadline = Some(grace.saturating_add(Duration::from_secs(30)));
        self.call("stop_container", method::STOP_CONTAINER, &request, Vec::new(), deadline).await
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        self.call("remove_container", method::REMOVE_CONTAINER, &id, Vec::new(), Some(SLOW)).await
    }

    async fn list(&self) -> Result<Inventory> {
        self.call("list", method::LIST, &(), Vec::new(), Some(QUICK)).await
    }

    async fn list_pod(&self, pod: PodName) -> Result<Inventory> {
        match self.call("list_pod", method::LIST_POD, &pod, Vec::new(), Some(QUICK)).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(self.list().await?.of_pod(&pod)),
            listed => listed,
        }
    }

    async fn stats(&self) -> Result<Stats> {
        self.call("stats", method::STATS, &(), Vec::new(), Some(QUICK)).await
    }

    async fn disk_usage(&self, id: ContainerId) -> Result<DiskUsage> {
        self.call("disk_usage", method::DISK_USAGE, &id, Vec::new(), Some(SLOW)).await
    }

    async fn exec(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let fds = vec![stdio.stdin, stdio.stdout, stdio.stderr];
        self.call("exec", method::EXEC, &request, fds, None).await
    }

    async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        self.call("resize_exec", method::RESIZE_EXEC, &(id, size), Vec::new(), Some(QUICK)).await
    }

    async fn logs(&self, id: ContainerId, sink: OwnedFd) -> Result<()> {
        self.call("logs", method::LOGS, &id, vec![Some(sink)], None).await
    }

    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        let started = self.instance.start(method::EVENTS, &(), Vec::new(), EVENTS, None);
        let state = started.map(|(answer, give_up)| Some((answer, give_up)));
        // Fused: a caller that drains the stream polls past its end.
        Box::pin(stream::unfold(state, next_event).fuse()) as Pin<Box<dyn Stream<Item = Result<Event>> + Send>>
    }
}

type Subscription = Result<Option<(Answer, GiveUp)>>;

/// Returns the next event of a subscription, and the subscription's new state.
async fn next_event(subscription: Subscription) -> Option<(Result<Event>, Subscription)> {
    let (mut answer, give_up) = match subscription {
        Ok(state) => state?,
        Err(error) => return Some((Err(error), Ok(None))),
    };
    tokio::select! {
        biased;
        Some(()) = answer.overflow.recv() => Some((Ok(EventKind::Resync.into()), Ok(Some((answer, give_up))))),
        Some(item) = answer.items.recv() => {
            // An unknown event of a newer backend is still a reason to look.
            let event = serde_json::from_slice(&item).unwrap_or_else(|_| EventKind::Unknown.into());
            Some((Ok(event), Ok(Some((answer, give_up)))))
        }
        done = &mut answer.done => {
            give_up.defuse();
            match done {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some((Err(error), Ok(None))),
                Err(_) => Some((Err(Error::new(ErrorKind::Crashed, "the event stream broke off")), Ok(None))),
            }
        }
    }
}
