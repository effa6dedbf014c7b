//! What there is.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::OnceLock,
};

use containerd_client::services::v1::{Container, ListContainersRequest, ListTasksRequest};
use jiff::Timestamp;
use stanchion_sdk::runtime::{
    ContainerId, ContainerInfo, ContainerState, ImageDigest, Inventory, Result, SandboxId, SandboxInfo, SandboxState,
};

use crate::{Containerd, client::failed, names, sandbox::timestamp};

/// containerd's task states (containerd.v1.types.Status).
const CREATED: i32 = 1;
const RUNNING: i32 = 2;
const STOPPED: i32 = 3;
const PAUSED: i32 = 4;
const PAUSING: i32 = 5;

/// A task as containerd lists it.
type Task = containerd_client::types::v1::Process;

impl Containerd {
    pub(crate) async fn inventory(&self) -> Result<Inventory> {
        self.namespace().await?;
        let filters = vec![format!("labels.\"{}\"", names::KIND)];
        // Tasks after records: a container that is made in between is listed as created, which is true of it.
        let records = self.client.containers().list(self.client.request(ListContainersRequest { filters })).await;
        let records = records.map_err(|status| failed("listing the containers", &status))?.into_inner().containers;
        let tasks = self.client.tasks().list(self.client.request(ListTasksRequest::default())).await;
        let tasks = tasks.map_err(|status| failed("listing the processes", &status))?.into_inner().tasks;
        let tasks: HashMap<_, _> = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        let mut inventory = Inventory::default();
        for record in records {
            match record.labels.get(names::KIND).map(String::as_str) {
                Some("sandbox") => inventory.sandboxes.push(self.sandbox_info(record)),
                Some("container") => {
                    let task = tasks.get(&record.id);
                    inventory.containers.push(container_info(record, task));
                }
                _ => {}
            }
        }
        Ok(inventory)
    }

    fn sandbox_info(&self, record: Container) -> SandboxInfo {
        let label = |label: &str| record.labels.get(label).map(String::as_str).unwrap_or_default();
        let own_network = label(names::NETWORK) != "host";
        let not_ready = |reason: &str| SandboxState::NotReady { reason: reason.to_owned() };
        let state = match () {
            () if label(names::READY) != "true" => not_ready("it was not made to the end"),
            () if !self.namespaces(&record.id).are_pinned(own_network) => {
                not_ready("its namespaces are gone: it was stopped, or the node was restarted")
            }
            () => SandboxState::Ready,
        };
        SandboxInfo {
            addresses: label(names::ADDRESSES).split(',').filter_map(|address| address.parse().ok()).collect(),
            attempt: label(names::ATTEMPT).parse().unwrap_or(0),
            created_at: record.created_at.as_ref().map(timestamp).unwrap_or_default(),
            state,
            labels: foreign(record.labels),
            id: SandboxId(record.id),
        }
    }
}

fn container_info(record: Container, task: Option<&Task>) -> ContainerInfo {
    let label = |label: &str| record.labels.get(label).cloned().unwrap_or_default();
    let oom_killed = label(names::OUT_OF_MEMORY) == "true";
    let created_at = record.created_at.as_ref().map(timestamp).unwrap_or_default();
    let state = match task.map(|task| (task, task.status)) {
        Some((_, CREATED)) => ContainerState::Created,
        Some((task, RUNNING | PAUSED | PAUSING)) => ContainerState::Running { started_at: started(task.pid) },
        Some((task, STOPPED)) => ContainerState::Exited {
            code: i32::try_from(task.exit_status).ok(),
            started_at: Some(created_at),
            finished_at: task.exited_at.as_ref().map(timestamp),
            oom_killed,
        },
        Some(_) => ContainerState::Unknown,
        // Lost with its shim or in a reboot, or not made to the end.
        None => ContainerState::Exited { code: None, started_at: Some(created_at), finished_at: None, oom_killed },
    };
    ContainerInfo {
        sandbox: SandboxId(label(names::SANDBOX)),
        name: label(names::NAME),
        attempt: label(names::ATTEMPT).parse().unwrap_or(0),
        image_digest: Some(ImageDigest(label(names::IMAGE_DIGEST))),
        image: record.image,
        created_at,
        state,
        labels: foreign(record.labels),
        id: ContainerId(record.id),
    }
}

/// The labels that we were given.
fn foreign(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    const OURS: [&str; 12] = [
        names::KIND,
        names::ATTEMPT,
        names::SANDBOX,
        names::NAME,
        names::ADDRESSES,
        names::READY,
        names::NETWORK,
        names::CGROUP,
        names::HOSTNAME,
        names::IMAGE_DIGEST,
        names::STOP_SIGNAL,
        names::OUT_OF_MEMORY,
    ];
    labels.into_iter().filter(|(label, _)| !OURS.contains(&label.as_str())).collect()
}

/// When a process started: field 22 of `/proc/<pid>/stat`, in ticks since the node did (proc_pid_stat(5)).
fn started(pid: u32) -> Option<Timestamp> {
    static BOOT: OnceLock<Option<i64>> = OnceLock::new();
    let boot = *BOOT.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    });
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: i64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    // The kernel shows ticks of 10 ms to programs, whatever it counts by itself.
    Timestamp::from_millisecond(boot? * 1000 + ticks * 10).ok()
}
