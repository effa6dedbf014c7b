//! Containerds that pods run on: K3s's, and, if so configured, one of our own while that is away.
//!
//! New pods go to K3s's containerd whenever it answers. Ids on ours begin with [`MARK`]. Some of K3s's pods may run on
//! while their containerd is away: they are listed as running, so that the agent does not start them again on ours
//! (invariant I1), and leaves them alone (I3).

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, future::Either, stream};
use stanchion_containerd::{Containerd, Unattended};
use stanchion_sdk::runtime::{
    ContainerId, Error, ErrorKind, Event, EventKind, ExecId, Health, Image, ImportImages, Inventory, NodePaths,
    PodName, Result, Runtime, SandboxConfig, SandboxId, SandboxInfo, SandboxState, Stats, TerminalSize,
};
use tokio::sync::RwLock;

use crate::{
    archives::Archives,
    config::{Absent, Config, Return},
    layout::Layout,
    own::Daemon,
    presence::Presence,
    registries,
};

/// Prefix of ids on our own containerd.
const MARK: &str = "own:";

/// K3s's containerd, and ours.
#[derive(Clone, Debug)]
pub struct Places {
    layout: Layout,
    on_return: Return,
    /// Time without K3s's containerd before ours is started.
    patience: Duration,
    presence: Presence,
    k3s: Containerd,
    unattended: Unattended,
    own: Option<Own>,
    archives: Archives,
}

/// Containerd of our own.
#[derive(Clone, Debug)]
struct Own {
    daemon: Daemon,
    containerd: Containerd,
    /// Locked for writing while it is ended for lack of pods, for reading while a sandbox is made there.
    ending: Arc<RwLock<()>>,
}

impl Places {
    pub fn new(config: Config, node: &NodePaths) -> Result<Self> {
        let Config { k3s: settings, mut containerd } = config;
        let layout = Layout::find(settings.data_dir.as_deref(), &containerd.socket);
        let plugins = layout.cni_directories();
        containerd.network.cni_bin_dirs.splice(0..0, plugins);
        // The settings of this configuration override those of the file.
        let file = settings.registries(&layout);
        containerd.registry_settings =
            format!("configs.\"{{host}}\" of {} or [backend.k3s.registry.\"{{host}}\"]", file.display());
        for (host, registry) in registries::read(&file) {
            containerd.registry.entry(host).or_insert(registry);
        }
        // Their ids differ from each other's and from those of a containerd of the node's own, which may run the same
        // pods while K3s's is away.
        let k3s = Containerd::new(containerd.clone(), node)?.in_realm("k3s");
        let own = match settings.when_socket_absent {
            Absent::Own => {
                let daemon = Daemon::new(layout.clone(), node);
                containerd.socket = daemon.socket();
                containerd.cgroup_root.push_str("/own");
                let containerd = Containerd::new(containerd, node)?.in_realm("k3s-own");
                Some(Own { daemon, containerd, ending: Arc::default() })
            }
            Absent::Wait | Absent::Fallback => None,
        };
        Ok(Self {
            presence: Presence::of(layout.socket()),
            unattended: Unattended::new(k3s.clone(), layout.state()),
            archives: Archives::of(layout.data()),
            layout,
            on_return: settings.on_return,
            patience: settings.patience()?,
            k3s,
            own,
        })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns whether K3s's containerd answers.
    pub async fn k3s_is_there(&self) -> bool {
        self.presence.is_there().await
    }

    /// Returns whether K3s's containerd has been away long enough to start pods elsewhere.
    fn is_long_absent(&self) -> bool {
        self.presence.absence() >= self.patience
    }

    /// Returns the containerd for images and new pods now. Starts ours if need be.
    pub async fn active(&self) -> Result<&Containerd> {
        let Some(own) = &self.own else { return Ok(&self.k3s) };
        if self.k3s_is_there().await {
            return Ok(&self.k3s);
        }
        self.may_take_over()?;
        own.daemon.ensure().await?;
        Ok(&own.containerd)
    }

    fn may_take_over(&self) -> Result<()> {
        if self.is_long_absent() {
            return Ok(());
        }
        let (socket, patience) = (self.layout.socket().display(), self.patience.as_secs_f64());
        let message = format!("K3s's containerd does not answer at {socket}");
        Err(Error::new(ErrorKind::Unavailable, message)
            .because(format!("after {patience} s without it a containerd of our own is started")))
    }

    /// Returns the health of the networks of the containerds in use, if anything is wrong with it. While ours stands in
    /// for K3s's, nobody looks at the network of K3s's, so it is not asked.
    pub async fn network_health(&self, k3s_is_there: bool) -> Result<Vec<Health>> {
        let own = self.own.as_ref().filter(|own| !k3s_is_there || own.daemon.is_in_use());
        let k3s = Some(&self.k3s).filter(|_| k3s_is_there || self.own.is_none());
        let mut found = Vec::new();
        for place in k3s.into_iter().chain(own.map(|own| &own.containerd)) {
            found.push(place.health().await?);
        }
        found.retain(|health| !health.state.is_empty());
        Ok(found)
    }

    /// Returns whether this is the containerd of our own.
    fn is_own(&self, place: &Containerd) -> bool {
        self.own.as_ref().is_some_and(|own| std::ptr::eq(&raw const own.containerd, place))
    }

    /// Lists the images that pods can be started from now.
    pub async fn list_images(&self) -> Result<Vec<Image>> {
        let active = self.active().await?;
        self.archives.bring(if self.is_own(active) { "our own containerd" } else { "K3s's containerd" }, active).await;
        active.list_images().await
    }

    pub async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        let path = request.path.clone();
        let images = self.active().await?.import_images(request).await?;
        if self.own.is_some() {
            self.archives.note(path);
        }
        Ok(images)
    }

