//! Processes run in a container beside its own.

use std::{
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use oci_spec::runtime::Spec;
use prost_types::Any;
use stanchion_sdk::runtime::{Error, ErrorKind, ExecId, ExecRequest, ExecStdio, ExitStatus, Result, TerminalSize};

use crate::{Containerd, client::failed, spec};

/// Type of an OCI process.
const PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;

impl Containerd {
    pub(crate) async fn run_beside(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let process =
            Process { backend: self.clone(), container: request.container.0.clone(), id: request.id.0.clone() };
        let directory = self.exec_dir().join(&process.id);
        let noted = format!("{}\n", process.container);
        let made =
            std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(directory.join("container"), noted));
        made.map_err(|error| io_failed(&request, &error))?;
        let _files = Files(directory.clone());
        let record = self.record(&process.container).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("container {} does not exist", process.container))
        })?;
        let spec: Spec = serde_json::from_slice(&record.spec.unwrap_or_default().value)
            .map_err(|error| Error::new(ErrorKind::Other, "reading the container's configuration").caused_by(&error))?;
        let base =
            spec.process().as_ref().ok_or_else(|| Error::new(ErrorKind::Other, "the container has no process"))?;
        let beside = spec::exec(base, request.command.clone(), request.tty)
            .and_then(|process| serde_json::to_vec(&process).map_err(Into::into))
            .map_err(|error| Error::new(ErrorKind::Other, "configuring the process").caused_by(&error))?;

        let pipes = Pipes::make(&directory, stdio, request.tty).map_err(|error| io_failed(&request, &error))?;
        let exec = ExecProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.id.clone(),
            terminal: request.tty,
            stdin: pipes.path("stdin"),
            stdout: pipes.path("stdout"),
            stderr: pipes.path("stderr"),
            spec: Some(Any { type_url: PROCESS_URL.to_owned(), value: beside }),
        };
        let mut tasks = self.client.tasks();
        let tried = || {
            format!(
                "running {:?} in container {}",
                request.command.first().cloned().unwrap_or_default(),
                process.container
            )
        };
        tasks.exec(self.client.request(exec)).await.map_err(|status| failed(tried(), &status))?;
        let mut running = Running { process: Some(process.clone()) };
        let start = StartRequest { container_id: process.container.clone(), exec_id: process.id.clone() };
        let started = tasks.start(self.client.request(start)).await;
        if let Err(status) = started {
            process.delete().await;
            running.process = None;
            return Err(failed(tried(), &status));
        }
        if let Some(size) = request.size {
            self.resize_beside(&request.id, size).await?;
        }
        // A task of its own: a process that fills a pipe before it ends must not wait for us.
        #[allow(clippy::disallowed_methods, reason = "ends with the process's output")]
        let outputs = tokio::spawn(pipes.copy(process.clone()));
        let wait = WaitRequest { container_id: process.container.clone(), exec_id: process.id.clone() };
        let ended =
            tasks.wait(self.client.request(wait)).await.map_err(|status| failed(tried(), &status))?.into_inner();
        // What the process wrote before it ended is all in the pipes; a child that holds them open does not hold us.
        if tokio::time::timeout(std::time::Duration::from_secs(2), outputs).await.is_err() {
            tracing::debug!(exec = process.id, "something keeps the output of a process that has ended open");
        }
        process.delete().await;
        running.process = None;
        Ok(ExitStatus { code: i32::try_from(ended.exit_status).unwrap_or(255) })
    }

    pub(crate) async fn resize_beside(&self, id: &ExecId, size: TerminalSize) -> Result<()> {
        let noted = std::fs::read_to_string(self.exec_dir().join(&id.0).join("container"));
        let container = noted
            .map_err(|error| Error::new(ErrorKind::NotFound, format!("exec {id} does not run")).caused_by(&error))?;
        let request = ResizePtyRequest {
            container_id: container.trim().to_owned(),
            exec_id: id.0.clone(),
            width: size.width.into(),
            height: size.height.into(),
        };
        let resized = self.client.tasks().resize_pty(self.client.request(request)).await;
        resized.map(drop).map_err(|status| failed(format!("resizing the terminal of exec {id}"), &status))
    }

    fn exec_dir(&self) -> PathBuf {
        self.run_dir.join("exec")
    }
}

