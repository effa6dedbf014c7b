//! The few shell commands of fake containers: enough for the conformance suite and for probes.
//!
//! A command is `sh -c SCRIPT` (also `/bin/sh`) or one of the commands below with its arguments. A script is commands
//! separated by `;`, `&&`, `&` or line ends, with `'…'`, `"…"`, `$NAME`, `$?` and the redirections `> FILE` and `>&2`.
//!
//! `echo`, `exit`, `sleep`, `wait`, `cat [FILE]`, `readlink LINK`, `pwd`, `hostname`, `true`, `false`, `:`,
//! `test -t N`, `trap 'exit N' TERM` and `trap '' TERM`; and the one script [`GROW`], which runs out of memory if there
//! is a limit.
//! A file is on the node if a mount covers its path, else private to the container. As first process of a container any
//! other command runs until it is stopped; in an exec it is "not found", 127. A program below `/nonexistent/` cannot be
//! started at all.

mod words;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use self::words::{Command, Separator};
use super::{Shared, TermAction, images::Images, kernel};
use crate::{ContainerConfig, ContainerId, ExecStdio, ImageMount, SandboxId};

/// Script that takes 64 MiB of memory, then exits with 9.
pub(in crate::testing) const GROW: &str =
    "x=0123456789abcdef; i=0; while [ $i -lt 22 ]; do x=$x$x; i=$((i+1)); done; exit 9";

/// Output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Longest text of one CRI log line.
const LINE: usize = 16 * 1024;

/// Returns the command line of a container; empty if only its image knows.
pub(super) fn command_of(config: &ContainerConfig) -> Vec<String> {
    // The fake does not know the image's entrypoint, which would take the arguments.
    match &config.command {
        Some(command) => command.iter().chain(config.args.iter().flatten()).cloned().collect(),
        None => Vec::new(),
    }
}

pub(super) fn cannot_start(program: &str) -> bool {
    program.starts_with("/nonexistent/")
}

/// Plays a container's first process and returns its exit code; waits for ever if the command is unknown.
pub(super) async fn run_container(shared: &Arc<Shared>, id: &ContainerId, command: &[String]) -> Option<i32> {
    let process = Process { shared, container: id, output: Output::Log };
    match process.run(command).await {
        Some(code) => Some(code),
        None => std::future::pending().await,
    }
}

/// Runs a process beside the container's own.
pub(super) async fn run_exec(shared: &Arc<Shared>, id: &ContainerId, command: &[String], pipes: &Pipes) -> i32 {
    let process = Process { shared, container: id, output: Output::Pipes(pipes) };
    match process.run(command).await {
        Some(code) => code,
        None => {
            let program = command.first().map(String::as_str).unwrap_or_default();
            pipes.write(Stream::Stderr, format!("{program}: not found\n").into_bytes()).await;
            127
        }
    }
}

/// Pipe ends of an exec.
pub(super) struct Pipes {
    stdin: Option<Arc<File>>,
    stdout: Option<Arc<File>>,
    stderr: Option<Arc<File>>,
    tty: bool,
}

impl Pipes {
    pub(super) fn new(stdio: ExecStdio, tty: bool) -> Self {
        let file = |fd: Option<std::os::fd::OwnedFd>| fd.map(|fd| Arc::new(File::from(fd)));
        Self { stdin: file(stdio.stdin), stdout: file(stdio.stdout), stderr: file(stdio.stderr), tty }
    }

    pub(super) async fn write(&self, stream: Stream, bytes: Vec<u8>) {
        let to = if stream == Stream::Stdout || self.tty { &self.stdout } else { &self.stderr };
        write_all(to.as_ref(), bytes).await;
    }
}

/// Writes on a blocking thread; a reader that has gone is no error of the writer.
pub(super) async fn write_all(to: Option<&Arc<File>>, bytes: Vec<u8>) {
    if let Some(to) = to.cloned().filter(|_| !bytes.is_empty()) {
        spawn_blocking(move || (&*to).write_all(&bytes).ok()).await.ok();
    }
}

enum Output<'a> {
    Log,
    Pipes(&'a Pipes),
}

struct Process<'a> {
    shared: &'a Arc<Shared>,
    container: &'a ContainerId,
    output: Output<'a>,
}

/// Result of one command.
enum Outcome {
    Status(i32),
    Exit(i32),
    Background(Duration),
    Unknown,
}

