//! Lines that a test can break on purpose, to prove that the simulation notices. Without the feature `mutants` all of
//! them are whole, and the compiler drops the broken ones.

/// A broken line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A pod that moves is not stopped first where it was (I1).
    StaysBehind,
    /// The containers in a lost sandbox are not stopped before the next one is made (I1).
    ForgetsLostSandboxes,
    /// A new agent does not read where earlier ones put a pod (I1).
    ForgetsRecords,
    /// A pod moves although its processes live (I1).
    MovesWithProcesses,
    /// A source that cannot be read counts as an empty one (I2).
    TakesMissingForEmpty,
    /// A removed pod is not stopped (I2).
    KeepsRemoved,
    /// A probe that could not be run counts as a failure (I3).
    DoubtsProbes,
    /// A container is restarted without back-off (I4).
    RestartsAtOnce,
    /// A container is restarted whatever its policy says (I4).
    RestartsAlways,
    /// The grace period of a stop is not the pod's (I5).
    ForgetsGrace,
    /// Sidecars do not wait for the other containers to stop (I5).
    StopsSidecarsToo,
    /// Sidecars are stopped although another container could not be stopped (I5). The simulation has found this.
    StopsSidecarsInVain,
    /// `preStop` hooks are left out (I5).
    SkipsPreStop,
    /// Files of removed pods are left (I6).
    LeavesFiles,
    /// Sandboxes of removed pods are left (I6).
    LeavesSandboxes,
    /// A running pod is not shown again until it is gone (I7).
    ShowsOnce,
    /// The reason of a waiting container is left out (I7).
    HidesReasons,
    /// A pod waits for backends that it does not need (I8).
    WaitsForAll,
    /// A hung observation is followed by a pause as long (I8). The simulation has found this.
    PausesLong,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 19] = [
        Self::StaysBehind,
        Self::ForgetsLostSandboxes,
        Self::ForgetsRecords,
        Self::MovesWithProcesses,
        Self::TakesMissingForEmpty,
        Self::KeepsRemoved,
        Self::DoubtsProbes,
        Self::RestartsAtOnce,
        Self::RestartsAlways,
        Self::ForgetsGrace,
        Self::StopsSidecarsToo,
        Self::StopsSidecarsInVain,
        Self::SkipsPreStop,
        Self::LeavesFiles,
        Self::LeavesSandboxes,
        Self::ShowsOnce,
        Self::HidesReasons,
        Self::WaitsForAll,
        Self::PausesLong,
    ];
}

#[cfg(feature = "mutants")]
static CHOSEN: std::sync::OnceLock<Mutant> = std::sync::OnceLock::new();

/// Breaks a line for the rest of the process. Only the first choice counts.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Mutant) {
    CHOSEN.get_or_init(|| mutant);
}

/// Returns whether a line is broken.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_on(mutant: Mutant) -> bool {
    CHOSEN.get() == Some(&mutant)
}

/// Returns whether a line is broken: without the feature, none is.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is_on(_mutant: Mutant) -> bool {
    false
}
