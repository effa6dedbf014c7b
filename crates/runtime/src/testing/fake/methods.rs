//! The trait's methods: each is recorded, goes through the fault script, and does its work.

use std::{future::Future, os::fd::OwnedFd, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Call, FakeRuntime, Fault, Shared, TermAction, events::stream_of, lock, shell, state::Launch, steer::outage,
};
use crate::{
    Capabilities, ContainerConfig, ContainerId, ContainerStats, DiskUsage, Error, ErrorKind, Event, ExecId,
    ExecRequest, ExecStdio, ExitStatus, Health, Image, ImageDetails, ImageStore, ImportImages, Inventory, Progress,
    PullImage, Result, Runtime, SandboxConfig, SandboxId, SandboxInfo, Stats, TerminalSize, UnusedImage, Version,
};

impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<Version> {
        self.call(Call::Version, async {
            let capabilities = Capabilities {
                log_files: self.shared.read(|state| state.log_files),
                import: true,
                shared_pid_namespace: true,
                user_namespaces: self.shared.read(|state| !state.no_user_namespaces),
                image_mounts: self.shared.read(|state| !state.no_image_mounts),
            };
            Ok(Version { runtime: self.shared.name.to_string(), runtime_version: "1.0.0".to_owned(), capabilities })
        })
        .await
    }

    // `health` works during an outage too, and the fault script does not apply to it.
    async fn health(&self) -> Result<Health> {
        Ok(self.shared.read(|state| state.health.clone()))
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        self.call(Call::PullImage(request.clone()), self.shared.pull(request, progress)).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        let images = async { Ok(self.shared.read(|state| state.images.present.values().cloned().collect())) };
        self.call(Call::ListImages, images).await
    }

    async fn inspect_image(&self, reference: String) -> Result<ImageDetails> {
        self.act(Call::InspectImage(reference.clone()), || {
            let details = self.shared.read(|state| {
                let present = state.images.present.contains_key(&reference);
                let user = state.images.users.get(&reference).cloned().unwrap_or_default();
                present.then(|| ImageDetails { user, stop_signal: state.images.stop_signals.get(&reference).cloned() })
            });
            details.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("image {reference} is not present")))
        })
        .await
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        self.act(Call::RemoveImage(reference.clone()), || {
            self.shared.change(|state, _| state.images.present.remove(&reference));
            Ok(())
        })
        .await
    }

    async fn remove_unused_image(&self, image: UnusedImage) -> Result<()> {
        self.act(Call::RemoveUnusedImage(image.clone()), || {
            self.shared.change(|state, _| state.remove_unused_image(&image))
        })
        .await
    }

    async fn image_store(&self) -> Result<ImageStore> {
        self.act(Call::ImageStore, || Ok(self.shared.read(|state| state.image_store()))).await
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.act(Call::ImportImages(request.clone()), || self.shared.import(&request)).await
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.act(Call::CreateSandbox(config.clone()), || {
            self.shared.change(|state, now| state.create_sandbox(config, now))
        })
        .await
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        self.act(Call::StopSandbox(id.clone()), || {
            self.shared.change(|state, now| state.stop_sandbox(&id, "stopped", now));
            Ok(())
        })
        .await
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        self.act(Call::RemoveSandbox(id.clone()), || {
            self.shared.change(|state, now| state.remove_sandbox(&id, now));
            Ok(())
        })
        .await
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        self.act(Call::CreateContainer(config.clone()), || {
            self.shared.change(|state, now| state.create_container(config, now))
        })
        .await
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        self.act(Call::StartContainer(id.clone()), || {
            let launch = self.shared.change(|state, now| state.start(&id, now))?;
            if let Some(launch) = launch {
                self.shared.play(&id, launch);
            }
            Ok(())
        })
        .await
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        self.call(Call::StopContainer(id.clone(), grace), self.shared.stop(id, grace)).await
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        self.act(Call::RemoveContainer(id.clone()), || {
            self.shared.change(|state, now| state.remove_container(&id, now));
            Ok(())
        })
        .await
    }

    async fn list(&self) -> Result<Inventory> {
        self.call(Call::List, async { Ok(self.inventory()) }).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.call(Call::Stats, async { Ok(self.shared.stats()) }).await
    }

    async fn disk_usage(&self, id: ContainerId) -> Result<DiskUsage> {
        self.act(Call::DiskUsage(id.clone()), || {
            self.shared.read(|state| {
                let missing =
                    || Error::new(ErrorKind::NotFound, format!("disk usage of container {id}: there is none"));
                let container = state.containers.get(&id).ok_or_else(missing)?;
                let logs = if state.log_files { 0 } else { container.output.len() as u64 };
                Ok(DiskUsage { writable_layer: container.files.values().map(|file| file.len() as u64).sum(), logs })
            })
        })
        .await
    }

    async fn exec(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        self.call(Call::Exec(request.clone()), self.shared.exec(request, stdio)).await
    }

    async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        self.act(Call::ResizeExec(id.clone(), size), || {
            self.shared.change(|state, _| match state.execs.get_mut(&id) {
                Some(now) => {
                    *now = Some(size);
                    Ok(())
                }
                None => Err(Error::new(ErrorKind::NotFound, format!("resize exec {id}: it does not run"))),
            })
        })
        .await
    }

    async fn logs(&self, id: ContainerId, sink: OwnedFd) -> Result<()> {
        self.call(Call::Logs(id.clone()), async {
            let kept = self.shared.read(|state| {
                if state.log_files {
                    return Err(Error::unsupported("logs, as output is written to log files,"));
                }
                let container = state.containers.get(&id);
                let missing = || Error::new(ErrorKind::NotFound, format!("logs of container {id}: there is none"));
                container.map(|container| container.output.clone()).ok_or_else(missing)
            })?;
            shell::write_all(Some(&Arc::new(sink.into())), kept).await;
            Ok(())
        })
        .await
    }

    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        let fault = lock(&self.shared.script).strike(Call::Events);
        let mut receiver = {
            let mut state = lock(&self.shared.state);
            let receiver = state.events.subscribe();
            if state.outage {
                state.events.end(&outage());
            }
            receiver
        };
        let shared = Arc::clone(&self.shared);
        let first = async move {
            match fault {
                None => {}
                Some(Fault::Fail(error) | Fault::LoseAnswer(error)) => {
                    let (sender, failed) = tokio::sync::mpsc::unbounded_channel();
                    sender.send(Err(error)).ok();
                    receiver = failed;
                }
                Some(Fault::Slow(delay)) => sleep(delay).await,
                Some(Fault::Hang(hold) | Fault::HangAfter(hold)) => hold.pass().await,
            }
            if shared.read(|state| state.outage) {
                let (sender, failed) = tokio::sync::mpsc::unbounded_channel();
                sender.send(Err(outage())).ok();
                receiver = failed;
            }
            stream_of(receiver)
        };
        futures_util::StreamExt::flatten(futures_util::stream::once(first))
    }
}

