//! FakeRuntime with one rule broken.

use std::{
    fs::File,
    future::Future,
    io::Write,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use stanchion_runtime::{
    ContainerConfig, ContainerId, ContainerState, DiskUsage, Error, ErrorKind, Event, EventKind, ExecId, ExecRequest,
    ExecStdio, ExitStatus, Image, ImageDetails, ImageMount, ImageStore, ImportImages, Inventory, IpcMode, NetworkMode,
    PidMode, Profile, Progress, PullImage, Result, Runtime, SandboxConfig, SandboxId, SandboxInfo, Stats, TerminalSize,
    UnusedImage, Version, testing::FakeRuntime,
};

/// Rule that a mutant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    SupportsNothing,
    SandboxTwice,
    SandboxAddressShared,
    SandboxAddressOnHost,
    SandboxStopDoesNothing,
    SandboxStopForgets,
    SandboxRemoveLeavesRecord,
    SandboxRemoveTakesAll,
    SandboxOfGoneFails,
    HostnameIgnored,
    LabelsLost,
    ContainerTwice,
    ContainerTwiceReplaces,
    CreateStarts,
    AttemptLost,
    ImageNotChecked,
    ListForgetsExited,
    RemoveLeavesRecord,
    RemoveOfGoneFails,
    StartsAgain,
    ExitCodeLost,
    MemoryLimitIgnored,
    OomNotTold,
    StatsEmpty,
    DiskUsageNone,
    StopKillsAtOnce,
    StopNeverKills,
    StopAsksWithoutGrace,
    StopOfGoneFails,
    ArgsIgnored,
    EnvironmentIgnored,
    WorkingDirIgnored,
    MountsIgnored,
    ReadOnlyIgnored,
    ImageMountsIgnored,
    ImageMountsWhole,
    ImageMountsUnchecked,
    UserIgnored,
    GroupsIgnored,
    CapabilitiesIgnored,
    PrivilegedIgnored,
    NoNewPrivilegesIgnored,
    ReadOnlyRootIgnored,
    UnmaskedProcIgnored,
    SeccompIgnored,
    OomScoreIgnored,
    SysctlsIgnored,
    PidModeIgnored,
    IpcModeIgnored,
    ImageUserInvented,
    TerminalIgnored,
    InputIgnored,
    ExecSucceedsAlways,
    ExecMergesOutput,
    ExecIgnoresInput,
    ExecKeepsOutputOpen,
    ExecWithoutTerminal,
    ResizeOfGoneSucceeds,
    LogsEmpty,
    LogsOneStream,
    EventsWithoutResync,
    EventsSilent,
    AbandonedIsHidden,
    PullSilent,
    PullNotListed,
    PullOfAnythingSucceeds,
    ImageRemoveDoesNothing,
    ImageStoreNowhere,
    ImageStoreIdle,
    UsedImageRemoved,
    UnusedImageStays,
    UnusedImageUnchecked,
    VersionNameless,
}

/// FakeRuntime with one rule broken.
pub struct Mutant {
    fake: FakeRuntime,
    broken: Broken,
    /// A creation was abandoned, and `list` does not show it.
    hidden: AtomicBool,
}

impl Mutant {
    /// Returns `fake` with the rule `broken` broken.
    pub fn new(fake: FakeRuntime, broken: Broken) -> Self {
        Self { fake, broken, hidden: AtomicBool::new(false) }
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == broken
    }

    /// Forwards the call, unless the mutant supports nothing.
    async fn pass<T>(&self, what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is(Broken::SupportsNothing) { Err(Error::unsupported(what)) } else { call.await }
    }

    fn knows(&self, id: &ContainerId) -> bool {
        self.fake.container_config(id).is_some()
    }
}

fn gone(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("{what} is gone"))
}

