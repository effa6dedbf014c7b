//! Hook and probe state of one container instance.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState};

use super::{history::History, restart};

/// Hook and probe state of one container instance. The runtime does not know it, so the agent stores it on the node for
/// the next agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LifecycleState {
    /// State of the `postStart` hook.
    #[serde(default)]
    pub hook: HookState,
    /// Result of the startup probe; `None` while there is none.
    #[serde(default)]
    pub startup: Option<bool>,
    /// Result of the readiness probe; `None` while there is none.
    #[serde(default)]
    pub readiness: Option<bool>,
    /// `true` once the liveness probe has failed. The next agent probes anew.
    #[serde(skip)]
    pub is_dead: bool,
    /// `true` if the instance, or its hook if it has one, began under an earlier agent.
    #[serde(skip)]
    pub is_adopted: bool,
}

/// State of a `postStart` hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum HookState {
    /// Not begun.
    #[default]
    Pending,
    /// Begun, by this agent or by one that has died. If that one has died, this agent runs the hook once more and
    /// ignores a failure.
    Begun {
        /// `true` if this agent runs it.
        #[serde(skip)]
        is_here: bool,
    },
    /// Completed, or failed in a repetition.
    Done,
    /// Failed, with the error message.
    Failed(String),
}

/// Kind of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Startup probe. Until it succeeds, the other probes wait, and the container does not count as started.
    Startup,
    /// Liveness probe. When it fails, the container is restarted.
    Liveness,
    /// Readiness probe. It decides whether the container is ready.
    Readiness,
}

impl ProbeKind {
    /// Returns the name that events use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// Returns the container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&stanchion_pod::Probe> {
        match self {
            Self::Startup => container.startup.as_ref(),
            Self::Liveness => container.liveness.as_ref(),
            Self::Readiness => container.readiness.as_ref(),
        }
    }
}

/// Returns whether a container has hook or probe state to store.
pub fn has_state(container: &Container) -> bool {
    container.post_start.is_some() || has_probes(container)
}

/// Returns whether a container has a probe of any kind.
pub fn has_probes(container: &Container) -> bool {
    container.startup.is_some() || container.liveness.is_some() || container.readiness.is_some()
}

fn runs(info: &ContainerInfo) -> bool {
    matches!(info.state, ContainerState::Running { .. })
}

/// Returns whether a container runs and its `postStart` hook has completed (R-HOOK-1).
pub fn is_up(container: &Container, info: &ContainerInfo, history: &History) -> bool {
    runs(info) && (container.post_start.is_none() || history.lifecycle(&info.id).hook == HookState::Done)
}

/// Returns whether a container is up and its startup probe, if it has one, has succeeded (R-CS-7, R-PRB-6).
pub fn is_started(container: &Container, info: &ContainerInfo, history: &History) -> bool {
    is_up(container, info, history)
        && (container.startup.is_none() || history.lifecycle(&info.id).startup == Some(true))
}

/// Returns whether a container has started and its readiness probe, if it has one, has succeeded (R-CS-6, R-PRB-2).
pub fn is_ready(container: &Container, info: &ContainerInfo, history: &History) -> bool {
    is_started(container, info, history)
        && (container.readiness.is_none() || history.lifecycle(&info.id).readiness == Some(true))
}

/// Returns the reason to stop a running container: the message of the event, and the grace period if it is not the
/// pod's.
pub fn verdict(
    pod: &Pod,
    container: &Container,
    info: &ContainerInfo,
    history: &History,
) -> Option<(String, Option<Duration>)> {
    if !runs(info) {
        return None;
    }
    let state = history.lifecycle(&info.id);
    if matches!(state.hook, HookState::Failed(_)) {
        return Some(("FailedPostStartHook".to_owned(), None));
    }
    let kind = match state {
        LifecycleState { startup: Some(false), .. } => ProbeKind::Startup,
        LifecycleState { is_dead: true, .. } => ProbeKind::Liveness,
        _ => return None,
    };
    let probe = kind.of(container)?;
    let is_init = pod.init_containers.iter().any(|init| init.name == container.name);
    let whose = if is_init { "Init container" } else { "Container" };
    let failed = format!("{whose} {} failed {} probe", container.name, kind.name().to_lowercase());
    // A kubelet omits this part for sidecars.
    let message = match restart::restarts(pod, container, None) && !is_init {
        true => format!("{failed}, will be restarted"),
        false => failed,
    };
    Some((message, probe.grace))
}
