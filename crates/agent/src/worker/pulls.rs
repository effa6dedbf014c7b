//! Fetches of a pod's images, in tasks beside the worker's loop. A fetch pulls the image unless it may use a present
//! one.

use std::{
    collections::{BTreeMap, HashMap},
    future,
    sync::Arc,
};

use stanchion_board::{EventLog, Subject};
use stanchion_plan::{
    history::{Failure, History, ImageState},
    image::{self, ImageFor, Need},
    reason::Reason,
};
use stanchion_pod::{Container, Credential, Object, Pod, PullPolicy, Revision};
use stanchion_runtime::{Error, ErrorKind, Image, PullProgress, RegistryAuth, Runtime};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::context::Context;
use crate::{
    clock::{elapsed, instant},
    credentials::ProviderAnswer,
    desired::DesiredPod,
    images::Pull,
    node::BackendSlot,
    reference,
    shared::Shared,
};

/// Running fetches of a pod's images.
#[derive(Debug)]
pub(super) struct Pulls {
    /// Progress of the pulls.
    progress: BTreeMap<ImageFor, PullProgress>,
    /// Guards of the running fetches. Dropping a guard ends its fetch.
    running: HashMap<(Revision, ImageFor), DropGuard>,
    sender: mpsc::Sender<PullUpdate>,
    receiver: mpsc::Receiver<PullUpdate>,
}

/// Message from a fetch to its worker.
#[derive(Debug)]
pub(super) struct PullUpdate {
    revision: Revision,
    of: ImageFor,
    event: PullEvent,
}

#[derive(Debug)]
enum PullEvent {
    Progress(PullProgress),
    /// The image is present; `pulled` is `true` if this fetch pulled it.
    Ready {
        pulled: bool,
    },
    Failed {
        reason: Reason,
        message: String,
        error: Option<Error>,
    },
}

impl Pulls {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(16);
        Self { progress: BTreeMap::new(), running: HashMap::new(), sender, receiver }
    }

    /// Fetches these images of a pod in the background, all at once. `has_run` returns whether an instance of a
    /// container exists in this revision of the pod.
    pub fn begin<R: Runtime>(
        &mut self,
        context: &Context<R>,
        (pod, backend): (&Arc<Pod>, &str),
        desired: Option<&DesiredPod>,
        images: &[ImageFor],
        history: &mut History,
        has_run: impl Fn(&Container) -> bool,
    ) {
        for need in images.iter().filter_map(|of| image::need(pod, of)) {
            let last = history.image(&pod.revision, &need.of).failure().cloned();
            history.set_image(&pod.revision, need.of.clone(), ImageState::Pulling(last));
            let (subject, users) = subjects(context, pod, &need.of);
            let fetch = Fetch {
                revision: pod.revision.clone(),
                image: need.image.to_owned(),
                policy: policy(pod, &need, &has_run),
                of: need.of,
                subject,
                users,
                backend: backend.to_owned(),
                shared: Arc::clone(&context.shared),
                credentials: credentials(pod, need.image, desired),
                sender: self.sender.clone(),
            };
            for secret in missing_secrets(pod, desired) {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({secret}); attempting to pull the image may not succeed."
                );
                context.warn("FailedToRetrieveImagePullSecret", message);
            }
            let cancelled = context.cancelled.child_token();
            let guard = cancelled.clone().drop_guard();
            self.running.insert((fetch.revision.clone(), fetch.of.clone()), guard);
            context.shared.supervisor.spawn(format!("image for {}", context.key), async move {
                cancelled.run_until_cancelled(fetch.run()).await;
            });
        }
    }

    /// Ends the fetches of all revisions but these. A pull ends with its last fetch.
    pub fn retain(&mut self, revisions: &[&Revision]) {
        let progress = &mut self.progress;
        self.running.retain(|(revision, of), _| {
            let is_wanted = revisions.contains(&revision);
            if !is_wanted {
                progress.remove(of);
            }
            is_wanted
        });
    }

    /// Returns the progress of a pull.
    pub fn progress(&self, of: &ImageFor) -> Option<&PullProgress> {
        self.progress.get(of)
    }

    /// Waits for the next message of a fetch.
    ///
    /// *Cancel-safe:* a message stays until it is returned.
    pub async fn next(&mut self) -> PullUpdate {
        // The channel stays open: this struct holds a sender.
        match self.receiver.recv().await {
            Some(update) => update,
            None => future::pending().await,
        }
    }

    /// Applies the messages that have arrived.
    pub fn apply_all(&mut self, history: &mut History) {
        while let Ok(update) = self.receiver.try_recv() {
            self.apply(update, history);
        }
    }

    /// Applies a message.
    pub fn apply(&mut self, update: PullUpdate, history: &mut History) {
        let PullUpdate { revision, of, event } = update;
        let fetch = (revision, of);
        let is_last = !matches!(event, PullEvent::Progress(_));
        // A fetch that was ended may have sent a last message. It no longer counts.
        let is_wanted = if is_last { self.running.remove(&fetch).is_some() } else { self.running.contains_key(&fetch) };
        if !is_wanted {
            return;
        }
        let (revision, of) = fetch;
        match event {
            PullEvent::Progress(progress) => {
                self.progress.insert(of, progress);
            }
            PullEvent::Ready { pulled } => {
                self.progress.remove(&of);
                if let ImageFor::Container(container) = &of {
                    history.set_pulled(&revision, container, pulled);
                }
                history.set_image(&revision, of, ImageState::Ready);
            }
            PullEvent::Failed { reason, message, error } => {
                self.progress.remove(&of);
                let kind = error.as_ref().map_or(ErrorKind::NotFound, Error::kind);
                let retry_after = error.as_ref().and_then(Error::retry_delay);
                let last = history.image(&revision, &of);
                let failure = Failure::after(last.failure(), reason, message, kind, retry_after, instant());
                history.set_image(&revision, of, ImageState::Failed(failure));
            }
        }
    }
}