impl Runtime for Mutant {
    async fn version(&self) -> Result<Version> {
        let mut version = self.pass("version", self.fake.version()).await?;
        if self.is(Broken::VersionNameless) {
            version.runtime.clear();
        }
        Ok(version)
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        let progress = if self.is(Broken::PullSilent) { Progress::ignored() } else { progress };
        let digest = "sha256:0".into();
        let (reference, size) = (request.reference.clone(), 0);
        match self.pass("pull", self.fake.pull_image(request, progress)).await {
            Ok(image) if self.is(Broken::PullNotListed) => {
                self.fake.remove_image(image.reference.clone()).await?;
                Ok(image)
            }
            Err(_) if self.is(Broken::PullOfAnythingSucceeds) => Ok(Image { reference, digest, size }),
            answer => answer,
        }
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.pass("list_images", self.fake.list_images()).await
    }

    async fn inspect_image(&self, reference: String) -> Result<ImageDetails> {
        let answer = self.pass("inspect_image", self.fake.inspect_image(reference)).await;
        match self.broken {
            Broken::ImageUserInvented => Ok(ImageDetails { user: "nobody".to_owned(), ..ImageDetails::default() }),
            _ => answer,
        }
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        if self.is(Broken::ImageRemoveDoesNothing) {
            return Ok(());
        }
        self.pass("remove_image", self.fake.remove_image(reference)).await
    }

    async fn remove_unused_image(&self, image: UnusedImage) -> Result<()> {
        let answer = self.pass("remove_unused_image", self.fake.remove_unused_image(image.clone())).await;
        match (self.broken, answer) {
            (Broken::UnusedImageStays, _) => {
                self.fake.publish(&image.reference, 1);
                self.fake.pull_image(PullImage { reference: image.reference, auth: None }, Progress::ignored()).await?;
                Ok(())
            }
            (Broken::UsedImageRemoved | Broken::UnusedImageUnchecked, Err(_)) => {
                self.fake.remove_image(image.reference).await
            }
            (_, answer) => answer,
        }
    }

    async fn image_store(&self) -> Result<ImageStore> {
        let store = self.pass("image_store", self.fake.image_store()).await?;
        Ok(match self.broken {
            Broken::ImageStoreNowhere => ImageStore::default(),
            Broken::ImageStoreIdle => ImageStore { in_use: Vec::new(), ..store },
            _ => store,
        })
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.pass("import", self.fake.import_images(request)).await
    }

    async fn create_sandbox(&self, mut config: SandboxConfig) -> Result<SandboxInfo> {
        if self.is(Broken::HostnameIgnored) {
            config.hostname.clear();
        }
        match self.broken {
            Broken::SysctlsIgnored => config.sysctls.clear(),
            Broken::PidModeIgnored => config.pid = PidMode::Container,
            Broken::IpcModeIgnored => config.ipc = IpcMode::Pod,
            _ => {}
        }
        if self.is(Broken::AbandonedIsHidden) {
            if self.hidden.swap(true, Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::AlreadyExists, "it is somewhere"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.hidden.store(false, Ordering::Relaxed);
        }
        let uid = config.uid.clone();
        let on_host = config.network == NetworkMode::Host;
        match self.pass("create_sandbox", self.fake.create_sandbox(config)).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && self.is(Broken::SandboxTwice) => {
                let all = self.fake.inventory().sandboxes;
                let of = |info: &SandboxInfo| self.fake.sandbox_config(&info.id).is_some_and(|it| it.uid == uid);
                all.into_iter().find(of).ok_or(error)
            }
            Ok(mut info) => {
                if self.is(Broken::SandboxAddressShared) || (on_host && self.is(Broken::SandboxAddressOnHost)) {
                    info.addresses = vec![[10, 0, 0, 1].into()];
                }
                Ok(info)
            }
            answer => answer,
        }
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        if self.is(Broken::SandboxOfGoneFails) && self.fake.sandbox_config(&id).is_none() {
            return Err(gone(id));
        }
        match self.broken {
            Broken::SandboxStopDoesNothing => Ok(()),
            Broken::SandboxStopForgets => self.fake.remove_sandbox(id).await,
            _ => self.pass("stop_sandbox", self.fake.stop_sandbox(id)).await,
        }
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        match self.broken {
            Broken::SandboxRemoveLeavesRecord => self.fake.stop_sandbox(id).await,
            Broken::SandboxRemoveTakesAll => {
                for sandbox in self.fake.inventory().sandboxes {
                    self.fake.remove_sandbox(sandbox.id).await?;
                }
                Ok(())
            }
            _ => self.pass("remove_sandbox", self.fake.remove_sandbox(id)).await,
        }
    }

