//! Exec: additional processes in a container.
//!
//! # Layout
//! - This module: a process from start to end. [`pipes`]: its input and output.

mod pipes;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use containerd_client::{
    services::v1::{
        CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest,
        WaitRequest,
    },
    tonic::Code,
};
use oci_spec::runtime::Spec;
use prost_types::Any;
use stanchion_sdk::{
    changes::finish,
    descendants::Mark,
    layers::children,
    runtime::{Descendants, Error, ErrorKind, ExecId, ExecRequest, ExecStdio, ExitStatus, Result, TerminalSize},
};
use stanchion_untrusted::tree;
use tokio::sync::watch;

use crate::{
    Containerd,
    cgroup::Cgroup,
    client::{failed, is_gone},
    inventory::RUNNING,
    names::{self, is_identifier},
    spec,
};
use pipes::Pipes;

/// Type URL of an OCI process.
const PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;
/// Time to read on after the end of a probe or a hook: by then the shim has all of the process's own output.
const DRAIN: Duration = Duration::from_millis(250);

/// Running exec processes: their containers, by exec id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Execs(Arc<Mutex<HashMap<ExecId, String>>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the pipes of agents that have ended. This agent's pipes stay: several of its backends share the directory.
pub(crate) fn sweep(run_dir: &Path) -> io::Result<()> {
    let (home, own) = (home(run_dir), process::id().to_string());
    let old = children(&home)?.into_iter().filter(|agent| *agent != own);
    old.map(|agent| home.join(agent)).try_for_each(tree::remove)
}

/// Returns the directory of all pipes: it has a directory per agent, named by process id, with one per exec.
fn home(run_dir: &Path) -> PathBuf {
    run_dir.join("exec")
}

impl Containerd {
    pub(crate) async fn run_beside(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let ExecRequest { id, container, command, tty, size, descendants } = request;
        let program = command.first().cloned().unwrap_or_default();
        let tried = || format!("running {program:?} in container {container}");
        // The id names a directory, and a process in containerd.
        if !is_identifier(id.as_str()) {
            let message = format!("{}: {id:?} cannot be the id of an exec", tried());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let mark = Mark::new(descendants);
        let (process, cgroup) = self.process_beside(container.as_str(), command, tty, mark).await?;
        let directory = home(&self.run_dir).join(process::id().to_string()).join(id.as_str());
        let pipes = Pipes::make(&directory, stdio, tty).map_err(|error| {
            Error::new(ErrorKind::Other, format!("{}: making its pipes", tried())).caused_by(&error)
        })?;
        let exec = ExecProcessRequest {
            container_id: container.0.clone(),
            exec_id: id.0.clone(),
            terminal: tty,
            stdin: pipes.stdin_path(),
            stdout: pipes.stdout_path(),
            stderr: pipes.stderr_path(),
            spec: Some(process),
        };
        // From here on, nothing of the process may stay, however this ends.
        let mut running = Running {
            backend: self.clone(),
            id: id.clone(),
            container: container.0.clone(),
            tree: mark.map(|mark| (mark, cgroup)),
            end: End::Kill,
        };
        // Completes even if the caller gives up: otherwise nobody would end a process that starts later.
        let turn = self.changes.turn(&turn_of(&id)).await;
        let (backend, started) =
            (self.clone(), StartRequest { container_id: container.0.clone(), exec_id: id.0.clone() });
        let (what, of) = (tried(), container.clone());
        let start = async move {
            let mut tasks = backend.client.tasks();
            if let Err(status) = tasks.exec(backend.client.request(exec)).await {
                let is_another = status.code() == Code::AlreadyExists;
                let error = match backend.task(of.as_str()).await {
                    Ok(Some(task)) if task.status == RUNNING => failed(what, &status),
                    Err(_) => failed(what, &status),
                    Ok(_) => Error::new(ErrorKind::Conflict, format!("{what}: it does not run")),
                };
                return Ok(Err((is_another, error)));
            }
            let started = tasks.start(backend.client.request(started)).await;
            Ok(started.map(drop).map_err(|status| (false, failed(what, &status))))
        };
        if let Err((is_another, error)) = finish(turn, start).await? {
            if is_another {
                // Another call owns the process with this id.
                running.end = End::Nothing;
            }
            return Err(error);
        }
        self.execs.lock().insert(id.clone(), container.0.clone());
        if let Some(size) = size
            && let Err(error) = self.resize_beside(&id, size).await
        {
            // The process may have ended already.
            tracing::debug!(exec = %id, error = error.chain(), "a terminal keeps its first size");
        }
        let (ended, over) = watch::channel(false);
        let wait = WaitRequest { container_id: container.0.clone(), exec_id: id.0.clone() };
        let mut tasks = self.client.tasks();
        let waited = async {
            let waited = tasks.wait(self.client.request(wait)).await;
            if descendants == Descendants::End {
                running.end_tree().await;
            }
            ended.send_replace(true);
            waited
        };
        let drain = mark.map(|_| DRAIN);
        let status = pipes.drive(drain, waited, over, || running.close_input()).await;
        let status = status.map_err(|status| failed(tried(), &status))?.into_inner().exit_status;
        running.end = End::Forget;
        match descendants {
            // Deletes it in the background: its shim waits for the processes that hold its outputs.
            Descendants::EndIfGivenUp => drop(running),
            _ => running.forget().await,
        }
        Ok(ExitStatus { code: i32::try_from(status).unwrap_or(255) })
    }

    /// Returns the container's own process with another command, and the container's cgroup.
    async fn process_beside(
        &self,
        container: &str,
        command: Vec<String>,
        tty: bool,
        mark: Option<Mark>,
    ) -> Result<(Any, Cgroup)> {
        let record = self
            .record(container)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("container {container} does not exist")))?;
        let broken = |error: &(dyn std::error::Error + 'static)| {
            Error::new(ErrorKind::Other, format!("reading the OCI configuration of container {container}"))
                .caused_by(error)
        };
        let cgroup = Cgroup::at(record.labels.get(names::CGROUP).map(String::as_str).unwrap_or_default());
        let value = record.spec.unwrap_or_default().value;
        let spec: Spec = serde_json::from_slice(&value).map_err(|error| broken(&error))?;
        let base = spec.process().as_ref().ok_or_else(|| broken(&io::Error::other("it has no process")))?;
        let process = spec::exec(base, command, tty, mark).map_err(|error| broken(&error))?;
        let value = serde_json::to_vec(&process).map_err(|error| broken(&error))?;
        Ok((Any { type_url: PROCESS_URL.to_owned(), value }, cgroup))
    }

    pub(crate) async fn resize_beside(&self, id: &ExecId, size: TerminalSize) -> Result<()> {
        let container = self.execs.lock().get(id).cloned();
        let container = container.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("exec {id} does not run")))?;
        let (width, height) = (size.width.into(), size.height.into());
        let request = ResizePtyRequest { container_id: container, exec_id: id.0.clone(), width, height };
        let resized = self.client.tasks().resize_pty(self.client.request(request)).await;
        resized.map(drop).map_err(|status| failed(format!("resizing the terminal of exec {id}"), &status))
    }
}

