//! Inventory of sandboxes and containers.

use std::collections::{BTreeMap, HashMap};

use containerd_client::services::v1::{Container, GetRequest, ListTasksRequest};
use futures_util::future::try_join_all;
use stanchion_registry::reference;
use stanchion_sdk::runtime::{
    ContainerId, ContainerInfo, ContainerState, ImageDigest, Inventory, PodName, Result, SandboxId, SandboxInfo,
    SandboxState, labels,
};

use crate::{
    Containerd,
    cgroup::Cgroup,
    client::{failed, is_gone},
    names,
    sandbox::has_pause,
};

/// containerd's task states (containerd.v1.types.Status).
pub(crate) const CREATED: i32 = 1;
pub(crate) const RUNNING: i32 = 2;
const STOPPED: i32 = 3;
const PAUSED: i32 = 4;
const PAUSING: i32 = 5;

/// Task, as containerd lists it.
pub(crate) type Task = containerd_client::types::v1::Process;

impl Containerd {
    pub(crate) async fn inventory(&self) -> Result<Inventory> {
        // Tasks are listed after records: a task that exists throughout is found. One that goes in between counts as
        // ended, which is true; a container that comes in between is not listed yet.
        let records = self.records(vec![of_ours()]).await?;
        let tasks = self.client.tasks().list(self.client.request(ListTasksRequest::default())).await;
        let tasks = tasks.map_err(|status| failed("listing the processes", &status))?.into_inner().tasks;
        let tasks: HashMap<_, _> = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        Ok(self.sorted(records, &tasks))
    }

    /// Lists one pod. containerd asks every shim for each listed process: here only the pod's own.
    pub(crate) async fn inventory_of(&self, pod: &PodName) -> Result<Inventory> {
        let label = |label: &str, value: &str| format!("labels.\"{label}\"==\"{value}\"");
        let (name, namespace) = (label(labels::POD_NAME, &pod.name), label(labels::POD_NAMESPACE, &pod.namespace));
        let records = self.records(vec![format!("{},{name},{namespace}", of_ours())]).await?;
        let has_task = |record: &&Container| {
            record.labels.get(names::KIND).is_some_and(|kind| kind == "container") || has_pause(record)
        };
        let tasks = records.iter().filter(has_task).map(|record| self.task(&record.id));
        let tasks = try_join_all(tasks).await?.into_iter().flatten().map(|task| (task.id.clone(), task)).collect();
        Ok(self.sorted(records, &tasks))
    }

    /// Returns a container's task; `None` if containerd knows none.
    pub(crate) async fn task(&self, id: &str) -> Result<Option<Task>> {
        let request = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        match self.client.tasks().get(self.client.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().process),
            Err(status) if is_gone(&status) => Ok(None),
            Err(status) => Err(failed(format!("looking up the process of container {id}"), &status)),
        }
    }

    fn sorted(&self, records: Vec<Container>, tasks: &HashMap<String, Task>) -> Inventory {
        let mut inventory = Inventory::default();
        for record in records {
            match record.labels.get(names::KIND).map(String::as_str) {
                Some("sandbox") => {
                    let pause = tasks.get(&record.id);
                    inventory.sandboxes.push(self.sandbox_info(record, pause));
                }
                Some("container") => {
                    let task = tasks.get(&record.id);
                    inventory.containers.push(container_info(record, task));
                }
                _ => {}
            }
        }
        inventory
    }

    fn sandbox_info(&self, record: Container, pause: Option<&Task>) -> SandboxInfo {
        let label = |label: &str| record.labels.get(label).map(String::as_str).unwrap_or_default();
        let state = match self.sandbox_fault(&record, pause) {
            None => SandboxState::Ready,
            Some(reason) => SandboxState::NotReady { reason: reason.to_owned() },
        };
        SandboxInfo {
            addresses: label(names::ADDRESSES).split(',').filter_map(|address| address.parse().ok()).collect(),
            attempt: label(names::ATTEMPT).parse().unwrap_or(0),
            created_at: record.created_at.as_ref().map(timestamp).unwrap_or_default(),
            state,
            labels: given(record.labels),
            id: SandboxId(record.id),
        }
    }
}

fn container_info(record: Container, task: Option<&Task>) -> ContainerInfo {
    let label = |label: &str| record.labels.get(label).cloned().unwrap_or_default();
    ContainerInfo {
        state: state(&record, task),
        sandbox: SandboxId(label(names::SANDBOX)),
        name: label(names::NAME),
        attempt: label(names::ATTEMPT).parse().unwrap_or(0),
        image_digest: Some(image_digest(&record.image, &label(names::IMAGE_DIGEST))),
        created_at: record.created_at.as_ref().map(timestamp).unwrap_or_default(),
        image: record.image,
        labels: given(record.labels),
        id: ContainerId(record.id),
    }
}

/// Returns an image as repository and digest, as kubelets show it: `docker.io/library/redis@sha256:…`.
pub(crate) fn image_digest(reference: &str, digest: &str) -> ImageDigest {
    let (repository, _, _) = reference::split(reference);
    ImageDigest(format!("{repository}@{digest}"))
}

fn state(record: &Container, task: Option<&Task>) -> ContainerState {
    let started_at = record.labels.get(names::STARTED).and_then(|at| at.parse().ok());
    let cgroup = record.labels.get(names::CGROUP).map(|path| Cgroup::at(path));
    let noted = record.labels.contains_key(names::OUT_OF_MEMORY);
    match task {
        // Never started, however far the start got.
        None if started_at.is_none() => ContainerState::Created,
        // The task was lost, with its shim or in a reboot.
        None => ContainerState::Exited { code: None, started_at, finished_at: None, oom_killed: noted },
        Some(task) => match task.status {
            CREATED => ContainerState::Created,
            RUNNING | PAUSED | PAUSING => ContainerState::Running { started_at },
            STOPPED => ContainerState::Exited {
                code: i32::try_from(task.exit_status).ok(),
                started_at,
                finished_at: task.exited_at.as_ref().map(timestamp),
                // The event may be on its way still, or have come while nobody listened; the cgroup knows.
                oom_killed: noted || cgroup.is_some_and(|cgroup| cgroup.is_out_of_memory()),
            },
            // A shim that is too slow for containerd's timeout is no reason to give up a running container.
            _ if cgroup.and_then(|cgroup| cgroup.population()).unwrap_or(0) > 0 => {
                ContainerState::Running { started_at }
            }
            _ => ContainerState::Unknown,
        },
    }
}

/// Returns the filter for Stanchion's records.
pub(crate) fn of_ours() -> String {
    format!("labels.\"{}\"", names::KIND)
}

/// Returns the caller's labels, without Stanchion's own.
pub(crate) fn given(labels: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let begins = |label: &str| [names::KEPT_SNAPSHOT, names::MOUNTED_IMAGE].iter().any(|it| label.starts_with(it));
    let is_ours = |label: &str| names::OURS.contains(&label) || begins(label);
    labels.into_iter().filter(|(label, _)| !is_ours(label)).collect()
}

/// Converts a protobuf timestamp.
pub(crate) fn timestamp(at: &prost_types::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::new(at.seconds, at.nanos).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_its_repository_and_its_content() {
        for reference in ["a.b:5000/c/d:1", "a.b:5000/c/d", "a.b:5000/c/d:1@sha256:2"] {
            assert_eq!(image_digest(reference, "sha256:3").as_str(), "a.b:5000/c/d@sha256:3", "R-CS-9");
        }
    }
}
