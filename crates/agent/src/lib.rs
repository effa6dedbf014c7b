//! The Stanchion agent: turns manifests and observed runtimes into running pods and their status. It is generic over
//! [`Runtime`](stanchion_runtime::Runtime), and reaches a runtime only through that trait.
//!
//! # Layout
//! In the order of the data flow:
//! - `source`: manifest directories and URLs → [`desired`] state.
//! - `observe`: the pods in each backend, by the latest observation.
//! - `reconcile`: one `worker` for every pod that is wanted or exists.
//! - [`stanchion_plan`]: the next step of one pod, a pure function. The worker performs it, with `images`, `files` and
//!   `env`, if the node has the features (`admission`) and the capacity (`allocations`) for the pod, and its `policy`
//!   permits it.
//! - `credentials`: registry credentials from plugins on the node.
//! - `probe`, `hook`: probes and lifecycle hooks, with the requests of `contact`; [`url`]: addresses of servers.
//! - [`stanchion_plan::status`] → [`stanchion_board`]: status and events. `keeper`: events on disk. [`removed`]:
//!   removed pods.
//! - `node_shutdown`: the end of the pods when the node shuts down.
//! - `sweep`: removal of files that belong to no pod. `preload`: image archives. `processes`: pods that have processes.
//! - [`api`], [`logs`]: the local API and the logs of containers; `links`: links to these logs for log shippers.
//! - [`health`]: health endpoints.
//! - `supervisor`: owner of every task. `agent`: start and end of all tasks.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod admission;
mod agent;
mod allocations;
pub mod api;
pub mod backends;
mod clock;
pub mod config;
mod contact;
mod credentials;
pub mod desired;
mod env;
mod files;
pub mod handle;
pub mod health;
mod hook;
mod id_ranges;
mod images;
mod keeper;
mod limits;
mod links;
mod listener;
pub mod logs;
mod node;
mod node_shutdown;
mod observe;
mod policy;
mod preload;
mod probe;
mod processes;
mod reconcile;
pub mod reference;
pub mod removed;
mod shared;
mod source;
mod starts;
mod supervisor;
mod sweep;
pub mod url;
mod worker;

pub use agent::{Agent, RunError};
pub use clock::{Clock, instant};
pub use supervisor::Supervisor;

use stanchion_runtime::blocking;
