//! Health of a runtime, reachable or not.

use serde::{Deserialize, Serialize};

/// Health of the runtime behind a backend, and the treatment of its pods during an outage.
///
/// The default adds nothing: the runtime is as [`list`](crate::Runtime::list) finds it, and pods wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// One stable word for the state, for people and scripts, e.g. `k3s-process-no-server`; empty if there is nothing
    /// to add to reachable or not.
    pub state: String,
    /// One sentence about the state, with the remedy if something is wrong.
    pub message: String,
    /// Failover: if set, other backends run the pods while `list` answers
    /// [`Unavailable`](crate::ErrorKind::Unavailable). If not set, the pods wait for this backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

/// Failover policy during an outage of a pod's backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// Policy for the backend's return.
    pub on_return: OnReturn,
}

/// Policy for moved pods when their first backend is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OnReturn {
    /// The pod stays on the new backend until it restarts for another reason.
    #[default]
    Stay,
    /// The pod moves back: the agent stops it on the new backend first, as for a change of its manifest.
    Migrate,
    /// A policy from a backend newer than this agent.
    #[serde(other)]
    Unknown,
}
