//! The phase of a pod (R-PH-1 to R-PH-5).

use stanchion_pod::{
    Pod,
    k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus},
};

use crate::outcome::PodOutcome;

/// Phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A container has not started yet.
    Pending,
    /// All containers have started, and one runs or will restart.
    Running,
    /// All containers have exited with code 0 and will not restart.
    Succeeded,
    /// All containers have ended, and one has failed.
    Failed,
}

impl Phase {
    /// Returns Kubernetes' name of the phase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Returns whether no container of the pod will run any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// State of a container, as the phase depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    Ended,
}

pub fn phase(pod: &Pod, outcome: PodOutcome, inits: &[ContainerStatus], containers: &[ContainerStatus]) -> Phase {
    let is_sidecar = |init: &&ContainerStatus| pod.container(&init.name).is_some_and(|init| init.runs_always());
    let (sidecars, plain): (Vec<_>, Vec<_>) = inits.iter().partition(is_sidecar);
    if matches!(outcome, PodOutcome::DeadlineExceeded | PodOutcome::Evicted | PodOutcome::ShutDown)
        || (outcome == PodOutcome::Failed && plain.iter().any(|init| has_failed(init)))
    {
        return Phase::Failed;
    }
    let has_begun = containers.iter().any(|container| stage(container) != Stage::Waiting);
    let is_pending = plain.iter().any(|init| !init.ready && !has_failed(init))
        || (!has_begun && sidecars.iter().any(|sidecar| sidecar.started != Some(true)))
        || containers.iter().chain(sidecars.iter().copied()).any(|it| stage(it) == Stage::Waiting);
    if is_pending {
        return Phase::Pending;
    }
    let mut all = containers.iter().chain(sidecars.iter().copied());
    match outcome {
        _ if all.any(|container| stage(container) == Stage::Running) => Phase::Running,
        PodOutcome::Active => Phase::Running,
        PodOutcome::Succeeded => Phase::Succeeded,
        PodOutcome::Failed | PodOutcome::DeadlineExceeded | PodOutcome::Evicted | PodOutcome::ShutDown => Phase::Failed,
    }
}

/// Returns the state of a container. One that waits after an exit counts as ended.
fn stage(container: &ContainerStatus) -> Stage {
    let state = container.state.as_ref();
    match () {
        () if state.is_some_and(|state| state.running.is_some()) => Stage::Running,
        () if end(container).is_some() => Stage::Ended,
        () => Stage::Waiting,
    }
}

fn end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let (now, last) = (container.state.as_ref()?, container.last_state.as_ref());
    match (&now.terminated, &now.waiting) {
        (Some(end), _) => Some(end),
        (None, Some(_)) => last?.terminated.as_ref(),
        _ => None,
    }
}

fn has_failed(container: &ContainerStatus) -> bool {
    end(container).is_some_and(|end| end.exit_code != 0)
}
