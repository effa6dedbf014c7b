//! Child processes that end with the test.

use std::{
    fs::File,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

/// Child in its own process group (Ctrl-C at the terminal does not reach it), killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_path_buf(), ended: None })
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of the log with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns its exit status, if it has ended.
    ///
    /// # Errors
    /// When the kernel cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Sends a signal; does nothing if the process has ended already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.child), signal)
                .with_context(|| format!("cannot signal {} (pid {})", self.name, self.child.id()))?;
        }
        Ok(())
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When it has not ended `within` that time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let handle = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .with_context(|| format!("cannot watch {}", self.name))?;
        let deadline = Timespec::try_from(within).context("a deadline too far away")?;
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        poll(&mut fds, Some(&deadline)).with_context(|| format!("cannot watch {}", self.name))?;
        match self.ended()? {
            Some(status) => Ok(status),
            None => {
                bail!("{} (pid {}) still runs after {:.1} s", self.name, self.child.id(), within.as_secs_f64())
            }
        }
    }

    /// Kills it with SIGKILL and waits until it ends.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(10)).map(drop)
    }

    /// Ends it with SIGTERM; after `grace`, with SIGKILL.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if let Ok(status) = self.wait(grace) {
            return Ok(status);
        }
        self.kill()?;
        self.wait(Duration::ZERO)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("while ending {}: {error:#}", self.name);
        }
    }
}

/// Runs `command` and returns its output, whatever its exit code; kills it after `within`.
///
/// # Errors
/// When it cannot be started, or takes longer.
pub fn output(command: &mut Command, within: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("cannot start {shown}"))?;
    let pid = Pid::from_child(&child);
    let watch = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("cannot watch {shown}"))?;
    // The reader drains both pipes at once; the guard only ends a program that hangs.
    let guard = std::thread::spawn(move || {
        let deadline = Timespec::try_from(within).ok();
        let ended = poll(&mut [PollFd::new(&watch, PollFlags::IN)], deadline.as_ref());
        if !matches!(ended, Ok(count) if count > 0) {
            rustix::process::pidfd_send_signal(&watch, Signal::KILL).ok();
        }
    });
    let output = child.wait_with_output().with_context(|| format!("cannot read the output of {shown}"))?;
    guard.join().ok();
    if output.status.signal() == Some(Signal::KILL.as_raw()) && started.elapsed() >= within {
        bail!("{shown} was killed after {:.1} s without an end", within.as_secs_f64());
    }
    Ok(output)
}

/// Runs `command`, which must succeed, and returns its standard output.
///
/// # Errors
/// When it fails; the error has its command line and its standard error.
pub fn text(command: &mut Command) -> Result<String> {
    let result = output(command, Duration::from_secs(60))?;
    if !result.status.success() {
        bail!("{command:?} failed ({}): {}", result.status, String::from_utf8_lossy(&result.stderr).trim());
    }
    String::from_utf8(result.stdout).with_context(|| format!("{command:?} printed something that is not UTF-8"))
}

/// Kills a process of this machine with SIGKILL.
///
/// # Errors
/// When there is no such process.
pub fn kill(pid: u32) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process id"))?;
    kill_process(target, Signal::KILL).with_context(|| format!("cannot kill pid {pid}"))
}
