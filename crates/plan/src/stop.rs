//! Stops of containers: grace period and message.

use std::time::Duration;

use stanchion_runtime::{ContainerId, ContainerInfo, SandboxInfo, labels};

use super::{
    Action,
    mutant::{self, Mutant},
};

/// Longest grace period, seconds. A label may hold more, but an `Instant` cannot be arbitrarily late.
const MAX_SECONDS: u64 = i32::MAX as u64;

/// A container to be stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Id in the runtime.
    pub id: ContainerId,
    /// Grace period, which includes the `preStop` hook. Zero kills at once.
    pub grace: Duration,
    /// Message of the `Killing` event.
    pub message: String,
}

impl Stop {
    /// Makes a stop with the grace period from the container's labels: its manifest may be gone.
    pub fn graceful(container: &ContainerInfo, sandbox: Option<&SandboxInfo>) -> Self {
        let labels = [Some(&container.labels), sandbox.map(|sandbox| &sandbox.labels)];
        let seconds = labels.into_iter().flatten().find_map(|labels| labels.get(labels::GRACE_SECONDS)?.parse().ok());
        let seconds = seconds.filter(|_| !mutant::is_on(Mutant::ForgetsGrace)).unwrap_or(30);
        Self {
            id: container.id.clone(),
            grace: Duration::from_secs(seconds.min(MAX_SECONDS)),
            message: format!("Stopping container {}", container.name),
        }
    }

    /// Replaces the message, and the grace period if one is given.
    pub fn because(self, message: String, grace: Option<Duration>) -> Self {
        Self { message, grace: grace.unwrap_or(self.grace), ..self }
    }
}

/// Plans to stop these containers, if there are any.
pub fn all<'a>(
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
