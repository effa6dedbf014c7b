//! How a runtime is, whether or not it can be reached.

use serde::{Deserialize, Serialize};

/// How the runtime behind a backend is, and what is to become of its pods while it is away.
///
/// The default says nothing: the runtime is as [`list`](crate::Runtime::list) finds it, and pods wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// One word for the state, stable, for people and their scripts, e.g. `k3s-process-no-server`; empty where there is
    /// nothing to say beyond reachable or not.
    pub state: String,
    /// The state in a sentence, with the way out where something is amiss.
    pub message: String,
    /// Set: while `list` answers [`Unavailable`](crate::ErrorKind::Unavailable), other backends are to run the pods.
    /// Not set: they wait for this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

/// How pods run elsewhere while their backend is away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// Where they run when it is back.
    pub on_return: OnReturn,
}

/// Where a pod runs when the backend that it was moved away from is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OnReturn {
    /// Where it is, until it is started anew for another reason.
    #[default]
    Stay,
    /// There again: it is stopped here first, as for a change of its manifest.
    Migrate,
    /// Said by a backend newer than this agent.
    #[serde(other)]
    Unknown,
}
