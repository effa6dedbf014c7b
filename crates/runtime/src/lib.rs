//! The contract between the Stanchion agent and a container runtime backend.
//!
//! A backend implements [`Runtime`] for one container runtime; the agent drives every backend through this trait and
//! knows nothing else of it. All requests and answers are plain data with a stable JSON form, because they also cross
//! the library boundary (`stanchion-abi`). The words are those of Kubernetes' CRI: a *sandbox* is the environment that
//! the containers of one pod share, a *container* is one process tree in it, an *image* holds the container's files.
//!
//! # Layout
//! - [`Runtime`]: the trait, with one method per verb.
//! - [`ids`](SandboxId), [`sandbox`](SandboxConfig), [`container`](ContainerConfig), [`security`](Security),
//!   [`image`](PullImage), [`inventory`](Inventory), [`event`](Event), [`exec`](ExecRequest), [`stats`](Stats),
//!   [`version`](Version), [`health`](Health): the data.
//! - [`clock`]: wall-clock time; with the feature `instant`, also monotonic time.
//! - `blocking` (feature): blocking work beside async tasks.
//! - [`Error`] and its closed [`ErrorKind`]: the basis of the agent's decisions.
//! - `testing` (feature): `FakeRuntime` with a fault script, and the conformance suite every backend must pass.
//!
//! # Wire form
//! JSON. Unknown fields are ignored, fields added after 1.0 have a default, durations are milliseconds, timestamps are
//! RFC 3339, sizes are bytes, ids are opaque strings. No field is ever renamed or retyped.

#[cfg(feature = "blocking")]
mod blocking;
pub mod clock;
mod container;
mod error;
mod event;
mod exec;
mod health;
mod ids;
mod image;
mod inventory;
pub mod labels;
mod limits;
mod millis;
mod open;
mod runtime;
mod sandbox;
mod security;
pub mod signal;
mod stats;
#[cfg(feature = "testing")]
#[allow(clippy::disallowed_methods, reason = "tests measure, and fake programs live by themselves")]
pub mod testing;
mod version;

#[cfg(feature = "blocking")]
pub use blocking::blocking;
pub use container::{
    ContainerConfig, EnvVar, HugepageLimit, ImageMount, LinuxResources, Mount, MountPropagation, RecursiveReadOnly,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventKind};
pub use exec::{Descendants, ExecRequest, ExecStdio, ExitStatus, TerminalSize};
pub use health::{Failover, Health, OnReturn};
pub use ids::{ContainerId, ExecId, ImageDigest, SandboxId};
pub use image::{
    Image, ImageDetails, ImageStore, ImportImages, Progress, PullImage, PullProgress, RegistryAuth, UnusedImage,
};
pub use inventory::{ContainerInfo, ContainerState, Inventory, PodName, SandboxInfo, SandboxState};
pub use millis::Millis;
pub use open::{NodePaths, OpenRequest};
pub use runtime::Runtime;
pub use sandbox::{IdRange, IpcMode, NetworkMode, PidMode, PortMapping, Protocol, SandboxConfig, Sysctl};
pub use security::{CAPABILITIES, Profile, SeLinux, Security};
pub use stats::{ContainerStats, DiskUsage, Stats};
pub use version::{Capabilities, Version};

/// Returns whether a value is the default, which messages leave out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
