//! FIFOs between a process's shim and the caller's descriptors.
//!
//! They are opened here before containerd learns of them, so that the shim's open returns at once. Nothing blocks a
//! thread: a process may run for days.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::{Either, join_all, select};
use nix::{sys::stat::Mode, unistd::mkfifo};
use stanchion_sdk::clock;
use stanchion_untrusted::tree;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{OpenOptions, Receiver, Sender},
    sync::watch,
};

/// Longest pause in the output of an ended process: a child of it may hold the output open for ever.
const QUIET: Duration = Duration::from_secs(2);
/// Size of one read, bytes.
const CHUNK: usize = 32 << 10;

/// FIFOs of one process, in a directory that is removed with them.
pub(super) struct Pipes {
    directory: Directory,
    input: Option<(Sender, Receiver)>,
    stdout: Output,
    stderr: Option<Output>,
}

/// Output of the process, and its receiver.
struct Output {
    from: Receiver,
    to: Option<Sender>,
}

impl Pipes {
    /// Makes the FIFOs. Must be called within a tokio runtime.
    pub fn make(directory: &Path, stdio: stanchion_sdk::runtime::ExecStdio, tty: bool) -> io::Result<Self> {
        private(true).create(directory.parent().unwrap_or(directory))?;
        // Fails if a process runs under the same id.
        private(false).create(directory)?;
        let directory = Directory(directory.to_owned());
        let input = stdio.stdin.map(|stdin| Ok::<_, io::Error>((directory.input()?, Receiver::from_owned_fd(stdin)?)));
        let input = input.transpose()?;
        // The shim opens both outputs, wanted or not; a terminal has one.
        let stdout = directory.output("stdout", stdio.stdout)?;
        let stderr = if tty { None } else { Some(directory.output("stderr", stdio.stderr)?) };
        Ok(Self { directory, input, stdout, stderr })
    }

    pub fn stdin_path(&self) -> String {
        self.directory.path("stdin", self.input.is_some())
    }

    pub fn stdout_path(&self) -> String {
        self.directory.path("stdout", true)
    }

    pub fn stderr_path(&self) -> String {
        self.directory.path("stderr", self.stderr.is_some())
    }

    /// Copies while the process runs and until its outputs have ended, or for `drain` after its end. Returns the result
    /// of `waited`; `over` tells when that is there.
    pub async fn drive<T, F: Future<Output = ()>>(
        self,
        drain: Option<Duration>,
        waited: impl Future<Output = T>,
        over: watch::Receiver<bool>,
        close_input: impl FnOnce() -> F,
    ) -> T {
        let Self { directory, input, stdout, stderr } = self;
        let outputs =
            join_all([Some(stdout), stderr].into_iter().flatten().map(|output| output.copy(over.clone(), drain)));
        let input = async {
            if let Some((mut to, mut from)) = input {
                // The process may close its input whenever it likes.
                tokio::io::copy(&mut from, &mut to).await.ok();
                drop(to);
                close_input().await;
            }
            std::future::pending::<()>().await;
        };
        let ended = std::pin::pin!(futures_util::future::join(waited, outputs));
        let result = match select(ended, std::pin::pin!(input)).await {
            Either::Left(((result, _), _)) => result,
            Either::Right(((), _)) => unreachable!("the input never ends"),
        };
        drop(directory);
        result
    }
}

impl Output {
    async fn copy(mut self, mut over: watch::Receiver<bool>, drain: Option<Duration>) {
        let mut chunk = vec![0; CHUNK];
        let mut is_over = false;
        let mut last = None;
        loop {
            let read = self.from.read(&mut chunk);
            let read = if is_over {
                let until = last.unwrap_or_else(|| clock::instant() + QUIET);
                match tokio::time::timeout_at(until, read).await {
                    Ok(read) => read,
                    Err(_) => return tracing::debug!("something holds the output of a process that has ended open"),
                }
            } else {
                // Cancel-safe: what is read is given in the same poll, and `over` keeps its value.
                tokio::select! {
                    biased;
                    read = read => read,
                    changed = over.wait_for(|over| *over) => {
                        is_over = true;
                        last = drain.map(|drain| clock::instant() + drain);
                        drop(changed);
                        continue;
                    }
                }
            };
            let Ok(length @ 1..) = read else { return };
            if let Some(to) = &mut self.to
                && to.write_all(&chunk[..length]).await.is_err()
            {
                // Nobody reads it any more. The process must not notice.
                self.to = None;
            }
        }
    }
}

/// Returns a builder of directories that only root can look into.
fn private(recursive: bool) -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(recursive).mode(0o700);
    builder
}

/// Directory that is removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn path(&self, name: &str, is_there: bool) -> String {
        if is_there { self.0.join(name).to_string_lossy().into_owned() } else { String::new() }
    }

    fn fifo(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(path)
    }

    /// Opens our end of the input, for reading and writing, so that the open does not wait for the other end.
    fn input(&self) -> io::Result<Sender> {
        OpenOptions::new().read_write(true).open_sender(self.fifo("stdin")?)
    }

    fn output(&self, name: &str, to: Option<OwnedFd>) -> io::Result<Output> {
        let from = OpenOptions::new().open_receiver(self.fifo(name)?)?;
        Ok(Output { from, to: to.map(Sender::from_owned_fd).transpose()? })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the pipes of a process are left over");
        }
    }
}
