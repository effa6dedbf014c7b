//! Tasks: the processes of containers, from start to stop or kill.

use std::{io, path::Path, time::Duration};

use containerd_client::{
    services::v1::{
        Container, CreateTaskRequest, DeleteTaskRequest, KillRequest, StartRequest, WaitRequest,
        snapshots::{MountsRequest, PrepareSnapshotRequest},
    },
    tonic::{Code, Status},
    types::Mount,
};
use nix::{errno::Errno, sys::stat::Mode};
use stanchion_sdk::{
    clock,
    runtime::{ContainerId, Error, ErrorKind, Result, signal},
    shim::{TAKES_BACK, has_bundle_of_earlier},
};
use stanchion_untrusted::make_directory;

use crate::{
    Containerd,
    changes::finish,
    client::{failed, is_gone},
    inventory::CREATED,
    names,
};

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// Interval between tries of a start while containerd still cleans up one that was given up.
const AGAIN: Duration = Duration::from_millis(100);

impl Containerd {
    pub(crate) async fn start_task(&self, id: &ContainerId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move { backend.start_task_now(&id).await }).await
    }

    /// Makes the snapshot and the task, and starts it. A step that an earlier, interrupted start has done is not
    /// repeated.
    async fn start_task_now(&self, id: &ContainerId) -> Result<()> {
        let tried = || format!("starting container {id}");
        let record = self
            .record(id.as_str())
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{}: it does not exist", tried())))?;
        if record.labels.contains_key(names::STARTED)
            && self.task(id.as_str()).await?.is_none_or(|task| task.status != CREATED)
        {
            let message = format!("{}: it was started before, and a container starts once", tried());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let until = clock::instant() + TAKES_BACK;
        loop {
            let rootfs = self.files(&record).await?;
            let is_earlier = self.create_mounted(&record, rootfs).await? == 0;
            let request = StartRequest { container_id: id.0.clone(), exec_id: String::new() };
            // containerd does not keep the start time. Its write to disk runs concurrently with the start.
            let note = [(names::STARTED, clock::now().to_string())];
            let mut tasks = self.client.tasks();
            let (started, noted) =
                tokio::join!(tasks.start(self.client.request(request)), self.label(id.as_str(), &note));
            match started {
                // The task is left from a try that was given up, and containerd has removed it: it cannot be started.
                Err(status) if is_earlier && is_gone(&status) && clock::instant() < until => {
                    self.end_task(id).await?;
                    self.clean_up_after(&record).await?;
                    tokio::time::sleep(AGAIN).await;
                }
                started => return started.map_err(|status| failed(tried(), &status)).and(noted),
            }
        }
    }

    /// Prepares the container's own snapshot on top of its image's.
    async fn files(&self, record: &Container) -> Result<Vec<Mount>> {
        let id = &record.id;
        let prepare = PrepareSnapshotRequest {
            snapshotter: record.snapshotter.clone(),
            key: id.clone(),
            parent: record.labels.get(names::LAYERS).cloned().unwrap_or_default(),
            ..PrepareSnapshotRequest::default()
        };
        let mut snapshots = self.client.snapshots();
        let mounts = match snapshots.prepare(self.client.request(prepare)).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = MountsRequest { snapshotter: record.snapshotter.clone(), key: id.clone() };
                snapshots.mounts(self.client.request(request)).await.map(|it| it.into_inner().mounts)
            }
            prepared => prepared.map(|it| it.into_inner().mounts),
        };
        mounts.map_err(|status| {
            // Part of the image is gone: the next look-up reads the store again.
            self.images.forget_resolved();
            failed(format!("preparing the files of container {id}"), &status)
        })
    }

    /// Creates the task without starting it. Returns its process id, or 0 if an earlier try has created it.
    pub(crate) async fn create_task(&self, record: &Container, rootfs: Vec<Mount>) -> Result<u32> {
        let id = &record.id;
        let log = record.labels.get(names::LOG).cloned().unwrap_or_default();
        if !log.is_empty() && !self.logger.is_file() {
            let message = format!("creating the process of container {id}: {} is missing", self.logger.display());
            let way_out = "install it there, or set `logger` in this backend's table to its path";
            return Err(Error::new(ErrorKind::Unavailable, message).because(way_out));
        }
        let input = record.labels.get(names::INPUT).cloned().unwrap_or_default();
        if !input.is_empty() {
            make_input(Path::new(&input)).map_err(|error| {
                Error::new(ErrorKind::Other, format!("making the input of container {id}")).caused_by(&error)
            })?;
        }
        let terminal = record.labels.contains_key(names::TERMINAL);
        let create = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdin: input,
            stdout: log.clone(),
            // A terminal has one output.
            stderr: if terminal { String::new() } else { log },
            terminal,
            ..CreateTaskRequest::default()
        };
        let until = clock::instant() + TAKES_BACK;
        loop {
            match self.client.tasks().create(self.client.request(create.clone())).await {
                Ok(created) => return Ok(created.into_inner().pid),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(0),
                Err(status) if has_bundle_of_earlier(status.message(), id) && clock::instant() < until => {
                    tokio::time::sleep(AGAIN).await;
                }
                // The text that users search for, the same for each attempt of a container.
                Err(status) => return Err(failed("failed to create containerd task".to_owned(), &status)),
            }
        }
    }

    /// Stops a container. If cancelled while it waits, it has sent only its stop signal.
    pub(crate) async fn halt_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        if !grace.is_zero() {
            let Some(record) = self.record(id.as_str()).await? else { return Ok(()) };
            let stop = stop_signal(record.labels.get(names::STOP_SIGNAL));
            if !self.signal(id, stop, false).await? {
                return Ok(());
            }
            // The task keeps its end until it is deleted: it cannot be missed between the two calls.
            if let Ok(ended) = tokio::time::timeout(grace, self.wait_task(id)).await {
                return ended;
            }
        }
        match self.signal(id, SIGKILL, true).await? {
            true => self.wait_task(id).await,
            false => Ok(()),
        }
    }

    /// Kills and deletes a task. Returns whether there was one to delete.
    pub(crate) async fn end_task(&self, id: &ContainerId) -> Result<bool> {
        self.halt_container(id, Duration::ZERO).await?;
        let delete = DeleteTaskRequest { container_id: id.0.clone() };
        match self.client.tasks().delete(self.client.request(delete)).await {
            Ok(_) => Ok(true),
            Err(status) if is_gone(&status) => Ok(false),
            Err(status) => Err(failed(format!("removing the process of container {id}"), &status)),
        }
    }

    /// Waits until a container has ended.
    async fn wait_task(&self, id: &ContainerId) -> Result<()> {
        let request = WaitRequest { container_id: id.0.clone(), exec_id: String::new() };
        match self.client.tasks().wait(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => Err(failed(format!("waiting for the end of container {id}"), &status)),
            _ => Ok(()),
        }
    }

    /// Sends a signal. Returns whether there was a process to receive it.
    async fn signal(&self, id: &ContainerId, signal: u32, all: bool) -> Result<bool> {
        let request = KillRequest { container_id: id.0.clone(), exec_id: String::new(), signal, all };
        match self.client.tasks().kill(self.client.request(request)).await {
            Ok(_) => Ok(true),
            Err(status) if is_over(&status) => Ok(false),
            Err(status) => Err(failed(format!("signalling container {id}"), &status)),
        }
    }
}

/// Makes the FIFO that the shim reads from; until somebody writes to it, the input is open and silent.
fn make_input(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        make_directory(dir)?;
    }
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Err(Errno::EEXIST) => Ok(()),
        made => Ok(made?),
    }
}

/// Returns whether a task cannot be signalled because it has ended.
fn is_over(status: &Status) -> bool {
    is_gone(status) || status.message().contains("process already finished")
}

/// Returns a container's stop signal: its record's, or `SIGTERM`. The pod's events report an unknown one.
pub(crate) fn stop_signal(named: Option<&String>) -> u32 {
    let number = named.and_then(|name| signal::number(name)).and_then(|number| u32::try_from(number).ok());
    number.unwrap_or(SIGTERM)
}