impl FakeRuntime {
    /// Does [`call`](Self::call) for work without an await.
    async fn act<T>(&self, call: Call, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.call(call, async { work() }).await
    }

    async fn call<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.shared.journal.record_call(&self.shared.name, &call);
        let fault = lock(&self.shared.script).strike(call);
        // A real runtime never answers within the same poll.
        tokio::task::yield_now().await;
        match &fault {
            Some(Fault::Fail(error)) => return Err(error.clone()),
            Some(Fault::Slow(delay)) => sleep(*delay).await,
            Some(Fault::Hang(hold)) => hold.pass().await,
            Some(Fault::LoseAnswer(_) | Fault::HangAfter(_)) | None => {}
        }
        if self.shared.read(|state| state.outage) {
            return Err(outage());
        }
        let answer = work.await;
        match fault {
            Some(Fault::LoseAnswer(error)) => return Err(error),
            Some(Fault::HangAfter(hold)) => hold.pass().await,
            _ => {}
        }
        answer
    }
}

impl Shared {
    /// Starts the task that plays a started container's program.
    fn play(self: &Arc<Self>, id: &ContainerId, launch: Launch) {
        let shared = Arc::clone(self);
        let player = id.clone();
        let program = async move {
            let code = match launch {
                Launch::Program(program) => match program.exit {
                    Some((after, code)) => {
                        sleep(after).await;
                        Some(code)
                    }
                    None => None,
                },
                Launch::Command(command) => shell::run_container(&shared, &player, &command).await,
            };
            if let Some(code) = code {
                shared.change(|state, now| state.end(&player, Some(code), false, now));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "a container lives by itself, as the runtime's processes do")]
        let task = tokio::spawn(program);
        self.change(|state, _| {
            if let Some(container) = state.containers.get_mut(id) {
                container.task = Some(task.abort_handle());
            }
        });
    }

    async fn stop(self: &Arc<Self>, id: ContainerId, grace: Duration) -> Result<()> {
        let mut changes = self.changes.subscribe();
        let deadline = Instant::now() + grace;
        let on_term = self.read(|state| state.containers.get(&id).map(|container| container.on_term));
        if let Some(TermAction::Exit { delay, code }) = on_term.filter(|_| !grace.is_zero()) {
            let shared = Arc::clone(self);
            let stopping = id.clone();
            let end = move || shared.change(|state, now| state.end(&stopping, Some(code), false, now));
            if delay.is_zero() {
                end();
            } else {
                #[expect(clippy::disallowed_methods, reason = "the signal was sent, whether or not the caller waits")]
                tokio::spawn(async move {
                    sleep(delay).await;
                    end();
                });
            }
        }
        while self.read(|state| state.is_running(&id)) {
            // Both arms are cancel-safe: `changed` only marks the latest count as read.
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(deadline) => self.change(|state, now| state.end(&id, Some(137), false, now)),
            }
        }
        Ok(())
    }

    fn stats(&self) -> Stats {
        let now = self.now();
        let running = self.read(|state| {
            let running = state.containers.values().filter(|container| container.is_running());
            running.map(|container| container.info.id.clone()).collect::<Vec<_>>()
        });
        let containers = running
            .into_iter()
            .map(|id| ContainerStats {
                id,
                timestamp: now,
                cpu_usage_ns: 1_000_000,
                memory_usage: 1 << 20,
                memory_working_set: 1 << 20,
                pids: 1,
            })
            .collect();
        Stats { containers }
    }
}
