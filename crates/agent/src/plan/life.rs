//! What the agent has learnt of one life of a container: how its hook ended, and what its probes say.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState};

use super::{history::History, restart};

/// One life of a container, as far as the runtime does not know it. Kept on the node, for the agent's next life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Its `postStart` hook.
    #[serde(default)]
    pub hook: Hook,
    /// What its startup probe found; nothing is known yet where that is `None`.
    #[serde(default)]
    pub startup: Option<bool>,
    /// What its readiness probe says.
    #[serde(default)]
    pub readiness: Option<bool>,
    /// Whether its liveness probe has given it up. Learnt anew by the next agent.
    #[serde(skip)]
    pub is_dead: bool,
    /// Whether it began under another agent.
    #[serde(skip)]
    pub is_adopted: bool,
}

/// How far a `postStart` hook is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Hook {
    /// Not begun.
    #[default]
    Pending,
    /// Begun, by this agent or by one that has died: then it is begun once more, and it does not matter how that ends.
    Begun {
        /// Whether this agent runs it.
        #[serde(skip)]
        is_here: bool,
    },
    /// Over and well.
    Done,
    /// Failed, with what it said.
    Failed(String),
}

/// The kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    /// Until it succeeds the others wait, and the container has not started.
    Startup,
    /// When it fails the container is started again.
    Liveness,
    /// Says whether the container is ready.
    Readiness,
}

impl ProbeKind {
    /// In the words of an event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The probe of that kind.
    pub fn of(self, container: &Container) -> Option<&stanchion_pod::Probe> {
        match self {
            Self::Startup => container.startup.as_ref(),
            Self::Liveness => container.liveness.as_ref(),
            Self::Readiness => container.readiness.as_ref(),
        }
    }
}

/// Whether the agent has to remember anything of the lives of this container.
pub(crate) fn is_noted(container: &Container) -> bool {
    container.post_start.is_some() || has_probes(container)
}

pub(crate) fn has_probes(container: &Container) -> bool {
    container.startup.is_some() || container.liveness.is_some() || container.readiness.is_some()
}

fn runs(info: &ContainerInfo) -> bool {
    matches!(info.state, ContainerState::Running { .. })
}

/// Whether a container runs and its `postStart` hook is over (R-HOOK-1).
pub(crate) fn is_up(container: &Container, info: &ContainerInfo, history: &History) -> bool {
    runs(info) && (container.post_start.is_none() || history.life(&info.id).hook == Hook::Done)
}

/// Whether a container is up and its startup probe, if it has one, has succeeded (R-CS-7, R-PRB-6).
pub(crate) fn is_started(container: &Container, info: &ContainerInfo, history: &History) -> bool {
    is_up(container, info, history) && (container.startup.is_none() || history.life(&info.id).startup == Some(true))
}

/// Whether a container has started and its readiness probe, if it has one, says that it is ready (R-CS-6, R-PRB-2).
pub(crate) fn is_ready(container: &Container, info: &ContainerInfo, history: &History) -> bool {
    is_started(container, info, history)
        && (container.readiness.is_none() || history.life(&info.id).readiness == Some(true))
}

/// Why a running container is to be stopped: the event's words, and the grace if it is not the pod's.
pub(crate) fn verdict(
    pod: &Pod,
    container: &Container,
    info: &ContainerInfo,
    history: &History,
) -> Option<(String, Option<Duration>)> {
    if !runs(info) {
        return None;
    }
    let life = history.life(&info.id);
    if matches!(life.hook, Hook::Failed(_)) {
        return Some(("FailedPostStartHook".to_owned(), None));
    }
    let kind = match life {
        Life { startup: Some(false), .. } => ProbeKind::Startup,
        Life { is_dead: true, .. } => ProbeKind::Liveness,
        _ => return None,
    };
    let probe = kind.of(container)?;
    let is_init = pod.init_containers.iter().any(|init| init.name == container.name);
    let whose = if is_init { "Init container" } else { "Container" };
    let failed = format!("{whose} {} failed {} probe", container.name, kind.name().to_lowercase());
    // A kubelet does not say it of sidecars.
    let message = match restart::restarts(pod, container, None) && !is_init {
        true => format!("{failed}, will be restarted"),
        false => failed,
    };
    Some((message, probe.grace))
}