    /// Returns the containerd of a sandbox, and its id there.
    pub fn of_sandbox(&self, id: &SandboxId) -> Result<(&Containerd, SandboxId)> {
        self.of(&id.0).map(|(place, id)| (place, SandboxId(id)))
    }

    /// Returns the containerd of a container, and its id there.
    pub fn of_container(&self, id: &ContainerId) -> Result<(&Containerd, ContainerId)> {
        self.of(&id.0).map(|(place, id)| (place, ContainerId(id)))
    }

    fn of(&self, id: &str) -> Result<(&Containerd, String)> {
        match (id.strip_prefix(MARK), &self.own) {
            (None, _) => Ok((&self.k3s, id.to_owned())),
            (Some(id), Some(own)) => Ok((&own.containerd, id.to_owned())),
            (Some(_), None) => {
                let message =
                    format!("{id} is on a containerd of our own, and there is none: when_socket_absent was \"own\"");
                Err(Error::new(ErrorKind::NotFound, message))
            }
        }
    }

    pub async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        let _held = match &self.own {
            Some(own) => Some(own.ending.read().await),
            None => None,
        };
        let active = self.active().await?;
        let is_own = self.is_own(active);
        let mut info = active.create_sandbox(config).await?;
        if is_own {
            info.id = SandboxId(format!("{MARK}{}", info.id));
        }
        Ok(info)
    }

    /// Stops a container, also while K3s's containerd is away: if ours may stand in for it, the container is still
    /// listed.
    pub async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let (place, inner) = self.of_container(id)?;
        let is_attended = self.own.is_none() || id.0.starts_with(MARK) || self.k3s_is_there().await;
        match is_attended {
            true => place.stop_container(inner, grace).await,
            false => self.unattended.stop(&inner, grace).await,
        }
    }

    /// Lists everything, or everything of one pod.
    pub async fn list(&self, pod: Option<&PodName>) -> Result<Inventory> {
        let Some(own) = &self.own else { return listed(&self.k3s, pod).await };
        let is_there = self.k3s_is_there().await;
        if !is_there {
            self.may_take_over()?;
        }
        let mut inventory = match is_there {
            true => listed(&self.k3s, pod).await?,
            false => {
                let running = self.unattended.list().await?;
                pod.map_or(running.clone(), |pod| running.of_pod(pod))
            }
        };
        if !is_there || own.daemon.is_in_use() {
            own.daemon.ensure().await?;
            let mut more = listed(&own.containerd, pod).await?;
            if is_there && pod.is_none() && more == Inventory::default() {
                self.end_own(own).await?;
            }
            if is_there && self.on_return == Return::Migrate {
                more.sandboxes.iter_mut().for_each(migrate);
            }
            marked(&mut more);
            inventory.sandboxes.append(&mut more.sandboxes);
            inventory.containers.append(&mut more.containers);
        }
        Ok(inventory)
    }

    /// Ends our containerd, unless a pod is being made on it.
    async fn end_own(&self, own: &Own) -> Result<()> {
        let Ok(_held) = own.ending.try_write() else { return Ok(()) };
        if own.containerd.list().await? != Inventory::default() {
            return Ok(());
        }
        tracing::info!("K3s's containerd is back and ours has no pods any more: it is ended");
        own.daemon.end().await
    }

    pub async fn stats(&self) -> Result<Stats> {
        let Some(own) = self.own.as_ref().filter(|own| own.daemon.is_in_use()) else { return self.k3s.stats().await };
        let mut stats = match self.k3s_is_there().await {
            true => self.k3s.stats().await?,
            false => Stats::default(),
        };
        let more = own.containerd.stats().await?;
        stats.containers.extend(more.containers.into_iter().map(|mut one| {
            one.id = ContainerId(format!("{MARK}{}", one.id));
            one
        }));
        Ok(stats)
    }

    /// Resizes the terminal of an exec, on the containerd that has it: its id does not tell which.
    pub async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        match (self.k3s.resize_exec(id.clone(), size).await, &self.own) {
            (Err(error), Some(own)) if error.kind() == ErrorKind::NotFound => {
                own.containerd.resize_exec(id, size).await
            }
            (resized, _) => resized,
        }
    }

    /// Returns the events of both. They end when K3s's containerd comes or goes: then everything is listed anew.
    pub fn events(self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        let Some(own) = self.own.clone() else { return Either::Left(boxed(self.k3s.events())) };
        let begun = async move {
            let is_there = self.k3s_is_there().await;
            let presence = self.presence.clone();
            let k3s = match is_there {
                true => boxed(self.k3s.events()),
                false => boxed(stream::once(async move {
                    presence.returned().await;
                    Err(Error::new(ErrorKind::Unavailable, "K3s's containerd is back"))
                })),
            };
            let own = stream::once(async move {
                own.daemon.used().await;
                boxed(own.containerd.events().map(|event| event.map(mark_event)))
            });
            let own = boxed(own.flatten());
            stream::once(std::future::ready(Ok(EventKind::Resync.into()))).chain(stream::select(k3s, own))
        };
        Either::Right(stream::once(begun).flatten())
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<Event>> + Send>>;

/// Boxes the events, so that they do not borrow what they were made from.
fn boxed(events: impl Stream<Item = Result<Event>> + Send + 'static) -> Events {
    Box::pin(events)
}

async fn listed(place: &Containerd, pod: Option<&PodName>) -> Result<Inventory> {
    match pod {
        Some(pod) => place.list_pod(pod.clone()).await,
        None => place.list().await,
    }
}

/// Returns the mark of an id, if it has one.
pub fn mark(id: &str) -> &'static str {
    if id.starts_with(MARK) { MARK } else { "" }
}

fn marked(inventory: &mut Inventory) {
    for sandbox in &mut inventory.sandboxes {
        sandbox.id.0.insert_str(0, MARK);
    }
    for container in &mut inventory.containers {
        container.id.0.insert_str(0, MARK);
        container.sandbox.0.insert_str(0, MARK);
    }
}

fn mark_event(mut event: Event) -> Event {
    match &mut event.kind {
        EventKind::Started { container } | EventKind::Exited { container } | EventKind::OutOfMemory { container } => {
            container.0.insert_str(0, MARK);
        }
        _ => {}
    }
    event
}

/// Makes a ready sandbox one that can only be removed: the agent stops its containers, and makes the pod's next
/// sandbox, on K3s's containerd.
fn migrate(sandbox: &mut SandboxInfo) {
    if sandbox.state == SandboxState::Ready {
        let reason = "K3s's containerd is back, and on_return is \"migrate\"".to_owned();
        sandbox.state = SandboxState::NotReady { reason };
    }
}
