//! A node's daemon, which can be ended and started again.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{process::Process, tools, until};

/// One daemon, running or not.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: &'static str,
    arguments: Vec<OsString>,
    log: PathBuf,
    /// Directory that the daemon searches for programs before all others.
    programs: Option<PathBuf>,
    process: Option<Process>,
}

impl Daemon {
    /// Describes a daemon that is not started yet; `option` names its configuration.
    pub fn new(program: &'static str, option: &str, config: &Path, log: &Path) -> Self {
        let arguments = vec![option.into(), config.into()];
        Self { program, arguments, log: log.to_path_buf(), programs: None, process: None }
    }

    /// Makes the daemon search this directory for programs before all others.
    pub fn with_programs(self, directory: Option<&Path>) -> Self {
        Self { programs: directory.map(Path::to_path_buf), ..self }
    }

    /// Starts it, and waits until `answers` succeeds.
    pub fn start(&mut self, answers: impl Fn() -> Result<()>) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.program);
        let mut command = tools::command(self.program)?;
        command.args(&self.arguments);
        if let Some(programs) = &self.programs {
            command.env("PATH", tools::search_path_from(programs)?);
        }
        let mut process = Process::start(self.program, &mut command, &self.log)?;
        until(&format!("{} to answer", self.program), Duration::from_secs(40), || {
            if let Some(status) = process.ended()? {
                bail!("it ended ({status}), see {}", self.log.display());
            }
            answers()
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Returns the running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.program))
    }

    /// Ends it with `signal`.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let process = self.process()?;
        process.signal(signal)?;
        let status = process.wait(Duration::from_secs(60))?;
        self.process = None;
        Ok(status)
    }

    /// Returns its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Returns the path of its log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}
