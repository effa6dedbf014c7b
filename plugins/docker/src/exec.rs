//! Exec: additional processes in a container.
//!
//! The connection is taken over here and not by the client library, which reads a terminal's output line by line, and
//! takes some of it for headers.
//!
//! # Layout
//! - This module: a process from start to end. [`pipes`]: its input and output.

mod pipes;

use std::{
    collections::{HashMap, hash_map::Entry},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{
    errors::Error as ApiError,
    exec::{CreateExecOptions, ResizeExecOptions},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use stanchion_sdk::{
    blocking,
    cgroup::Cgroup,
    descendants::Mark,
    runtime::{Descendants, Error, ErrorKind, ExecId, ExecRequest, ExecStdio, ExitStatus, Result, TerminalSize},
};
use tokio::net::unix::pipe;

use crate::{
    Docker,
    client::{Client, failed, is_gone},
    names::is_identifier,
};

use pipes::{Kept, Pipes};
use stanchion_untrusted::read_kernel;

/// Shortest and longest interval of asking Docker whether a process without outputs has ended: Docker has no call that
/// waits for that.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(200);
/// Number of times that Docker is asked for the id of a process that it starts: for about 10 s.
const LOOKS: u32 = 50;
/// Time to read on after the end of a probe or a hook: by then Docker has all of the process's own output.
const DRAIN: Duration = Duration::from_millis(250);

/// Running exec processes: our ids and, once Docker has made the process, Docker's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Execs(Arc<Mutex<HashMap<ExecId, Option<String>>>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an id for one process; `None` if another one has it.
    fn claim(&self, id: &ExecId) -> Option<Claim> {
        match self.lock().entry(id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(None);
                Some(Claim { execs: self.clone(), id: id.clone() })
            }
        }
    }
}

/// Id of one process; dropping it frees the id.
struct Claim {
    execs: Execs,
    id: ExecId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.execs.lock().remove(&self.id);
    }
}

