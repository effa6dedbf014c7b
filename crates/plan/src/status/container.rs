//! The status of one container (R-CS).

use std::collections::BTreeMap;

use jiff::Timestamp;
use stanchion_pod::{
    Container,
    k8s_openapi::{
        api::core::v1::{
            Container as WireContainer, ContainerState as WireState, ContainerStateRunning, ContainerStateTerminated,
            ContainerStateWaiting, ContainerStatus, ResourceRequirements, VolumeMount, VolumeMountStatus,
        },
        apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    },
};
use stanchion_runtime::{ContainerInfo, ContainerState};

use super::{Facts, resources};
use crate::{
    history::{History, ImageState},
    lifecycle::{self, HookState},
    mutant::{self, Mutant},
    outcome::PodOutcome,
    reason::Reason,
    restart, restart_all,
    view::Instance,
};

/// Inputs of the statuses of a pod's containers.
pub struct ContainerStatuses<'a> {
    pub facts: &'a Facts<'a>,
    pub outcome: PodOutcome,
    /// `true` once the pod's init containers have completed, or started if sidecars.
    pub is_initialized: bool,
}

impl ContainerStatuses<'_> {
    /// Returns the status of an init container. Other than a sidecar, it is `ready` once it has succeeded, and
    /// `started` while it runs (R-CS-6).
    pub fn init_container(&self, container: &Container) -> ContainerStatus {
        let status = self.container(container);
        if container.runs_always() {
            return status;
        }
        let state = status.state.as_ref();
        ContainerStatus {
            ready: state.and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == 0),
            started: Some(state.is_some_and(|state| state.running.is_some())),
            ..status
        }
    }

    pub fn container(&self, container: &Container) -> ContainerStatus {
        let facts = self.facts;
        let mut instances = facts.view.instances(facts.pod, &container.name);
        let mut newest = instances.pop();
        // While the `postStart` hook of a restarted container runs, the status shows the instance before it.
        if instances.last().is_some_and(|last| newest.is_some_and(|it| self.is_beginning(container, it, *last))) {
            newest = instances.pop();
        }
        let before = instances.pop().map(|instance| instance.container);
        let before =
            before.or_else(|| facts.history.last_exit(facts.pod, &container.name)).map(|before| ended(facts, before));
        let (state, last_state) = match &newest {
            Some(newest) => match self.waiting(container, newest) {
                Some(waiting) => (waiting, Some(ended(facts, newest.container))),
                None => (self.current_state(container, newest.container), before),
            },
            None => (self.waiting_state(container), None),
        };
        let is_init = facts.pod.init_containers.iter().any(|init| init.name == container.name);
        let gone =
            facts.history.attempt(&container.name).filter(|_| newest.is_none() && !(is_init && self.is_initialized));
        let count = newest.map(|newest| newest.container.attempt).or(gone.map(|gone| gone.attempt + 1)).unwrap_or(0);
        let last_state = last_state.or_else(|| (count > 0 && restart_all::is_possible(facts.pod)).then(removed));
        let info = newest.map(|newest| newest.container);
        let is = |holds: fn(&Container, &ContainerInfo, &History) -> bool| {
            info.is_some_and(|info| holds(container, info, facts.history))
        };
        let wire = wire(facts, &container.name);
        let (allocated_resources, resources) = self.resources(container, wire, info);
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone(),
            allocated_resources,
            volume_mounts: wire.and_then(mounts),
            resources,
            image_id: info.and_then(|info| info.image_digest.as_ref()).map(ToString::to_string).unwrap_or_default(),
            container_id: info.and_then(|info| container_id(facts, info)),
            ready: is(lifecycle::is_ready),
            started: Some(is(lifecycle::is_started)),
            restart_count: i32::try_from(count).unwrap_or(i32::MAX),
            state: Some(state),
            last_state: Some(last_state.unwrap_or_default()),
            ..ContainerStatus::default()
        }
    }

    /// Returns the requests that a container was created with, and the resources in force; `None` before its start.
    fn resources(
        &self,
        container: &Container,
        wire: Option<&WireContainer>,
        info: Option<&ContainerInfo>,
    ) -> (Option<BTreeMap<String, Quantity>>, Option<ResourceRequirements>) {
        let made = wire.filter(|_| info.is_some_and(|info| info.state != ContainerState::Created));
        let given = made.map(|made| made.resources.clone().unwrap_or_default());
        let allocated = given.as_ref().and_then(|it| it.requests.clone()).filter(|it| !it.is_empty());
        let runs = info.is_some_and(|info| matches!(info.state, ContainerState::Running { .. }));
        let in_force = |given| if runs { resources::in_force(self.facts.pod, container, given) } else { given };
        (allocated, given.map(in_force))
    }

    /// Returns the waiting state of a container that has exited and cannot restart yet (R-CS-4).
    fn waiting(&self, container: &Container, newest: &Instance<'_>) -> Option<WireState> {
        let facts = self.facts;
        if self.outcome.is_terminal() || !matches!(newest.container.state, ContainerState::Exited { .. }) {
            return None;
        }
        if !restart::wants_start(facts.pod, container, Some(newest), facts.history) {
            return None;
        }
        let due = restart::crash_due(Some(newest), facts.history).filter(|due| *due > facts.now);
        let shows_backoff = due.is_some_and(|due| restart::shows_backoff(due, facts.now));
        if let Some(failure) = facts.history.start_failure(&container.name).filter(|_| !shows_backoff) {
            return Some(wait(failure.reason, Some(failure.message.clone())));
        }
        if let Some(waiting) = image_waiting(facts, container) {
            return Some(waiting);
        }
        if let HookState::Failed(error) = facts.history.lifecycle(&newest.container.id).hook
            && !shows_backoff
        {
            return Some(wait(Reason::PostStartHookError, Some(error)));
        }
        due?;
        let delay = restart::backoff(newest.container, facts.history);
        let pod = facts.pod;
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(delay.as_secs()),
            container.name,
            pod.key.name,
            pod.key.namespace,
            pod.uid
        );
        Some(wait(Reason::CrashLoopBackOff, Some(message)))
    }

    /// Returns whether a restarted container has not completed its `postStart` hook yet.
    fn is_beginning(&self, container: &Container, newest: Instance<'_>, last: Instance<'_>) -> bool {
        let is_here =
            newest.sandbox.id == last.sandbox.id && matches!(last.container.state, ContainerState::Exited { .. });
        let runs = matches!(newest.container.state, ContainerState::Running { .. });
        is_here && runs && !lifecycle::is_up(container, newest.container, self.facts.history)
    }

    /// Returns the state of a container without an instance.
    fn waiting_state(&self, container: &Container) -> WireState {
        let facts = self.facts;
        let is_init = facts.pod.init_containers.iter().any(|init| init.name == container.name);
        // The runtime has forgotten the init container (R-INIT-4).
        if is_init && self.is_initialized && !container.runs_always() {
            return forgotten();
        }
        if let Some(obstacle) = &facts.obstacle {
            return wait(obstacle.reason, Some(obstacle.message.to_string()));
        }
        if let Some(failure) = facts.history.start_failure(&container.name) {
            return wait(failure.reason, Some(failure.message.clone()));
        }
        // A container after the init containers waits for them, not for its image.
        let is_next = self.is_initialized || is_init || facts.pod.init_containers.is_empty();
        if let Some(waiting) = image_waiting(facts, container).filter(|_| is_next) {
            return waiting;
        }
        let message = facts.history.sandbox_failure().map(|failure| failure.message.clone());
        wait(self.first_reason(), message)
    }

    /// Returns the reason of a waiting container for which nothing has been tried (R-CS-2).
    fn first_reason(&self) -> Reason {
        match self.facts.pod.init_containers.is_empty() {
            true => Reason::ContainerCreating,
            false => Reason::PodInitializing,
        }
    }

    fn current_state(&self, container: &Container, info: &ContainerInfo) -> WireState {
        match &info.state {
            ContainerState::Created => wait(self.first_reason(), None),
            // A container has not started while its `postStart` hook runs.
            ContainerState::Running { .. } if !lifecycle::is_up(container, info, self.facts.history) => {
                wait(self.first_reason(), None)
            }
            ContainerState::Running { started_at } => WireState {
                running: Some(ContainerStateRunning { started_at: Some(Time(started_at.unwrap_or(info.created_at))) }),
                ..WireState::default()
            },
            ContainerState::Exited { .. } => ended(self.facts, info),
            ContainerState::Unknown => wait(Reason::ContainerStatusUnknown, None),
        }
    }
}

