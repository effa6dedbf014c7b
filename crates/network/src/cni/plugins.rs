//! Finds the programs of CNI plugins, runs them, and kills those that do not end.

#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek as _, Write as _},
    os::fd::AsFd,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use serde::Deserialize;
use serde_json::Value;
use stanchion_runtime::{Error, ErrorKind, Result, clock};
use stanchion_untrusted::TooLarge;

use crate::limits;

/// Time limit of one plugin. It may ask a DHCP server meanwhile.
const LIMIT: Duration = Duration::from_secs(30);
/// Time for the kernel to end a killed process.
const KILL: Duration = Duration::from_secs(5);
/// Interval of reading a plugin's output.
const READ_PERIOD: Duration = Duration::from_millis(10);
/// `PATH` of plugins if the agent has none: they need `iptables` and the like.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories of the programs, and their time limit.
#[derive(Clone, Debug)]
pub(super) struct Plugins {
    pub directories: Vec<PathBuf>,
    pub limit: Duration,
}

/// Parameters of a plugin's call, beside its configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// `ADD` or `DEL`.
    pub command: &'static str,
    pub sandbox: &'a str,
    /// Network namespace of the sandbox; `None` if it is gone.
    pub namespace: Option<&'a Path>,
    /// `CNI_ARGS`: `NAME=VALUE;…`
    pub arguments: &'a str,
}

/// A plugin's error, as it prints it on standard output.
#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: u64,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugins {
    pub fn at(directories: Vec<PathBuf>) -> Self {
        Self { directories, limit: LIMIT }
    }

    /// Returns a program's path.
    pub fn find(&self, plugin: &str) -> Result<PathBuf> {
        let is_program =
            |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        let mut found = self.directories.iter().map(|directory| directory.join(plugin)).filter(is_program);
        found.next().ok_or_else(|| {
            let searched: Vec<_> = self.directories.iter().map(|it| it.display().to_string()).collect();
            let message = format!(
                "there is no program for CNI plugin {plugin} in {}; install it there, or name its directory in \
                 network.cni_bin_dirs",
                searched.join(", ")
            );
            Error::new(ErrorKind::Other, message)
        })
    }

    /// Runs a plugin, and returns its output.
    pub fn run(&self, plugin: &str, call: Call<'_>, input: &Value) -> Result<Vec<u8>> {
        let program = self.find(plugin)?;
        let what = format!("CNI plugin {plugin} on {} for sandbox {}", call.command, call.sandbox);
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Other, format!("{what}: {} cannot be run", program.display())).caused_by(&error)
        };
        // A file in memory needs no reader, unlike a pipe.
        let mut stdin = File::from(memfd_create("cni", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?);
        stdin.write_all(input.to_string().as_bytes()).and_then(|()| stdin.rewind()).map_err(failed)?;
        let child = self.command(&program, call, stdin).spawn().map_err(failed)?;
        let (ended, printed, complaints) = self.wait(child).map_err(failed)?;
        let status = match ended {
            Ended::ByItself(status) => status,
            Ended::TooLate => {
                let message = format!("{what}: it did not end within {} s and was killed", self.limit.as_secs_f64());
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            Ended::TooLoud(why) => {
                return Err(Error::new(ErrorKind::Other, format!("{what}: it was killed for its output")).because(why));
            }
        };
        let complaints = String::from_utf8_lossy(&complaints).trim().to_owned();
        if status.success() {
            if !complaints.is_empty() {
                tracing::debug!(plugin, complaints, "a CNI plugin wrote to standard error");
            }
            return Ok(printed);
        }
        let why = reason(status, &printed, &complaints);
        Err(Error::new(ErrorKind::Other, format!("{what}: it failed")).because(why))
    }

    /// Returns the command for a call.
    fn command(&self, program: &Path, call: Call<'_>, stdin: File) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("CNI_COMMAND", call.command)
            .env("CNI_CONTAINERID", call.sandbox)
            .env("CNI_NETNS", call.namespace.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", super::INTERFACE)
            .env("CNI_ARGS", call.arguments)
            .env("CNI_PATH", std::env::join_paths(&self.directories).unwrap_or_default())
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The process group is killed with all processes that the plugin starts.
            .process_group(0);
        command
    }

    /// Returns how the program ended, and its output on standard output and standard error.
    fn wait(&self, mut child: Child) -> io::Result<(Ended, Vec<u8>, Vec<u8>)> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let (mut printed, mut complaints) = (Output::of(child.stdout.take())?, Output::of(child.stderr.take())?);
        let (sender, ended) = mpsc::channel();
        thread::Builder::new().name("st-cni".to_owned()).spawn(move || {
            // This thread does not reap the process, so that its id stays its own until then. The send fails if even
            // the kill took too long.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), flags) {}
            sender.send(()).ok();
        })?;
        let deadline = clock::instant() + self.limit;
        let (killed, has_ended) = loop {
            let left = deadline.saturating_duration_since(clock::instant());
            let waited = ended.recv_timeout(READ_PERIOD.min(left));
            // After its end, everything that it printed itself is there. The pipes need not end: a grandchild may keep
            // them open.
            let read = printed.read().and_then(|()| complaints.read());
            match (waited, read) {
                (Err(RecvTimeoutError::Disconnected), _) => {
                    return Err(io::Error::other("the thread that waited for it panicked"));
                }
                (Ok(()), Ok(())) => break (None, true),
                (waited, Err(error)) => break (Some(Ended::TooLoud(error.to_string())), waited.is_ok()),
                (Err(RecvTimeoutError::Timeout), Ok(())) if left.is_zero() => break (Some(Ended::TooLate), false),
                (Err(RecvTimeoutError::Timeout), Ok(())) => {}
            }
        };
        let how = match killed {
            None => Ended::ByItself(child.wait()?),
            Some(killed) => {
                killpg(pid, Signal::SIGKILL)?;
                if has_ended || ended.recv_timeout(KILL).is_ok() {
                    child.wait()?;
                }
                killed
            }
        };
        Ok((how, printed.bytes, complaints.bytes))
    }
}

/// Returns the reason why a plugin failed: its own error, or else its output.
fn reason(status: ExitStatus, printed: &[u8], complaints: &str) -> String {
    match serde_json::from_slice::<Failure>(printed) {
        Ok(Failure { code, msg, details }) if details.is_empty() => format!("{msg} (code {code})"),
        Ok(Failure { code, msg, details }) => format!("{msg}: {details} (code {code})"),
        Err(_) => {
            let said = String::from_utf8_lossy(printed);
            let said = [said.trim(), complaints].into_iter().find(|it| !it.is_empty());
            format!("{status}: {}", said.unwrap_or("without a word"))
        }
    }
}

/// End of a plugin.
enum Ended {
    ByItself(ExitStatus),
    /// Killed after its time limit.
    TooLate,
    /// Killed after too much output, as the text says.
    TooLoud(String),
}

/// Bytes that a plugin has printed so far.
struct Output<P> {
    pipe: Option<P>,
    bytes: Vec<u8>,
}

impl<P: Read + AsFd> Output<P> {
    fn of(pipe: Option<P>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl_setfl(pipe, OFlags::NONBLOCK)?;
        }
        Ok(Self { pipe, bytes: Vec::new() })
    }

    /// Reads the available output without waiting for more.
    fn read(&mut self) -> io::Result<()> {
        let left = limits::CNI_ANSWER.size() + 1 - self.bytes.len();
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.take(left as u64).read_to_end(&mut self.bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if self.bytes.len() > limits::CNI_ANSWER.size() => Err(TooLarge(limits::CNI_ANSWER).into()),
            _ => Ok(()),
        }
    }
}