impl Process<'_> {
    /// Runs a command and returns the exit code; `None` if a command is not known.
    async fn run(&self, command: &[String]) -> Option<i32> {
        let script = match command {
            [sh, c, script, ..] if (sh == "sh" || sh.ends_with("/sh")) && c == "-c" => script,
            words => return self.finish(&Command::of_words(words), 0).await,
        };
        if script == GROW {
            return self.grow();
        }
        let mut status = 0;
        let mut background = Duration::ZERO;
        let mut skip = false;
        for (text, separator) in words::commands(script) {
            if !skip {
                let environment = |name: &str| self.variable(name, status);
                let command = Command::parse(&text, &environment)?;
                if command.words == ["wait"] {
                    sleep(background).await;
                    status = 0;
                } else {
                    match self.step(&command, separator == Separator::Background).await {
                        Outcome::Status(code) => status = code,
                        Outcome::Exit(code) => return Some(code),
                        Outcome::Background(takes) => background = background.max(takes),
                        Outcome::Unknown => return None,
                    }
                }
            }
            skip = separator == Separator::And && status != 0;
        }
        Some(status)
    }

    async fn finish(&self, command: &Command, status: i32) -> Option<i32> {
        match self.step(command, false).await {
            Outcome::Status(code) | Outcome::Exit(code) => Some(code),
            Outcome::Background(_) => Some(status),
            Outcome::Unknown => None,
        }
    }

    async fn step(&self, command: &Command, background: bool) -> Outcome {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let status = match words.as_slice() {
            [] | [":" | "true", ..] => 0,
            ["false", ..] => 1,
            ["exit"] => return Outcome::Exit(0),
            ["exit", code] => return Outcome::Exit(code.parse().unwrap_or(2)),
            ["echo", rest @ ..] => self.print(command, format!("{}\n", rest.join(" ")).into_bytes()).await,
            ["pwd"] => {
                let dir = self.config(|config| config.working_dir.clone()).flatten();
                self.print(command, format!("{}\n", dir.as_deref().unwrap_or("/")).into_bytes()).await
            }
            ["hostname"] => {
                let hostname = self.hostname();
                self.print(command, format!("{hostname}\n").into_bytes()).await
            }
            ["cat"] => self.copy_input().await,
            ["cat", path] => match self.read(Path::new(path)) {
                Ok(bytes) => self.print(command, bytes).await,
                Err(error) => self.print_error(&format!("cat: {path}: {error}")).await,
            },
            ["readlink", path] => {
                let found = self.shared.read(|state| kernel::link(state, state.containers.get(self.container)?, path));
                match found {
                    Some(target) => self.print(command, format!("{target}\n").into_bytes()).await,
                    None => 1,
                }
            }
            ["sleep", seconds] => {
                let Some(takes) = seconds.parse().ok().and_then(|it| Duration::try_from_secs_f64(it).ok()) else {
                    return Outcome::Status(self.print_error(&format!("sleep: invalid number {seconds}")).await);
                };
                if background {
                    return Outcome::Background(takes);
                }
                sleep(takes).await;
                0
            }
            ["test", "-t", _] => i32::from(match &self.output {
                Output::Pipes(pipes) => !pipes.tty,
                Output::Log => self.config(|config| config.tty) != Some(true),
            }),
            ["trap", action, "TERM"] => match trap(action) {
                Some(action) => {
                    self.on_term(action);
                    0
                }
                None => return Outcome::Unknown,
            },
            _ => return Outcome::Unknown,
        };
        Outcome::Status(status)
    }

    async fn print(&self, command: &Command, bytes: Vec<u8>) -> i32 {
        if let Some(path) = &command.redirect {
            return match self.store(path, bytes) {
                Ok(()) => 0,
                Err(error) => self.print_error(&format!("can't create {}: {error}", path.display())).await,
            };
        }
        self.write(if command.to_stderr { Stream::Stderr } else { Stream::Stdout }, bytes).await;
        0
    }

    async fn print_error(&self, text: &str) -> i32 {
        self.write(Stream::Stderr, format!("{text}\n").into_bytes()).await;
        1
    }

    async fn write(&self, stream: Stream, bytes: Vec<u8>) {
        match &self.output {
            Output::Log => self.shared.write_log(self.container, stream, &bytes),
            Output::Pipes(pipes) => pipes.write(stream, bytes).await,
        }
    }

    async fn copy_input(&self) -> i32 {
        if matches!(self.output, Output::Log) && self.config(|config| config.stdin) == Some(true) {
            // Nobody ever writes to it.
            return std::future::pending().await;
        }
        if let Output::Pipes(Pipes { stdin: Some(stdin), stdout, .. }) = &self.output {
            let (stdin, stdout) = (Arc::clone(stdin), stdout.clone());
            let copy = spawn_blocking(move || match stdout {
                Some(stdout) => io::copy(&mut &*stdin, &mut &*stdout),
                None => io::copy(&mut &*stdin, &mut io::sink()),
            });
            return i32::from(!matches!(copy.await, Ok(Ok(_))));
        }
        0
    }

    fn config<T>(&self, read: impl FnOnce(&ContainerConfig) -> T) -> Option<T> {
        self.shared.read(|state| state.containers.get(self.container).map(|container| read(&container.config)))
    }

    fn variable(&self, name: &str, status: i32) -> String {
        if name == "?" {
            return status.to_string();
        }
        let value = self.config(|config| {
            config.env.iter().rev().find(|variable| variable.name == name).map(|variable| variable.value.clone())
        });
        value.flatten().unwrap_or_default()
    }

    fn hostname(&self) -> String {
        let sandbox: Option<SandboxId> = self.config(|config| config.sandbox.clone());
        let named = sandbox.and_then(|id| {
            self.shared.read(|state| state.sandboxes.get(&id).map(|sandbox| sandbox.config.hostname.clone()))
        });
        named.filter(|name| !name.is_empty()).unwrap_or_else(|| "fake-node".to_owned())
    }

    fn on_term(&self, action: TermAction) {
        if matches!(self.output, Output::Log) {
            self.shared.change(|state, _| {
                if let Some(container) = state.containers.get_mut(self.container) {
                    container.on_term = action;
                }
            });
        }
    }

    fn grow(&self) -> Option<i32> {
        if self.config(|config| config.resources.memory_limit).flatten().is_none() {
            return Some(9);
        }
        self.shared.change(|state, now| state.end(self.container, Some(137), true, now));
        Some(137)
    }

    /// Returns the place of `path` if it is in a mount of the container.
    fn place(&self, path: &Path) -> Option<Place> {
        self.config(|config| {
            let covering = config.mounts.iter().filter(|mount| path.starts_with(&mount.destination));
            let mount = covering.max_by_key(|mount| mount.destination.components().count())?;
            let below = path.strip_prefix(&mount.destination).ok()?;
            if let Some(image) = &mount.image {
                return Some(Place::Image(image.clone(), below.to_owned()));
            }
            let source = if below.as_os_str().is_empty() { mount.source.clone() } else { mount.source.join(below) };
            Some(Place::Node { path: source, read_only: mount.read_only })
        })?
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = match self.place(path) {
            Some(Place::Node { path, .. }) => return std::fs::read(path),
            Some(Place::Image(mount, below)) => Images::file(&mount, &below),
            None => self.shared.read(|state| {
                let container = state.containers.get(self.container)?;
                kernel::file(state, container, path).or_else(|| container.files.get(path).cloned())
            }),
        };
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn store(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        match self.place(path) {
            Some(Place::Node { path, read_only: false }) => std::fs::write(path, bytes),
            Some(Place::Node { .. } | Place::Image(..)) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            None if self.config(|config| config.security.read_only_root) == Some(true) => {
                Err(io::ErrorKind::ReadOnlyFilesystem.into())
            }
            None => {
                self.shared.change(|state, _| {
                    if let Some(container) = state.containers.get_mut(self.container) {
                        container.files.insert(path.to_owned(), bytes);
                    }
                });
                Ok(())
            }
        }
    }
}