fn io_failed(request: &ExecRequest, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(ErrorKind::Other, format!("making the pipes for a process in {}", request.container)).caused_by(error)
}

/// A process in containerd.
#[derive(Clone)]
struct Process {
    backend: Containerd,
    container: String,
    id: String,
}

impl Process {
    async fn delete(&self) {
        let client = &self.backend.client;
        let request = DeleteProcessRequest { container_id: self.container.clone(), exec_id: self.id.clone() };
        if let Err(status) = client.tasks().delete_process(client.request(request)).await {
            tracing::debug!(
                exec = self.id,
                error = status.message(),
                "the record of a process is left to its container"
            );
        }
    }

    async fn kill(&self) {
        let client = &self.backend.client;
        let (container_id, exec_id) = (self.container.clone(), self.id.clone());
        let request = KillRequest { container_id, exec_id, signal: SIGKILL, all: false };
        if let Err(status) = client.tasks().kill(client.request(request)).await {
            tracing::debug!(exec = self.id, error = status.message(), "a process that was given up had ended");
        }
    }

    async fn close_input(&self) {
        let client = &self.backend.client;
        let (container_id, exec_id) = (self.container.clone(), self.id.clone());
        let request = CloseIoRequest { container_id, exec_id, stdin: true };
        if let Err(status) = client.tasks().close_io(client.request(request)).await {
            tracing::debug!(exec = self.id, error = status.message(), "closing the input of a process failed");
        }
    }
}

/// Kills the process when nobody waits for it any more.
struct Running {
    process: Option<Process>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(process), Ok(tokio)) = (self.process.take(), tokio::runtime::Handle::try_current()) {
            #[allow(clippy::disallowed_methods, reason = "two calls that nobody waits for")]
            tokio.spawn(async move {
                process.kill().await;
                process.delete().await;
            });
        }
    }
}

/// Removed in the end.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the pipes of a process are left over");
        }
    }
}

/// FIFOs between the shim and our ends.
struct Pipes {
    directory: PathBuf,
    input: Option<(File, OwnedFd)>,
    outputs: Vec<(File, OwnedFd, &'static str)>,
}

impl Pipes {
    fn make(directory: &Path, stdio: ExecStdio, tty: bool) -> std::io::Result<Self> {
        let fifo = |name: &str| {
            let path = directory.join(name);
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            // Open both ways: opening waits for nobody, and the shim finds its other end.
            OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_CLOEXEC).open(path)
        };
        let input = stdio.stdin.map(|stdin| Ok::<_, std::io::Error>((fifo("stdin")?, stdin))).transpose()?;
        let mut outputs = Vec::new();
        if let Some(stdout) = stdio.stdout {
            outputs.push((fifo("stdout")?, stdout, "stdout"));
        }
        if let Some(stderr) = stdio.stderr.filter(|_| !tty) {
            outputs.push((fifo("stderr")?, stderr, "stderr"));
        }
        Ok(Self { directory: directory.to_owned(), input, outputs })
    }

    /// Path of a FIFO, empty where there is none.
    fn path(&self, name: &str) -> String {
        let path = self.directory.join(name);
        if path.exists() { path.to_string_lossy().into_owned() } else { String::new() }
    }

    /// Copies between the ends; done when the outputs have ended.
    async fn copy(self, process: Process) {
        let directory = self.directory;
        if let Some((fifo, stdin)) = self.input {
            let close = process.clone();
            #[allow(clippy::disallowed_methods, reason = "ends with the input, or with the process")]
            tokio::spawn(async move {
                let copied = tokio::task::spawn_blocking(move || std::io::copy(&mut File::from(stdin), &mut &fifo));
                if copied.await.is_ok() {
                    close.close_input().await;
                }
            });
        }
        let copies = self.outputs.into_iter().map(|(ours, sink, name)| {
            let reader = File::open(directory.join(name));
            // From here on the shim alone can write: its end is our end.
            drop(ours);
            tokio::task::spawn_blocking(move || std::io::copy(&mut reader?, &mut File::from(sink)))
        });
        for copied in futures_util::future::join_all(copies).await {
            if let Ok(Err(error)) = copied {
                tracing::debug!(%error, "nobody reads the output of a process any more");
            }
        }
    }
}
