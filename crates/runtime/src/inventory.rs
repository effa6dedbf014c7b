//! Inventory of a runtime: the state that the agent works from.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, ImageDigest, SandboxId, labels};

/// All of Stanchion's sandboxes and containers in one runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Sandboxes, in no particular order.
    pub sandboxes: Vec<SandboxInfo>,
    /// Containers, in no particular order.
    pub containers: Vec<ContainerInfo>,
}

impl Inventory {
    /// Keeps only the sandboxes and containers of one pod.
    #[must_use]
    pub fn of_pod(mut self, pod: &PodName) -> Self {
        self.sandboxes.retain(|sandbox| pod.is_in(&sandbox.labels));
        self.containers.retain(|container| pod.is_in(&container.labels));
        self
    }
}

/// Name of a pod on its node, shared by all its incarnations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, node suffix included.
    pub name: String,
}

impl PodName {
    /// Returns whether these labels name this pod.
    #[must_use]
    pub fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        let is = |label: &str, value: &str| labels.get(label).is_some_and(|it| it == value);
        is(labels::POD_NAME, &self.name) && is(labels::POD_NAMESPACE, &self.namespace)
    }
}

/// A sandbox as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Id of the sandbox.
    pub id: SandboxId,
    /// State, which says whether containers can run in it.
    pub state: SandboxState,
    /// Addresses of the pod, the primary one first; empty with the node's network.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// Number of earlier sandboxes of the pod.
    #[serde(default)]
    pub attempt: u32,
    /// The labels given at creation.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// State of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SandboxState {
    /// Namespaces and network are in place.
    Ready,
    /// Stopped, half made, or lost (a reboot, somebody else's clean-up). It can only be removed.
    NotReady {
        /// Cause, if the backend knows it.
        #[serde(default)]
        reason: String,
    },
    /// A state from a backend newer than this agent.
    #[serde(other)]
    Unknown,
}

/// A container as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Id of the container.
    pub id: ContainerId,
    /// Sandbox that it was created in.
    pub sandbox: SandboxId,
    /// Name in the pod.
    pub name: String,
    /// Restart count that it was created with.
    #[serde(default)]
    pub attempt: u32,
    /// Reference of its image.
    #[serde(default)]
    pub image: String,
    /// Content address of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<ImageDigest>,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// State of the container.
    pub state: ContainerState,
    /// The labels given at creation.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ContainerState {
    /// The container was created and not started.
    Created,
    /// Its first process runs.
    Running {
        /// Start time; `None` if the runtime does not keep it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at: Option<Timestamp>,
    },
    /// It ran, or could not be started, and will not run again.
    Exited {
        /// Exit code, 128 + signal for a signal; `None` when the runtime lost it (a reboot, a killed shim).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// Start time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at: Option<Timestamp>,
        /// End time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        finished_at: Option<Timestamp>,
        /// `true`: the kernel's OOM killer killed one of its processes.
        #[serde(default)]
        oom_killed: bool,
    },
    /// The runtime cannot tell, or the backend is newer than this agent.
    #[serde(other)]
    Unknown,
}