/// Returns the subjects of an image's events: one for the image itself, and one for each container that needs it.
pub(super) fn subjects<R: Runtime>(context: &Context<R>, pod: &Pod, of: &ImageFor) -> (Subject, Vec<Subject>) {
    let subject = match of {
        ImageFor::Container(name) => context.container(Some(pod), name),
        ImageFor::Volume(_) => context.subject(),
    };
    (subject, image::users(pod, of).map(|user| context.container(Some(pod), &user.name)).collect())
}

/// Returns the pull policy. A container that has run in this revision restarts from the images on the node: their
/// registry may be unreachable.
fn policy(pod: &Pod, need: &Need<'_>, has_run: impl Fn(&Container) -> bool) -> PullPolicy {
    match need.policy {
        PullPolicy::Always if image::users(pod, &need.of).any(has_run) => PullPolicy::IfNotPresent,
        policy => policy,
    }
}

/// Returns the event message for an image that is already present.
pub(super) fn present(image: &str) -> String {
    format!("Container image \"{image}\" already present on machine and can be accessed by the pod")
}

/// Returns the credentials for an image from the pod's `imagePullSecrets`, each with its source.
fn credentials(pod: &Pod, image: &str, desired: Option<&DesiredPod>) -> Vec<(String, RegistryAuth)> {
    let reference = reference::full(image);
    let objects = desired.map(|desired| &desired.objects);
    let secrets = pod.pull_secrets.iter().filter_map(|key| match &**objects?.get(key)? {
        Object::Secret(secret) => Some((format!("pull secret {:?}", key.name), secret.credentials(&reference))),
        _ => None,
    });
    let auth = |Credential { username, password, identity_token }| RegistryAuth { username, password, identity_token };
    secrets.flat_map(|(from, found)| found.into_iter().map(move |it| (from.clone(), auth(it)))).collect()
}