/// Returns the container in the manifest's own form.
fn wire<'a>(facts: &Facts<'a>, name: &str) -> Option<&'a WireContainer> {
    let spec = facts.pod.wire.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
}

/// Returns the mounts of a container (R-CS-1).
fn mounts(container: &WireContainer) -> Option<Vec<VolumeMountStatus>> {
    let status = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: match (&mount.recursive_read_only, mount.read_only) {
            (Some(wanted), _) => Some(wanted.clone()),
            (None, Some(true)) => Some("Disabled".to_owned()),
            (None, _) => None,
        },
        ..VolumeMountStatus::default()
    };
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    Some(mounts.iter().map(status).collect())
}

/// Returns the terminated state of a container that was removed by `RestartAllContainers` (R-RSP-4).
fn removed() -> WireState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some(Reason::RestartingAllContainers.to_string()),
        message: Some("The container is removed because RestartAllContainers in place".to_owned()),
        ..ContainerStateTerminated::default()
    };
    WireState { terminated: Some(terminated), ..WireState::default() }
}

/// Returns the terminated state of an init container that the runtime has forgotten: it succeeded, as later ones have
/// run.
fn forgotten() -> WireState {
    let message = "Unable to get init container status from container runtime and pod has been initialized, treat it \
                   as exited normally";
    let terminated = ContainerStateTerminated {
        reason: Some(Reason::Completed.to_string()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    WireState { terminated: Some(terminated), ..WireState::default() }
}

/// Returns the waiting state of a container whose image could not be pulled (R-IMG-4). During the next try it keeps the
/// last failure.
fn image_waiting(facts: &Facts<'_>, container: &Container) -> Option<WireState> {
    let (need, state) = facts.history.missing_image(facts.pod, container)?;
    let (image, failure) = (need.image, state.failure()?);
    match (failure.reason, &state) {
        (Reason::ErrImagePull, ImageState::Failed(failure)) if !failure.is_new(facts.now) => {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
            Some(wait(Reason::ImagePullBackOff, Some(message)))
        }
        (reason, _) => Some(wait(reason, Some(failure.message.clone()))),
    }
}

/// Returns the termination message of a container, cut to its share of the 12 KiB that a status has for them
/// (R-TMSG-2).
fn termination_message(facts: &Facts<'_>, info: &ContainerInfo) -> Option<String> {
    const MESSAGES: usize = 12 << 10;
    let mut message = facts.history.message(&info.id).filter(|message| !message.is_empty())?;
    let share = MESSAGES / facts.pod.all_containers().count().max(1);
    if message.len() > share {
        message = &message[..(0..=share).rev().find(|end| message.is_char_boundary(*end))?];
    }
    Some(message.to_owned())
}

/// Returns the terminated state of a container (R-TERM-8).
fn ended(facts: &Facts<'_>, info: &ContainerInfo) -> WireState {
    let ContainerState::Exited { code, started_at, finished_at, oom_killed } = &info.state else {
        return WireState::default();
    };
    let unstarted = facts.history.unstarted(&info.id).map(|why| why.message.clone());
    let (reason, message) = match code {
        Some(_) if unstarted.is_some() => (Reason::StartError, None),
        None => (Reason::ContainerStatusUnknown, Some("The container could not be located; how it ended is not known")),
        Some(_) if *oom_killed => (Reason::OomKilled, None),
        Some(0) => (Reason::Completed, None),
        Some(_) => (Reason::Error, None),
    };
    let time = |at: Option<Timestamp>| Some(Time(at?));
    WireState {
        terminated: Some(ContainerStateTerminated {
            container_id: container_id(facts, info),
            exit_code: code.unwrap_or(137),
            reason: Some(reason.to_string()),
            message: unstarted.or_else(|| termination_message(facts, info)).or(message.map(str::to_owned)),
            started_at: time(started_at.or(Some(info.created_at))),
            finished_at: time(*finished_at),
            signal: None,
        }),
        ..WireState::default()
    }
}

fn wait(reason: Reason, message: Option<String>) -> WireState {
    let reason = Some(reason.to_string()).filter(|_| !mutant::is_on(Mutant::HidesReasons));
    let waiting = ContainerStateWaiting { reason, message };
    WireState { waiting: Some(waiting), ..WireState::default() }
}

/// Returns a container's id with the name of its runtime (R-CS-1).
fn container_id(facts: &Facts<'_>, info: &ContainerInfo) -> Option<String> {
    (!facts.runtime.is_empty()).then(|| format!("{}://{}", facts.runtime, info.id))
}

/// Formats whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s` (R-BCK-4).
fn go_duration(seconds: u64) -> String {
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_read_as_in_go() {
        assert_eq!([10, 160, 300].map(super::go_duration), ["10s", "2m40s", "5m0s"]);
    }
}
