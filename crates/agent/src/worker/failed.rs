//! Failed steps of a worker.

use stanchion_plan::reason::Reason;
use stanchion_runtime::{ContainerId, Error};

/// A failed step: the error, and its reason in the container status.
pub(super) struct Failed {
    pub reason: Reason,
    pub error: Error,
    /// The container that was created and could not be started.
    pub made: Option<ContainerId>,
}

impl Failed {
    /// Makes a failure that leaves no created container.
    pub fn new(reason: Reason, error: Error) -> Self {
        Self { reason, error, made: None }
    }
}
