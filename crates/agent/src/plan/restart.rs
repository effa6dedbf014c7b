//! Whether and when a container is started again.

use std::time::Duration;

use jiff::Timestamp;
use stanchion_pod::{Container, Pod, RestartPolicy};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxState, labels};

use super::{history::History, view::Instance};
use crate::clock::{later, until};

/// The wait after the second exit; the first restart is immediate (R-BCK-1).
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait (R-BCK-1).
const LONGEST: Duration = Duration::from_secs(300);
/// A container that ran this long starts over (R-BCK-2).
const RESET: Duration = Duration::from_secs(600);

/// Whether a container is to run and does not (R-RSP-1, R-SYNC-6).
pub(crate) fn wants_start(pod: &Pod, newest: Option<&Instance<'_>>, history: &History) -> bool {
    let Some(Instance { container, sandbox }) = newest else { return true };
    if history.is_to_restart(&container.id) || history.is_condemned(&sandbox.id) {
        return true;
    }
    match &container.state {
        ContainerState::Running { .. } => false,
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited { code, .. } => restarts(pod.restart_policy, *code),
    }
}

/// Whether a container that ended like this is started again.
pub(crate) fn restarts(policy: RestartPolicy, code: Option<i32>) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != Some(0),
        RestartPolicy::Never => false,
    }
}

/// When a container that is to run may start; `None` is at once.
pub(crate) fn due(container: &Container, newest: Option<&Instance<'_>>, history: &History) -> Option<Timestamp> {
    let failed = history.start_failure(&container.name).map(|failure| failure.next_try);
    [crash_due(newest, history), failed].into_iter().flatten().max()
}

/// When the back-off after the container's latest end is over.
pub(crate) fn crash_due(newest: Option<&Instance<'_>>, history: &History) -> Option<Timestamp> {
    let Instance { container, sandbox } = newest?;
    // A container that was lost with its sandbox did not crash.
    if history.is_to_restart(&container.id) || history.is_condemned(&sandbox.id) || sandbox.state != SandboxState::Ready
    {
        return None;
    }
    let ContainerState::Exited { finished_at: Some(finished), .. } = container.state else { return None };
    Some(later(finished, backoff(container))).filter(|due| *due > finished)
}

/// How long the restart after this container's end waits, from the note that it was created with (R-BCK-1, R-BCK-2).
pub(crate) fn backoff(container: &ContainerInfo) -> Duration {
    let noted = container.labels.get(labels::BACKOFF_SECONDS).and_then(|seconds| seconds.parse().ok());
    match container.state {
        ContainerState::Exited { finished_at: Some(finished), .. } if until(container.created_at, finished) > RESET => {
            Duration::ZERO
        }
        _ => Duration::from_secs(noted.unwrap_or(0)).min(LONGEST),
    }
}

/// The note for a container that is started after `last`: how long the restart after it will wait.
pub(crate) fn next_backoff(last: Option<&ContainerInfo>) -> Duration {
    match last.map(backoff) {
        None => Duration::ZERO,
        Some(Duration::ZERO) => FIRST,
        Some(backoff) => (backoff * 2).min(LONGEST),
    }
}
