//! Processes run in a container beside its own.
//!
//! # Layout
//! - This: a process from its making to its end. [`pipes`]: what it reads and writes on the way.

mod pipes;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use stanchion_sdk::runtime::{Error, ErrorKind, ExecId, ExecRequest, ExecStdio, ExitStatus, Result, TerminalSize};
use tokio::sync::watch;

use crate::{
    Containerd,
    client::{failed, is_gone},
    inventory::RUNNING,
    names::is_identifier,
    spec,
};
use pipes::Pipes;

/// Type of an OCI process.
const PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;

/// Processes that run, by id, with their containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Execs(Arc<Mutex<HashMap<ExecId, String>>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Containerd {
    pub(crate) async fn run_beside(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let ExecRequest { id, container, command, tty, size } = request;
        let program = command.first().cloned().unwrap_or_default();
        let tried = || format!("running {program:?} in container {container}");
        // Names a directory, and a process in containerd.
        if !is_identifier(id.as_str()) {
            let message = format!("{}: {id:?} cannot be the id of an exec", tried());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let process = self.process_beside(container.as_str(), command, tty).await?;
        let directory = self.run_dir.join("exec").join(id.as_str());
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
        let mut tasks = self.client.tasks();
        // From here on, however this ends, nothing of the process stays.
        let mut running =
            Running { backend: self.clone(), id: id.clone(), container: container.0.clone(), over: false };
        let made = tasks.exec(self.client.request(exec)).await;
        if let Err(status) = made {
            // What is there under this id is another's.
            running.over = status.code() == Code::AlreadyExists;
            return Err(match self.task(container.as_str()).await {
                Ok(Some(task)) if task.status == RUNNING => failed(tried(), &status),
                Err(_) => failed(tried(), &status),
                Ok(_) => Error::new(ErrorKind::Conflict, format!("{}: it does not run", tried())),
            });
        }
        let start = StartRequest { container_id: container.0.clone(), exec_id: id.0.clone() };
        let started = tasks.start(self.client.request(start)).await;
        started.map_err(|status| failed(tried(), &status))?;
        self.execs.lock().insert(id.clone(), container.0.clone());
        if let Some(size) = size
            && let Err(error) = self.resize_beside(&id, size).await
        {
            // It may have ended already.
            tracing::debug!(exec = %id, error = error.chain(), "a terminal keeps its first size");
        }
        let (ended, over) = watch::channel(false);
        let wait = WaitRequest { container_id: container.0.clone(), exec_id: id.0.clone() };
        let waited = async {
            let waited = tasks.wait(self.client.request(wait)).await;
            ended.send_replace(true);
            waited
        };
        let status = pipes.drive(waited, over, || running.close_input()).await;
        let status = status.map_err(|status| failed(tried(), &status))?.into_inner().exit_status;
        running.end().await;
        Ok(ExitStatus { code: i32::try_from(status).unwrap_or(255) })
    }

    /// The container's own process, with another command.
    async fn process_beside(&self, container: &str, command: Vec<String>, tty: bool) -> Result<Any> {
        let record = self
            .record(container)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("container {container} does not exist")))?;
        let broken = |error: &(dyn std::error::Error + 'static)| {
            Error::new(ErrorKind::Other, format!("reading the OCI configuration of container {container}"))
                .caused_by(error)
        };
        let value = record.spec.unwrap_or_default().value;
        let spec: Spec = serde_json::from_slice(&value).map_err(|error| broken(&error))?;
        let base = spec.process().as_ref().ok_or_else(|| broken(&std::io::Error::other("it has no process")))?;
        let process = spec::exec(base, command, tty).map_err(|error| broken(&error))?;
        let value = serde_json::to_vec(&process).map_err(|error| broken(&error))?;
        Ok(Any { type_url: PROCESS_URL.to_owned(), value })
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

/// A process in containerd: killed and forgotten when nobody waits for it any more.
struct Running {
    backend: Containerd,
    id: ExecId,
    container: String,
    over: bool,
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

    /// Forgets a process that has ended.
    async fn end(mut self) {
        self.over = true;
        forget(&self.backend, &self.id, &self.container, false).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.backend.execs.lock().remove(&self.id);
        if self.over {
            return;
        }
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            let (backend, id, container) = (self.backend.clone(), self.id.clone(), std::mem::take(&mut self.container));
            #[allow(clippy::disallowed_methods, reason = "two calls that nobody waits for")]
            tokio.spawn(async move { forget(&backend, &id, &container, true).await });
        }
    }
}

async fn forget(backend: &Containerd, id: &ExecId, container: &str, kill: bool) {
    let (container_id, exec_id) = (container.to_owned(), id.0.clone());
    let (client, mut tasks) = (&backend.client, backend.client.tasks());
    if kill {
        let request =
            KillRequest { container_id: container_id.clone(), exec_id: exec_id.clone(), signal: SIGKILL, all: false };
        if tasks.kill(client.request(request)).await.is_ok() {
            let request = WaitRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
            if let Err(status) = tasks.wait(client.request(request)).await {
                tracing::debug!(exec = %id, error = status.message(), "waiting for a killed process failed");
            }
        }
    }
    match tasks.delete_process(client.request(DeleteProcessRequest { container_id, exec_id })).await {
        Err(status) if !is_gone(&status) => {
            tracing::debug!(exec = %id, error = status.message(), "a process is left to go with its container");
        }
        _ => {}
    }
}