impl Docker {
    pub(crate) async fn run_beside(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let ExecRequest { id, container, command, tty, size, descendants } = request;
        let program = command.first().cloned().unwrap_or_default();
        let tried = || format!("running {program:?} in container {container}");
        let Some(claim) = self.execs.claim(&id).filter(|_| is_identifier(id.as_str())) else {
            let message = format!("{}: {id:?} cannot be the id of an exec, or runs already", tried());
            return Err(Error::new(ErrorKind::Invalid, message));
        };
        let found = self.client.find(container.as_str()).await?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{}: it does not exist", tried())))?;
        if found.state.as_ref().is_none_or(|state| state.running != Some(true)) {
            return Err(Error::new(ErrorKind::Conflict, format!("{}: it does not run", tried())));
        }
        let tree = match Mark::new(descendants) {
            Some(mark) => self.container_cgroup(&found).await?.map(|path| (mark, Cgroup::at(&path))),
            None => None,
        };
        let options = CreateExecOptions {
            attach_stdin: Some(stdio.stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(!tty),
            tty: Some(tty),
            cmd: Some(command),
            env: tree.as_ref().map(|(mark, _)| vec![mark.variable()]),
            ..CreateExecOptions::default()
        };
        let pipes = Pipes::new(stdio, tty)
            .map_err(|error| Error::new(ErrorKind::Invalid, format!("{}: its pipes", tried())).caused_by(&error))?;
        let made = self.client.api().create_exec(container.as_str(), options).await;
        let exec = made.map_err(|error| failed(tried(), &error))?.id;
        // From here on, the process may not stay, however this ends.
        let mut running = Running {
            client: self.client.clone(),
            claim,
            exec: exec.clone(),
            container: container.0.clone(),
            tree,
            over: false,
        };
        let path = format!("/exec/{exec}/start");
        let connection = self.client.hijack(&path, &json!({ "Detach": false, "Tty": tty })).await;
        let connection = connection.map_err(|error| failed(tried(), &error))?;
        self.execs.lock().insert(id.clone(), Some(exec.clone()));
        if let Some(size) = size
            && let Err(error) = self.resize_beside(&id, size).await
        {
            // The process may have ended already.
            tracing::debug!(exec = %id, error = error.chain(), "a terminal keeps its first size");
        }
        let kept = match &running.tree {
            None => pipes.drive(connection).await,
            Some(tree) => {
                let ended = async {
                    running.leader_ends(tree).await;
                    if descendants == Descendants::End {
                        running.end_tree(tree).await;
                    }
                    tokio::time::sleep(DRAIN).await;
                };
                // Cancel-safe: later output is not the process's own.
                tokio::select! {
                    kept = pipes.drive(connection) => {
                        if descendants == Descendants::End {
                            running.end_tree(tree).await;
                        }
                        kept
                    }
                    () = ended => Kept::nothing(),
                }
            }
        };
        let (code, was_started) = self.end_of(&exec).await.map_err(|error| match is_gone(&error) {
            true => Error::new(ErrorKind::Conflict, format!("{}: the container ended under it", tried())),
            false => failed(tried(), &error),
        })?;
        running.over = true;
        match kept.text().filter(|_| !was_started) {
            Some(text) => Err(Error::new(ErrorKind::Invalid, tried()).because(text)),
            None => {
                kept.release().await;
                Ok(ExitStatus { code: i32::try_from(code).unwrap_or(255) })
            }
        }
    }

    /// Returns the exit code of a process, once it has ended, and whether it ever ran.
    async fn end_of(&self, exec: &str) -> std::result::Result<(i64, bool), ApiError> {
        let mut pause = FIRST_LOOK;
        loop {
            let found = self.client.api().inspect_exec(exec).await?;
            match found.exit_code {
                Some(code) if found.running != Some(true) => return Ok((code, found.pid.is_some_and(|pid| pid > 0))),
                // The process has closed its outputs and runs on.
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    pub(crate) async fn resize_beside(&self, id: &ExecId, size: TerminalSize) -> Result<()> {
        let exec = self.execs.lock().get(id).cloned().flatten();
        let exec = exec.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("exec {id} does not run")))?;
        let options = ResizeExecOptions { height: size.height, width: size.width };
        let resized = self.client.api().resize_exec(&exec, options).await;
        resized.map_err(|error| failed(format!("resizing the terminal of exec {id}"), &error))
    }
}

/// A process in Docker; dropping it kills the process, unless it is over.
struct Running {
    client: Client,
    claim: Claim,
    exec: String,
    container: String,
    /// Mark and cgroup of the processes that it has started; `None` for an administrator's exec.
    tree: Option<(Mark, Cgroup)>,
    over: bool,
}

impl Running {
    /// Marks the process and what it has started so far, and waits for its end: Docker reports that only when its
    /// outputs have ended too.
    async fn leader_ends(&self, (mark, cgroup): &(Mark, Cgroup)) {
        let Some(pid) = leader(&self.client, &self.exec).await else { return };
        let Some(process) = hold(pid, &self.container) else { return };
        let (mark, cgroup) = (*mark, cgroup.clone());
        blocking(move || mark.put(&cgroup, pid)).await;
        // A pidfd is readable when its process has ended (pidfd_open(2)); a receiver of a pipe can wait for that.
        let ended = match pipe::Receiver::from_owned_fd_unchecked(process) {
            Ok(process) => process.readable().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            // Then the end of its outputs has to do.
            tracing::debug!(exec = %self.claim.id, %error, "the end of a process cannot be awaited");
            std::future::pending::<()>().await;
        }
    }

    async fn end_tree(&self, tree: &(Mark, Cgroup)) {
        end_tree(&self.client, &self.exec, &self.container, tree).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            let (client, id, tree) = (self.client.clone(), self.claim.id.clone(), self.tree.take());
            let (exec, container) = (std::mem::take(&mut self.exec), std::mem::take(&mut self.container));
            #[allow(clippy::disallowed_methods, reason = "calls that nobody waits for")]
            tokio.spawn(async move {
                if let Some(tree) = tree {
                    // Docker completes the start, even if the caller has gone.
                    leader(&client, &exec).await;
                    end_tree(&client, &exec, &container, &tree).await;
                }
                if let Err(error) = kill(&client, &exec, &container).await {
                    tracing::debug!(exec = %id, %error, "a process is left to go with its container");
                }
            });
        }
    }
}

/// Returns the id of an exec's process on the node, once there is one; `None` if it has ended, or never began.
async fn leader(client: &Client, exec: &str) -> Option<u32> {
    let mut pause = FIRST_LOOK;
    for _ in 0..LOOKS {
        let found = client.api().inspect_exec(exec).await.ok()?;
        match found.pid.filter(|pid| *pid > 1) {
            _ if found.exit_code.is_some() && found.running != Some(true) => return None,
            Some(pid) => return u32::try_from(pid).ok(),
            None => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LAST_LOOK);
    }
    None
}

/// Ends all that an exec has started.
async fn end_tree(client: &Client, exec: &str, container: &str, (mark, cgroup): &(Mark, Cgroup)) {
    let found = client.api().inspect_exec(exec).await.ok();
    let leader = found.and_then(|found| u32::try_from(found.pid?).ok()).filter(|pid| *pid > 1);
    if let Err(error) = mark.end(cgroup, leader).await {
        tracing::warn!(container, %error, "processes of a probe or a hook are left to go with the container");
    }
}

/// Returns a pidfd of a process, if it is one of the container's.
fn hold(pid: u32, container: &str) -> Option<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    let process = pidfd_open(number, PidfdFlags::empty()).ok()?;
    // Opened before the check: the pidfd stays with this process, even if its id is reused.
    let cgroups = read_kernel(format!("/proc/{pid}/cgroup")).ok()?;
    cgroups.contains(container).then_some(process)
}

/// Kills an exec's process: Docker cannot signal it, but knows its id on the node.
async fn kill(client: &Client, exec: &str, container: &str) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let found = client.api().inspect_exec(exec).await?;
    let pid = found.pid.filter(|pid| found.running == Some(true) && *pid > 1).and_then(|pid| u32::try_from(pid).ok());
    if let Some(process) = pid.and_then(|pid| hold(pid, container)) {
        pidfd_send_signal(&process, Signal::KILL)?;
    }
    Ok(())
}
