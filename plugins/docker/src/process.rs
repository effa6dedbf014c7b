//! Processes of containers, from start to stop, kill and removal.

use std::time::Duration;

use bollard::{
    errors::Error as ApiError,
    models::ContainerInspectResponse,
    query_parameters::{KillContainerOptions, RemoveContainerOptions, StartContainerOptions, WaitContainerOptions},
};
use futures_util::StreamExt;
use stanchion_sdk::{
    blocking,
    cgroup::{self, Cgroup},
    changes::finish,
    clock,
    runtime::{ContainerId, Error, ErrorKind, Result, signal},
    shim::TAKES_BACK,
};

use crate::{
    Docker,
    client::{failed, is_gone, said, status},
    kills, names, orphan,
    volumes::Volumes,
};

/// Number of waits for somebody else's removal of a container, and the length of each.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);
pub(crate) const SIGTERM: i32 = 15;
/// Interval between tries of a start while containerd cleans up one that dockerd had not finished when it was killed.
const AGAIN: Duration = Duration::from_millis(200);

impl Docker {
    pub(crate) async fn start_process(&self, id: &ContainerId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move { backend.start_process_now(&id).await }).await
    }

    async fn start_process_now(&self, id: &ContainerId) -> Result<()> {
        let tried = || format!("starting container {id}");
        let found = self.client.find(id.as_str()).await?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{}: it does not exist", tried())))?;
        // Docker would start a container twice.
        if !orphan::is_unstarted(&found) {
            let message = format!("{}: it was started before, and a container starts once", tried());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if let Some(pod) = pod_cgroup(&found) {
            let may_have_shim = self.may_have_shim(id.as_str(), &found);
            self.end_orphan(id.as_str(), pod, may_have_shim).await?;
        }
        if cgroup::is_unified() {
            self.count_kills(&found).await?;
        }
        let volumes = Volumes::noted(&found)?;
        let until = clock::instant() + TAKES_BACK;
        let start = async {
            loop {
                match self.client.api().start_container(id.as_str(), None::<StartContainerOptions>).await {
                    Err(error) if orphan::is_taken_back(said(&error), id.as_str()) && clock::instant() < until => {
                        tokio::time::sleep(AGAIN).await;
                    }
                    started => return started.map_err(|error| failed(tried(), &error)),
                }
            }
        };
        self.with_volumes(&volumes, start).await?;
        if cgroup::is_unified() {
            self.die_together(&found).await?;
        }
        Ok(())
    }

    /// Notes the kills that the pod's cgroup has counted before a start: they are not the container's.
    async fn count_kills(&self, found: &ContainerInspectResponse) -> Result<()> {
        let (Some(pod), Some(id)) = (pod_cgroup(found), &found.id) else { return Ok(()) };
        let (kills, pod, id) = (self.kills.clone(), pod.clone(), id.clone());
        let note = move || {
            kills.note(&id, &pod, kills::count(&pod).unwrap_or(0));
            Ok(())
        };
        blocking(note).await
    }

    /// Lets the kernel kill all of a container together: Docker has no setting for it, and its OCI runtime's default is
    /// that one process is killed.
    async fn die_together(&self, found: &ContainerInspectResponse) -> Result<()> {
        let (Some(path), Some(id)) = (self.container_cgroup(found).await?, &found.id) else { return Ok(()) };
        let written = blocking(move || Cgroup::at(&path).die_together()).await;
        if let Err(error) = written {
            tracing::warn!(container = %id, %error, "out of memory, the kernel may kill one of its processes only");
        }
        Ok(())
    }

    /// Returns the cgroup of a container, from the root of the hierarchy.
    pub(crate) async fn container_cgroup(&self, found: &ContainerInspectResponse) -> Result<Option<String>> {
        let (Some(pod), Some(id)) = (pod_cgroup(found), &found.id) else { return Ok(None) };
        Ok(Some(orphan::cgroup(self.ready().await?.driver, pod, id)))
    }

    /// Stops a container. If cancelled while it waits, it has sent only its stop signal.
    pub(crate) async fn halt_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let Some(found) = self.client.find(id.as_str()).await? else { return Ok(()) };
        if !runs(&found) {
            return self.halt_orphan(id).await;
        }
        if !grace.is_zero() {
            // As a number: Docker does not know every name. The pod's events report an unknown one.
            let named = found.config.and_then(|config| config.stop_signal);
            let number = named.and_then(|name| signal::number(&name)).unwrap_or(SIGTERM);
            self.signal(id.as_str(), &number.to_string()).await?;
            if let Ok(ended) = tokio::time::timeout(grace, self.wait(id.as_str(), "not-running")).await {
                return ended;
            }
        }
        self.end_process(id.as_str()).await
    }

    /// Ends the processes of a container that Docker says does not run, after a start that may be under way.
    async fn halt_orphan(&self, id: &ContainerId) -> Result<()> {
        let _turn = self.changes.turn(id.as_str()).await;
        match self.client.find(id.as_str()).await? {
            Some(found) if runs(&found) => self.end_process(id.as_str()).await,
            Some(found) => match pod_cgroup(&found) {
                Some(pod) => self.end_orphan(id.as_str(), pod, self.may_have_shim(id.as_str(), &found)).await,
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Kills a process, if there is one, and waits for its end.
    pub(crate) async fn end_process(&self, id: &str) -> Result<()> {
        self.signal(id, "SIGKILL").await?;
        self.wait(id, "not-running").await
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.client.api().kill_container(id, Some(options)).await {
            Err(error) if !is_over(&error) => Err(failed(format!("sending {signal} to container {id}"), &error)),
            _ => Ok(()),
        }
    }

    /// Waits for a condition of Docker's. Returns at once if it is true already, or if the container is gone.
    async fn wait(&self, id: &str, condition: &str) -> Result<()> {
        let options = WaitContainerOptions { condition: condition.to_owned() };
        let mut ends = Box::pin(self.client.api().wait_container(id, Some(options)));
        match ends.next().await {
            // The library reports every exit code but 0 as an error.
            Some(Ok(_) | Err(ApiError::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) if is_gone(&error) => Ok(()),
            Some(Err(error)) => Err(failed(format!("waiting for container {id}"), &error)),
            None => Err(Error::new(ErrorKind::Unavailable, format!("waiting for container {id}: Docker went away"))),
        }
    }

    pub(crate) async fn erase_container(&self, id: &ContainerId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move {
            match backend.client.find(id.as_str()).await? {
                Some(found) => {
                    backend.erase(id.as_str()).await?;
                    if let Some(pod) = pod_cgroup(&found) {
                        let may_have_shim = backend.may_have_shim(id.as_str(), &found);
                        backend.end_orphan(id.as_str(), pod, may_have_shim).await?;
                    }
                    backend.release(&Volumes::noted(&found)?).await
                }
                None => Ok(()),
            }
        })
        .await
    }

    /// Removes a container, running or not, with the volumes that Docker made for its image's `VOLUME`s.
    pub(crate) async fn erase(&self, id: &str) -> Result<()> {
        for tried in 1.. {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            match self.client.api().remove_container(id, Some(options)).await {
                Ok(()) => break,
                Err(error) if is_gone(&error) => break,
                // Somebody else removes it. Docker reports when that is done, but not when it has failed.
                Err(error) if said(&error).contains("already in progress") && tried < TRIES => {
                    if let Ok(waited) = tokio::time::timeout(PAUSE, self.wait(id, "removed")).await {
                        waited?;
                    }
                }
                Err(error) => return Err(failed(format!("removing container {id}"), &error)),
            }
        }
        Ok(())
    }
}

fn runs(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().is_some_and(|state| state.running == Some(true))
}

/// Returns the path of the cgroup of a container's pod.
pub(crate) fn pod_cgroup(found: &ContainerInspectResponse) -> Option<&String> {
    found.config.as_ref()?.labels.as_ref()?.get(names::CGROUP)
}

/// Returns whether a container cannot be signalled because it has ended, or is gone.
fn is_over(error: &ApiError) -> bool {
    let over = ["is not running", "process already finished", "no such process"];
    is_gone(error) || matches!(status(error), 409 | 500) && over.iter().any(|text| said(error).contains(text))
}