    async fn create_container(&self, mut config: ContainerConfig) -> Result<ContainerId> {
        let (name, attempt) = (config.name.clone(), config.attempt);
        match self.broken {
            Broken::AttemptLost => config.attempt = 0,
            Broken::ImageNotChecked => {
                config.image = self.fake.list_images().await?.remove(0).reference;
            }
            Broken::MemoryLimitIgnored => config.resources = Default::default(),
            Broken::ArgsIgnored => config.args = None,
            Broken::EnvironmentIgnored => config.env.clear(),
            Broken::WorkingDirIgnored => config.working_dir = None,
            Broken::MountsIgnored => config.mounts.clear(),
            Broken::ImageMountsIgnored => config.mounts.retain(|mount| mount.image.is_none()),
            Broken::ImageMountsWhole => images(&mut config).for_each(|image| image.sub_path.clear()),
            Broken::ImageMountsUnchecked => {
                let image = config.image.clone();
                images(&mut config).for_each(|mount| mount.reference.clone_from(&image));
            }
            Broken::TerminalIgnored => config.tty = false,
            Broken::InputIgnored => config.stdin = false,
            Broken::UserIgnored => config.security.user = None,
            Broken::GroupsIgnored => config.security.groups.clear(),
            Broken::CapabilitiesIgnored => {
                config.security.add_capabilities.clear();
                config.security.drop_capabilities.clear();
            }
            Broken::PrivilegedIgnored => config.security.privileged = false,
            Broken::NoNewPrivilegesIgnored => config.security.no_new_privileges = false,
            Broken::ReadOnlyRootIgnored => config.security.read_only_root = false,
            Broken::UnmaskedProcIgnored => config.security.unmasked_proc = false,
            Broken::SeccompIgnored => config.security.seccomp = Profile::Unconfined,
            Broken::OomScoreIgnored => config.resources.oom_score_adj = None,
            Broken::ReadOnlyIgnored => config.mounts.iter_mut().for_each(|mount| mount.read_only = false),
            _ => {}
        }
        let answer = self.pass("create_container", self.fake.create_container(config.clone())).await;
        let twin = self.fake.inventory().containers.into_iter().find(|it| (&it.name, it.attempt) == (&name, attempt));
        match (self.broken, answer, twin) {
            (Broken::ContainerTwice, Err(_), Some(twin)) => Ok(twin.id),
            (Broken::ContainerTwiceReplaces, Err(error), Some(twin)) => {
                self.fake.remove_container(twin.id).await?;
                self.fake.create_container(config).await?;
                Err(error)
            }
            (Broken::CreateStarts, Ok(id), _) => {
                self.fake.start_container(id.clone()).await?;
                Ok(id)
            }
            (_, answer, _) => answer,
        }
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        let answer = self.pass("start_container", self.fake.start_container(id)).await;
        if self.is(Broken::StartsAgain) { Ok(()) } else { answer }
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        if self.is(Broken::StopOfGoneFails) && !self.knows(&id) {
            return Err(gone(id));
        }
        match self.broken {
            Broken::StopKillsAtOnce => self.fake.stop_container(id, Duration::ZERO).await,
            Broken::StopAsksWithoutGrace => self.fake.stop_container(id, grace.max(Duration::from_millis(100))).await,
            Broken::StopNeverKills => {
                let patient = self.fake.stop_container(id, Duration::from_secs(3600));
                tokio::time::timeout(grace, patient).await.unwrap_or(Ok(()))
            }
            _ => self.pass("stop_container", self.fake.stop_container(id, grace)).await,
        }
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        if self.is(Broken::RemoveOfGoneFails) && !self.knows(&id) {
            return Err(gone(id));
        }
        if self.is(Broken::RemoveLeavesRecord) {
            return self.fake.stop_container(id, Duration::ZERO).await;
        }
        self.pass("remove_container", self.fake.remove_container(id)).await
    }