/// Clean-up of a process when nobody waits for it any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// The process has ended: containerd has to forget it.
    Forget,
    Nothing,
}

/// A process in containerd; dropping it kills and deletes the process as `end` says.
struct Running {
    backend: Containerd,
    id: ExecId,
    container: String,
    /// Mark and cgroup of the processes that it has started; `None` for an administrator's exec.
    tree: Option<(Mark, Cgroup)>,
    end: End,
}

impl Running {
    async fn close_input(&self) {
        let (container_id, exec_id) = (self.container.clone(), self.id.0.clone());
        let client = &self.backend.client;
        let request = client.request(CloseIoRequest { container_id, exec_id, stdin: true });
        if let Err(status) = client.tasks().close_io(request).await {
            tracing::debug!(exec = %self.id, error = status.message(), "closing the input of a process failed");
        }
    }

    /// Ends all processes that it has started.
    async fn end_tree(&self) {
        end_tree(&self.id, &self.container, self.tree.as_ref()).await;
    }

    /// Deletes an ended process in containerd.
    async fn forget(mut self) {
        self.end = End::Nothing;
        forget(&self.backend, &self.id, &self.container, None).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.backend.execs.lock().remove(&self.id);
        if self.end == End::Nothing {
            return;
        }
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            let (backend, id, container) = (self.backend.clone(), self.id.clone(), std::mem::take(&mut self.container));
            let kill = (self.end == End::Kill).then(|| self.tree.take());
            #[allow(clippy::disallowed_methods, reason = "calls that nobody waits for")]
            tokio.spawn(async move { forget(&backend, &id, &container, kill).await });
        }
    }
}

/// Returns the lock name of a process, distinct from those of containers.
fn turn_of(id: &ExecId) -> String {
    format!("exec/{id}")
}

async fn end_tree(id: &ExecId, container: &str, tree: Option<&(Mark, Cgroup)>) {
    let Some((mark, cgroup)) = tree else { return };
    if let Err(error) = mark.end(cgroup, None).await {
        tracing::warn!(exec = %id, container, %error, "processes of a probe or a hook are left to go with the container");
    }
}

/// Deletes a process in containerd; with `kill`, kills it and its tree first.
async fn forget(backend: &Containerd, id: &ExecId, container: &str, kill: Option<Option<(Mark, Cgroup)>>) {
    let (container_id, exec_id) = (container.to_owned(), id.0.clone());
    let (client, mut tasks) = (&backend.client, backend.client.tasks());
    if let Some(tree) = kill {
        // Lets a start that is under way finish first.
        let _turn = backend.changes.turn(&turn_of(id)).await;
        end_tree(id, container, tree.as_ref()).await;
        let request =
            KillRequest { container_id: container_id.clone(), exec_id: exec_id.clone(), signal: SIGKILL, all: false };
        if tasks.kill(client.request(request)).await.is_ok() {
            let request = WaitRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
            if let Err(status) = tasks.wait(client.request(request)).await {
                tracing::debug!(exec = %id, error = status.message(), "waiting for a killed process failed");
            }
            // Ends the processes that it started between the first search and the kill.
            end_tree(id, container, tree.as_ref()).await;
        }
    }
    match tasks.delete_process(client.request(DeleteProcessRequest { container_id, exec_id })).await {
        Err(status) if !is_gone(&status) => {
            tracing::debug!(exec = %id, error = status.message(), "a process is left to go with its container");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_backend_that_opens_leaves_the_pipes_of_its_agents_other_backends() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipes = |agent: u32| home(directory.path()).join(agent.to_string()).join("exec-1");
        let (own, old) = (pipes(process::id()), pipes(process::id() + 1));
        for pipes in [&own, &old] {
            fs::create_dir_all(pipes).expect("made");
        }
        sweep(directory.path()).expect("swept");
        assert!(own.exists() && !old.exists(), "{} {}", own.exists(), old.exists());
        sweep(&directory.path().join("none")).expect("nothing to sweep");
    }
}