/// Place of a mounted path; other paths are the container's own.
enum Place {
    /// Path on the node.
    Node { path: PathBuf, read_only: bool },
    /// Image mount, and a path below it.
    Image(ImageMount, PathBuf),
}

fn trap(action: &str) -> Option<TermAction> {
    if action.is_empty() {
        return Some(TermAction::Ignore);
    }
    let code = action.strip_prefix("exit ")?.trim().parse().ok()?;
    Some(TermAction::Exit { delay: Duration::ZERO, code })
}

impl Shared {
    /// Stores a container's output as CRI log lines, and appends them to its log file if the fake has log files.
    pub(super) fn write_log(&self, id: &ContainerId, stream: Stream, bytes: &[u8]) {
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        self.change(|state, now| {
            let files = state.log_files;
            let Some(container) = state.containers.get_mut(id).filter(|container| container.is_running()) else {
                return;
            };
            let mut lines = Vec::new();
            for line in bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|&byte| byte == b'\n') {
                let mut pieces = line.chunks(LINE).peekable();
                if pieces.peek().is_none() {
                    lines.extend_from_slice(format!("{now:.9} {name} F \n").as_bytes());
                }
                while let Some(piece) = pieces.next() {
                    let tag = if pieces.peek().is_some() { "P" } else { "F" };
                    lines.extend_from_slice(format!("{now:.9} {name} {tag} ").as_bytes());
                    lines.extend_from_slice(piece);
                    lines.push(b'\n');
                }
            }
            if files {
                let path = &container.config.log_path;
                let file = File::options().append(true).create(true).open(path);
                if let Err(error) = file.and_then(|mut file| file.write_all(&lines)) {
                    lines.extend_from_slice(format!("{now:.9} stderr F {}: {error}\n", path.display()).as_bytes());
                }
            }
            container.output.extend_from_slice(&lines);
        });
    }
}