/// Returns the names of the pod's `imagePullSecrets` that do not exist.
fn missing_secrets<'a>(pod: &'a Pod, desired: Option<&DesiredPod>) -> impl Iterator<Item = &'a str> {
    let objects = desired.map(|desired| Arc::clone(&desired.objects)).unwrap_or_default();
    pod.pull_secrets.iter().filter(move |secret| !objects.contains_key(*secret)).map(|secret| secret.name.as_str())
}

/// Fetch of one image.
struct Fetch<R> {
    revision: Revision,
    of: ImageFor,
    image: String,
    policy: PullPolicy,
    subject: Subject,
    /// Containers that wait for the image.
    users: Vec<Subject>,
    backend: String,
    /// The pod's credentials. The pull tries them one after another, then those of the node, and then none (R-IMG-9,
    /// R-IMG-10).
    credentials: Vec<(String, RegistryAuth)>,
    shared: Arc<Shared<R>>,
    sender: mpsc::Sender<PullUpdate>,
}

impl<R: Runtime> Fetch<R> {
    async fn run(self) {
        let event = match self.shared.slot(&self.backend) {
            Some(slot) => self.fetch(slot).await,
            None => PullEvent::Failed {
                reason: Reason::ErrImagePull,
                message: "the backend is not configured".into(),
                error: None,
            },
        };
        self.send(event).await;
    }

