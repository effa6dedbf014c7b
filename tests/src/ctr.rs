//! containerd's own client, `ctr`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{proc, process, tools, wait::lock};

/// Client for one socket and namespace.
#[derive(Debug)]
pub struct Ctr {
    socket: PathBuf,
    namespace: String,
    // The fields that are read here never change in a record.
    records: Mutex<BTreeMap<String, Record>>,
}

/// Container record.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Image reference.
    #[serde(default)]
    pub image: String,
    /// The OCI spec, as JSON.
    #[serde(default)]
    pub spec: serde_json::Value,
}

impl Record {
    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Returns the name of the pod; empty when the container belongs to none.
    #[must_use]
    pub fn pod(&self) -> &str {
        self.label("io.kubernetes.pod.name")
    }

    /// Returns the name of the container in the pod; empty for a sandbox.
    #[must_use]
    pub fn container(&self) -> &str {
        self.label("io.kubernetes.container.name")
    }

    /// Returns the revision of the pod that the container was made from.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.label("stanchion.dev/revision")
    }
}

/// Container with a live process.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its record.
    pub record: Record,
    /// PID of its first process.
    pub pid: u32,
    /// Start of that process, in clock ticks after boot.
    pub started: u64,
}

impl Running {
    /// Returns an identity that stays the same exactly as long as the container is not restarted.
    #[must_use]
    pub fn identity(&self) -> (String, u32, u64) {
        (self.record.id.clone(), self.pid, self.started)
    }

    /// Kills its first process with SIGKILL; returns when.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(&self) -> Result<Instant> {
        process::kill(self.pid)?;
        Ok(Instant::now())
    }
}

impl Ctr {
    /// Makes a client; does not connect yet.
    #[must_use]
    pub fn new(socket: &Path, namespace: &str) -> Self {
        Self { socket: socket.to_path_buf(), namespace: namespace.to_owned(), records: Mutex::default() }
    }

    /// Returns a command that runs `ctr` on this socket and namespace.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = tools::command("ctr")?;
        command.arg("--address").arg(&self.socket).args(["--namespace", &self.namespace]).args(arguments);
        Ok(command)
    }

    /// Runs `ctr` and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        process::text(&mut self.command(arguments)?)
    }

    /// Returns the lines of a table, without the header, as words.
    fn table(&self, arguments: &[&str]) -> Result<Vec<Vec<String>>> {
        let text = self.run(arguments)?;
        Ok(text.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
    }

    fn first_column(&self, arguments: &[&str]) -> Result<Vec<String>> {
        Ok(self.table(arguments)?.into_iter().filter_map(|row| row.into_iter().next()).collect())
    }

    /// Returns the ids of all tasks.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn tasks(&self) -> Result<Vec<String>> {
        self.first_column(&["tasks", "ls"])
    }

    /// Returns the ids of all container records.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn containers(&self) -> Result<Vec<String>> {
        self.first_column(&["containers", "ls"])
    }

    /// Returns the names of all images.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn images(&self) -> Result<Vec<String>> {
        self.first_column(&["images", "ls"])
    }

    /// Returns all leases: id, time of creation, labels.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn leases(&self) -> Result<Vec<String>> {
        Ok(self.table(&["leases", "ls"])?.into_iter().map(|row| row.join(" ")).collect())
    }

    /// Returns the keys of the snapshots that are not image layers.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn working_snapshots(&self) -> Result<Vec<String>> {
        let rows = self.table(&["snapshots", "ls"])?;
        let working = rows.into_iter().filter(|row| row.last().is_some_and(|kind| kind != "Committed"));
        Ok(working.filter_map(|row| row.into_iter().next()).collect())
    }

    /// Returns the downloads and uploads that were begun and not finished.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn active_ingests(&self) -> Result<Vec<String>> {
        self.first_column(&["content", "active"])
    }

    /// Returns a container's record; `None` when it is gone.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn record(&self, id: &str) -> Result<Option<Record>> {
        if let Some(known) = self.known(id) {
            return Ok(Some(known));
        }
        let text = match self.run(&["containers", "info", id]) {
            Ok(text) => text,
            Err(_) if !self.containers()?.iter().any(|other| other == id) => return Ok(None),
            Err(error) => return Err(error),
        };
        let record: Record = serde_json::from_str(&text).with_context(|| format!("cannot read the record of {id}"))?;
        lock(&self.records).insert(id.to_owned(), record.clone());
        Ok(Some(record))
    }

    fn known(&self, id: &str) -> Option<Record> {
        lock(&self.records).get(id).cloned()
    }

    /// Returns the pods' containers whose first process runs, without sandboxes.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn running(&self) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for row in self.table(&["tasks", "ls"])? {
            let [id, pid, status] = row.as_slice() else { continue };
            if status != "RUNNING" {
                continue;
            }
            let pid = pid.parse().with_context(|| format!("ctr says the task {id} has the pid {pid:?}"))?;
            // Either may be gone by now.
            let (Some(record), Ok(started)) = (self.record(id)?, proc::started(pid)) else { continue };
            if !record.container().is_empty() {
                running.push(Running { record, pid, started });
            }
        }
        Ok(running)
    }
}

/// Returns the containers of one pod, sorted by container name.
pub(crate) fn of_pod(mut running: Vec<Running>, pod: &str) -> Vec<Running> {
    running.retain(|one| one.record.pod() == pod);
    running.sort_by(|a, b| a.record.container().cmp(b.record.container()));
    running
}
