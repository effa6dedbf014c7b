//! Programs of CNI plugins: found, run, and killed if they do not end.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Seek as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
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
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use serde_json::Value;
use stanchion_runtime::{Error, ErrorKind, Result};
use stanchion_untrusted::read_from;

use crate::limits;

/// Time limit of one plugin. It may ask a DHCP server meanwhile.
const LIMIT: Duration = Duration::from_secs(30);
/// Time for the kernel to end a killed process.
const KILL: Duration = Duration::from_secs(5);
/// PATH of plugins, which need `iptables` and the like, if the agent has none.
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
    /// The sandbox's network namespace; `None` when that is gone.
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
        // Files in memory, not pipes: nobody waits for a reader, nor for a grandchild that keeps the other end.
        let (stdin, stdout, stderr) = (memory(), memory(), memory());
        let (mut stdin, mut stdout, mut stderr) =
            (stdin.map_err(failed)?, stdout.map_err(failed)?, stderr.map_err(failed)?);
        stdin.write_all(input.to_string().as_bytes()).and_then(|()| stdin.rewind()).map_err(failed)?;
        let mut command = Command::new(&program);
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
            .stdout(stdout.try_clone().map_err(failed)?)
            .stderr(stderr.try_clone().map_err(failed)?)
            // In a process group, so that it can be killed with all that it starts.
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        let Some(status) = self.wait(child).map_err(failed)? else {
            let message = format!("{what}: it did not end within {} s and was killed", self.limit.as_secs_f64());
            return Err(Error::new(ErrorKind::Timeout, message));
        };
        let printed = contents(&mut stdout).map_err(failed)?;
        let complaints = String::from_utf8_lossy(&contents(&mut stderr).map_err(failed)?).trim().to_owned();
        if status.success() {
            if !complaints.is_empty() {
                tracing::debug!(plugin, complaints, "a CNI plugin wrote to standard error");
            }
            return Ok(printed);
        }
        let why = match serde_json::from_slice::<Failure>(&printed) {
            Ok(Failure { code, msg, details }) if details.is_empty() => format!("{msg} (code {code})"),
            Ok(Failure { code, msg, details }) => format!("{msg}: {details} (code {code})"),
            Err(_) => {
                let said = String::from_utf8_lossy(&printed);
                let said = [said.trim(), &complaints].into_iter().find(|it| !it.is_empty());
                format!("{status}: {}", said.unwrap_or("without a word"))
            }
        };
        Err(Error::new(ErrorKind::Other, format!("{what}: it failed")).because(why))
    }

    /// Returns how the program ended; `None` if it had to be killed.
    fn wait(&self, mut child: Child) -> io::Result<Option<ExitStatus>> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let (tell, ended) = mpsc::channel();
        thread::Builder::new().name("st-cni".to_owned()).spawn(move || {
            // This thread does not reap the process, so that its id stays its own until then. The send fails if even
            // the kill took too long.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), flags) {}
            tell.send(()).ok();
        })?;
        match ended.recv_timeout(self.limit) {
            Ok(()) => child.wait().map(Some),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread that waited for it panicked")),
            Err(RecvTimeoutError::Timeout) => {
                killpg(pid, Signal::SIGKILL)?;
                if ended.recv_timeout(KILL).is_ok() {
                    child.wait()?;
                }
                Ok(None)
            }
        }
    }
}

fn memory() -> io::Result<File> {
    Ok(File::from(memfd_create("cni", MemfdFlags::CLOEXEC)?))
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    read_from(file, limits::CNI_ANSWER)
}
