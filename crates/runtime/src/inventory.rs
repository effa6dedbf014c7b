//! What exists in a runtime: the truth that the agent works from.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, ImageDigest, SandboxId, labels};

/// Every sandbox and container of ours in one runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Sandboxes, in no particular order.
    pub sandboxes: Vec<SandboxInfo>,
    /// Containers, in no particular order.
    pub containers: Vec<ContainerInfo>,
}

impl Inventory {
    /// What of it is one pod's.
    #[must_use]
    pub fn of_pod(mut self, pod: &PodName) -> Self {
        self.sandboxes.retain(|sandbox| pod.is_in(&sandbox.labels));
        self.containers.retain(|container| pod.is_in(&container.labels));
        self
    }
}

/// A pod's name on its node, which all its incarnations share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name, node suffix included.
    pub name: String,
}

impl PodName {
    /// Whether these labels name it.
    #[must_use]
    pub fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        let is = |label: &str, value: &str| labels.get(label).is_some_and(|it| it == value);
        is(labels::POD_NAME, &self.name) && is(labels::POD_NAMESPACE, &self.namespace)
    }
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// Whether containers can run in it.
    pub state: SandboxState,
    /// Addresses of the pod, the primary one first; empty with the node's network.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// When it was created.
    pub created_at: Timestamp,
    /// How many sandboxes the pod had before.
    #[serde(default)]
    pub attempt: u32,
    /// The labels given at creation.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Whether a sandbox is usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SandboxState {
    /// Namespaces and network are in place.
    Ready,
    /// Stopped, half made, or lost (a reboot, somebody else's clean-up). It can only be removed.
    NotReady {
        /// Why, where the backend knows.
        #[serde(default)]
        reason: String,
    },
    /// Reported by a backend newer than this agent.
    #[serde(other)]
    Unknown,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox it was created in.
    pub sandbox: SandboxId,
    /// Name in the pod.
    pub name: String,
    /// The restart count it was created with.
    #[serde(default)]
    pub attempt: u32,
    /// Reference of the image it runs.
    #[serde(default)]
    pub image: String,
    /// Content address of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<ImageDigest>,
    /// When it was created.
    pub created_at: Timestamp,
    /// What it is doing.
    pub state: ContainerState,
    /// The labels given at creation.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Its first process runs.
    Running {
        /// Since when; `None` where the runtime does not keep it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at: Option<Timestamp>,
    },
    /// It ran, or could not be started, and will not run again.
    Exited {
        /// Exit code, 128 + signal for a signal; `None` when the runtime lost it (a reboot, a killed shim).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// When it had started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at: Option<Timestamp>,
        /// When it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        finished_at: Option<Timestamp>,
        /// The kernel killed a process of it for lack of memory.
        #[serde(default)]
        oom_killed: bool,
    },
    /// The runtime cannot tell, or the backend is newer than this agent.
    #[serde(other)]
    Unknown,
}