    async fn fetch(&self, slot: &BackendSlot<R>) -> PullEvent {
        let image = &self.image;
        let reference = reference::full(image);
        if let Some(why) = stanchion_pod::image_fault(image) {
            let message =
                format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}");
            self.events().warning(&self.subject, "InspectFailed", &message);
            self.warn_users("Error: InvalidImageName");
            let error = Some(Error::new(ErrorKind::Invalid, message.clone()));
            return PullEvent::Failed { reason: Reason::InvalidImageName, message, error };
        }
        let Some(runtime) = slot.backend.runtime() else {
            let error = Error::new(ErrorKind::Unavailable, format!("backend {} is not open", self.backend));
            return PullEvent::Failed { reason: Reason::ErrImagePull, message: error.chain(), error: Some(error) };
        };
        if self.policy != PullPolicy::Always {
            match slot.images.is_present(&*runtime, &reference).await {
                Ok(true) => {
                    // For a container's own image, the container's start emits this event.
                    if let ImageFor::Volume(_) = self.of {
                        self.events().normal(&self.subject, "Pulled", present(image));
                    }
                    return PullEvent::Ready { pulled: false };
                }
                Ok(false) => self.shared.imports.miss(&self.backend, &reference),
                Err(error) => {
                    let message = format!("Failed to inspect image \"{image}\": {}", error.chain());
                    self.events().warning(&self.subject, "InspectFailed", &message);
                    return PullEvent::Failed { reason: Reason::ImageInspectError, message, error: Some(error) };
                }
            }
        }
        if self.policy == PullPolicy::Never {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            self.events().warning(&self.subject, "ErrImageNeverPull", &message);
            self.warn_users("Error: ErrImageNeverPull");
            return PullEvent::Failed { reason: Reason::ErrImageNeverPull, message, error: None };
        }
        self.pull(slot, &runtime, &reference).await
    }

    async fn pull(&self, slot: &BackendSlot<R>, runtime: &Arc<R>, reference: &str) -> PullEvent {
        let image = &self.image;
        self.events().normal(&self.subject, "Pulling", format!("Pulling image \"{image}\""));
        let begun = instant();
        match self.pull_with_any(slot, runtime, reference).await {
            Ok(pulled) => {
                let (took, size) = (elapsed(begun), pulled.size);
                let message = format!("Successfully pulled image \"{image}\" in {took:.3?}. Image size: {size} bytes.");
                self.events().normal(&self.subject, "Pulled", message);
                PullEvent::Ready { pulled: true }
            }
            Err(error) => {
                let message = format!("Failed to pull image \"{image}\": {}", error.chain());
                self.events().warning(&self.subject, "Failed", &message);
                let message = error.chain();
                // While the registry is unreachable, an image that is present is used (R-IMG-5).
                let is_away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
                if is_away && slot.images.is_present(&**runtime, reference).await.unwrap_or(false) {
                    let message =
                        format!("Image \"{image}\" is used as it is on this node: its registry cannot be reached");
                    self.events().warning(&self.subject, "PulledLocally", message);
                    return PullEvent::Ready { pulled: true };
                }
                self.warn_users("Error: ErrImagePull");
                PullEvent::Failed { reason: Reason::ErrImagePull, message, error: Some(error) }
            }
        }
    }

    /// Pulls with one of the credentials after another, in a kubelet's order: the pod's, the node's, none.
    async fn pull_with_any(&self, slot: &BackendSlot<R>, runtime: &Arc<R>, reference: &str) -> Result<Image, Error> {
        let mut tried = TriedCredentials::default();
        for (from, auth) in &self.credentials {
            match self.pull_with(slot, runtime, reference, Some(auth.clone())).await {
                Err(error) if is_refusal(&error) => tried.add(from, &error.chain()),
                pulled => return pulled.map_err(|error| tried.into_error(from, error)),
            }
        }
        for ProviderAnswer { provider, credentials } in self.shared.providers.credentials(reference).await {
            let from = format!("credential provider {provider:?}");
            let found = credentials.unwrap_or_else(|why| {
                let message = format!("No credentials for image \"{}\" from {from}: {why}", self.image);
                self.events().warning(&self.subject, "CredentialProviderFailed", message);
                tried.add(&from, &why.to_string());
                Vec::new()
            });
            for auth in found {
                match self.pull_with(slot, runtime, reference, Some(auth)).await {
                    Err(error) if is_refusal(&error) => tried.add(&from, &error.chain()),
                    pulled => return pulled.map_err(|error| tried.into_error(&from, error)),
                }
            }
        }
        let pulled = self.pull_with(slot, runtime, reference, None).await;
        pulled.map_err(|error| tried.into_error("none of these", error))
    }

    async fn pull_with(
        &self,
        slot: &BackendSlot<R>,
        runtime: &Arc<R>,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<Image, Error> {
        let mut pull = slot.images.pull(runtime, reference, auth, &self.shared.supervisor);
        loop {
            let now = pull.borrow_and_update().clone();
            match now {
                Pull::Running(progress) => self.send(PullEvent::Progress(progress)).await,
                Pull::Done(pulled) => return pulled,
            }
            if pull.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Cancelled, "the agent stops"));
            }
        }
    }

    async fn send(&self, event: PullEvent) {
        let update = PullUpdate { revision: self.revision.clone(), of: self.of.clone(), event };
        if self.sender.send(update).await.is_err() {
            tracing::debug!("the pod went while its image was being fetched");
        }
    }

    /// Emits a warning for each container that waits for the image.
    fn warn_users(&self, why: &str) {
        for user in &self.users {
            self.events().warning(user, "Failed", why);
        }
    }

    fn events(&self) -> &EventLog {
        &self.shared.events
    }
}

/// Returns whether other credentials may help. Some registries answer `NotFound` for an image that the credentials do
/// not permit to read.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Permission | ErrorKind::NotFound)
}

/// Errors of the credentials that were tried.
#[derive(Default)]
struct TriedCredentials(Vec<String>);

impl TriedCredentials {
    fn add(&mut self, from: &str, why: &str) {
        self.0.push(format!("with {from}: {why}"));
    }

    /// Returns the last error, with the earlier ones in its message.
    fn into_error(mut self, from: &str, last: Error) -> Error {
        if self.0.is_empty() {
            return last;
        }
        self.add(from, &last.chain());
        let all = Error::new(last.kind(), self.0.join("; "));
        last.retry_delay().into_iter().fold(all, Error::retry_after)
    }
}
