//! What is stopped, and how.

use std::time::Duration;

use stanchion_runtime::{ContainerId, ContainerInfo, SandboxInfo, labels};

use super::Action;

/// The longest grace, seconds, whatever a label says: a clock cannot be more than so much later.
const LONGEST: u64 = i32::MAX as u64;

/// A container to be stopped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stop {
    pub id: ContainerId,
    /// How long it may take from the beginning, `preStop` hook and all. Zero kills at once.
    pub grace: Duration,
    /// Why, in the words of an event.
    pub message: String,
}

impl Stop {
    /// With the grace that the container was created with: its manifest may be gone.
    pub fn graceful(container: &ContainerInfo, sandbox: Option<&SandboxInfo>) -> Self {
        let labels = [Some(&container.labels), sandbox.map(|sandbox| &sandbox.labels)];
        let seconds = labels.into_iter().flatten().find_map(|labels| labels.get(labels::GRACE_SECONDS)?.parse().ok());
        Self {
            id: container.id.clone(),
            grace: Duration::from_secs(seconds.unwrap_or(30).min(LONGEST)),
            message: format!("Stopping container {}", container.name),
        }
    }

    /// For another reason, with another grace if there is one.
    pub fn because(self, message: String, grace: Option<Duration>) -> Self {
        Self { message, grace: grace.unwrap_or(self.grace), ..self }
    }
}

/// Stops all of these, if there are any.
pub(crate) fn all<'a>(
    backend: &str,
    containers: impl Iterator<Item = &'a ContainerInfo>,
    sandboxes: &[SandboxInfo],
) -> Option<Action> {
    let stop = |container: &ContainerInfo| {
        Stop::graceful(container, sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox))
    };
    let stops: Vec<_> = containers.map(stop).collect();
    (!stops.is_empty()).then(|| Action::StopContainers { backend: backend.to_owned(), stops })
}
