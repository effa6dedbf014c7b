//! The program under test: the agent and its command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    process::{self, Process},
    remains::NODE,
    tools, until,
};

/// `stanchion` with one configuration file.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    /// Directory of the node.
    home: PathBuf,
    config: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Prepares the program in the directory `programs`; does not start it.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn new(programs: &Path, config: &Path, log: &Path) -> Result<Self> {
        for file in ["stanchion", "stanchion-logger", "libstanchion_containerd.so", "libstanchion_docker.so"] {
            ensure!(
                programs.join(file).is_file(),
                "{} has not been built: run `cargo xtask test`, or `cargo build --workspace --all-targets` first",
                programs.join(file).display()
            );
        }
        let program = programs.join("stanchion");
        let home = config.parent().context("a configuration is in a directory")?.to_path_buf();
        let (config, log) = (config.to_path_buf(), log.to_path_buf());
        Ok(Self { program, home, config, environment: Vec::new(), log, process: None })
    }

    /// Sets another configuration and these variables, from the next start on.
    pub fn configure(&mut self, config: &Path, environment: Vec<(String, String)>) {
        self.config = config.to_path_buf();
        self.environment = environment;
    }

    /// Starts `stanchion run` and waits until it answers on its socket.
    ///
    /// # Errors
    /// When it ends, or does not answer.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        until("the agent to answer on its socket", Duration::from_secs(30), || {
            if let Some(status) = self.process.as_mut().map(Process::ended).transpose()?.flatten() {
                bail!("it ended ({status}): {}", self.log_tail(20));
            }
            self.json(&["get", "nodes"]).map(drop)
        })
    }

    /// Starts `stanchion run` without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let mut command = self.command(&["run"])?;
        self.process = Some(Process::start("stanchion run", &mut command, &self.log)?);
        Ok(())
    }

    /// Starts `stanchion run` and waits until it ends, for configurations that it refuses. Returns its exit status and
    /// its log.
    ///
    /// # Errors
    /// When it cannot be started, or runs on.
    pub fn run_to_end(&mut self) -> Result<(ExitStatus, String)> {
        let before = fs::read(&self.log).map_or(0, |text| text.len());
        self.launch()?;
        let status = self.running()?.wait(Duration::from_secs(20))?;
        self.process = None;
        let log = fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok((status, log[before..].to_owned()))
    }

    /// Kills the agent with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Ends the agent with SIGTERM, within ten seconds. Its pods keep running.
    ///
    /// # Errors
    /// When it is not running or does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let process = self.running()?;
        process.signal(Signal::TERM)?;
        let status = process.wait(Duration::from_secs(10))?;
        self.process = None;
        Ok(status)
    }

    /// Forgets the process of an agent that has ended by itself, so that another can be started.
    pub fn forget(&mut self) {
        self.process = None;
    }

    /// Returns its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Returns its exit status, if it has ended without being told to.
    ///
    /// # Errors
    /// When the kernel cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.as_mut().map(Process::ended).transpose().map(Option::flatten)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent is not running")
    }

    /// Returns a `stanchion` command that talks to this agent.
    ///
    /// # Errors
    /// When the search paths cannot be set.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("STANCHION_CONFIG", &self.config).env(NODE, &self.home);
        tools::apply(&mut command)?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs a `stanchion` command until it ends, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        process::output(&mut self.command(arguments)?, Duration::from_secs(60))
    }

    /// Runs a `stanchion` command that must succeed, and returns its output.
    ///
    /// # Errors
    /// When it fails; the error has its standard error.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        process::text(&mut self.command(arguments)?)
    }

    /// Runs a `stanchion` command with `-o json` and returns its output.
    ///
    /// # Errors
    /// When it fails or does not print JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.text(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("stanchion {} -o json printed {text}", arguments.join(" ")))
    }

    /// Returns the last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Returns its whole log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_text(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }
}

/// Returns the last lines of a file; the error's text, when it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<_> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("{}: {error}", path.display()),
    }
}