    async fn list(&self) -> Result<Inventory> {
        let mut all = self.pass("list", self.fake.list()).await?;
        match self.broken {
            Broken::LabelsLost => all.sandboxes.iter_mut().for_each(|sandbox| sandbox.labels.clear()),
            Broken::ListForgetsExited => {
                all.containers.retain(|it| !matches!(it.state, ContainerState::Exited { .. }));
            }
            _ => {}
        }
        for container in &mut all.containers {
            if let ContainerState::Exited { code, oom_killed, .. } = &mut container.state {
                *code = code.filter(|_| !self.is(Broken::ExitCodeLost));
                *oom_killed &= !self.is(Broken::OomNotTold);
            }
        }
        Ok(all)
    }

    async fn stats(&self) -> Result<Stats> {
        let stats = self.pass("stats", self.fake.stats()).await?;
        Ok(if self.is(Broken::StatsEmpty) { Stats::default() } else { stats })
    }

    async fn disk_usage(&self, id: ContainerId) -> Result<DiskUsage> {
        let usage = self.pass("disk_usage", self.fake.disk_usage(id)).await?;
        Ok(if self.is(Broken::DiskUsageNone) { DiskUsage::default() } else { usage })
    }

    async fn exec(&self, mut request: ExecRequest, mut stdio: ExecStdio) -> Result<ExitStatus> {
        let mut kept = None;
        match self.broken {
            Broken::ExecIgnoresInput => stdio.stdin = None,
            Broken::ExecMergesOutput => stdio.stderr = copy(stdio.stdout.as_ref()),
            Broken::ExecKeepsOutputOpen => kept = copy(stdio.stdout.as_ref()),
            Broken::ExecWithoutTerminal => request.tty = false,
            _ => {}
        }
        let mut status = self.pass("exec", self.fake.exec(request, stdio)).await?;
        if let Some(kept) = kept {
            std::mem::forget(kept);
        }
        if self.is(Broken::ExecSucceedsAlways) {
            status.code = 0;
        }
        Ok(status)
    }

    async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        let answer = self.pass("resize_exec", self.fake.resize_exec(id, size)).await;
        if self.is(Broken::ResizeOfGoneSucceeds) { Ok(()) } else { answer }
    }

    async fn logs(&self, id: ContainerId, sink: OwnedFd) -> Result<()> {
        match self.broken {
            Broken::LogsEmpty => Ok(()),
            Broken::LogsOneStream => {
                let line = "2026-11-23T21:15:30Z stdout F one\n".repeat(3);
                File::from(sink).write_all(line.as_bytes()).expect("the suite reads");
                Ok(())
            }
            _ => self.pass("logs", self.fake.logs(id, sink)).await,
        }
    }

    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        let broken = self.broken;
        let events = self.fake.events().filter(move |event| {
            let resync = matches!(event, Ok(Event { kind: EventKind::Resync }));
            std::future::ready(match broken {
                Broken::EventsWithoutResync => !resync,
                Broken::EventsSilent => resync,
                _ => true,
            })
        });
        if broken == Broken::SupportsNothing {
            stream::once(async { Err(Error::unsupported("events")) }).boxed()
        } else {
            events.boxed()
        }
    }
}

/// Returns the images that a container mounts.
fn images(config: &mut ContainerConfig) -> impl Iterator<Item = &mut ImageMount> {
    config.mounts.iter_mut().filter_map(|mount| mount.image.as_mut())
}

fn copy(fd: Option<&OwnedFd>) -> Option<OwnedFd> {
    fd.map(|fd| fd.try_clone().expect("a descriptor can be copied"))
}
