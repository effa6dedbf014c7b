//! The library for authors of Stanchion backends.
//!
//! Implement [`Backend`] and [`Runtime`](runtime::Runtime) for a type and write
//! `stanchion_sdk::export_backend!("name", Type);` in a crate of `crate-type = ["cdylib", "rlib"]`. This crate does
//! everything about the library boundary: a tokio runtime of its own, decoding, cancellation, panics, log forwarding.
//!
//! Inside a backend do not: handle signals, change the working directory, umask or environment, fork without exec,
//! write to the standard streams, exit the process, or wait for children other than your own. The agent is one process
//! that several backends share.
//!
//! # Layout
//! - [`Backend`], [`export_backend!`]: the interface for authors. `guest`: the four functions behind the descriptor.
//! - `dispatch`: from a numbered call to a method of the trait. `reply`: exactly one answer per call. `log`:
//!   forwarding.
//! - [`changes`]: one change at a time per sandbox or container, each to its end. [`clock`]: the time.
//!   [`blocking`]: work that would hold up the async threads.
//! - `cgroup`, `confinement`, `descendants`, `disk`, `layers`, `limits`, `names`, `oci`, `privileges`, `proc`,
//!   `settings`, `shim`, `users`: shared code of backends for a runtime on this node (feature `node`).
//! - `archive`: image archives (feature `archives`).
//! - `pause`: the program that holds a pod's namespaces (feature `pause`).
//! - `testing`: FakeRuntime as a backend (feature `testing`).

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

#[cfg(feature = "archives")]
pub mod archive;
#[cfg(feature = "node")]
pub mod cgroup;
pub mod changes;
pub mod clock;
#[cfg(feature = "node")]
pub mod confinement;
#[cfg(feature = "node")]
pub mod descendants;
#[cfg(feature = "node")]
pub mod disk;
mod dispatch;
mod guest;
#[cfg(feature = "node")]
pub mod layers;
#[cfg(feature = "node")]
pub mod limits;
mod log;
#[cfg(feature = "node")]
pub mod names;
#[cfg(feature = "node")]
pub mod oci;
#[cfg(feature = "pause")]
pub mod pause;
#[cfg(feature = "node")]
pub mod privileges;
#[cfg(feature = "node")]
pub mod proc;
mod reply;
#[cfg(feature = "node")]
pub mod settings;
#[cfg(feature = "node")]
pub mod shim;
#[cfg(feature = "testing")]
mod testing;
#[cfg(feature = "node")]
pub mod users;

use std::future::Future;

use serde::de::DeserializeOwned;

pub use guest::descriptor;
pub use stanchion_abi as abi;
pub use stanchion_runtime::{self as runtime, blocking};
#[cfg(feature = "testing")]
pub use testing::FakeConfig;

/// A runtime in a backend library.
pub trait Backend: runtime::Runtime + Sized {
    /// Type of the table `[backend.<name>]`. Deny unknown fields, so that a typo is an error.
    type Config: DeserializeOwned + Send + 'static;

    /// Opens the backend. An absent daemon is no error here, but one of the calls that need it.
    fn open(config: Self::Config, node: runtime::NodePaths) -> impl Future<Output = runtime::Result<Self>> + Send;
}

/// Exports a backend under a name of lower-case letters, digits and `_`, at most 32, beginning with a letter.
#[macro_export]
macro_rules! export_backend {
    ($name:literal, $backend:ty) => {
        const _: () = {
            #[unsafe(export_name = concat!("stanchion_backend_", $name))]
            static DESCRIPTOR: $crate::abi::Backend = $crate::descriptor::<$backend>($name, env!("CARGO_PKG_VERSION"));
        };
    };
}
