//! The Stanchion agent: from manifests and observed runtimes to running pods and their status. Generic over
//! [`Runtime`](stanchion_runtime::Runtime); does no I/O towards a runtime but through it.
//!
//! # Layout
//! In the order of the data's way:
//! - [`source`]: manifest directories and URLs → what is [`desired`].
//! - [`observe`]: what exists in each backend, the latest look.
//! - [`reconcile`]: one [`worker`] for every pod that is wanted or exists.
//! - [`plan`]: the next step of one pod, a pure function. The worker performs it, with [`images`], [`files`] and [`env`], if
//!   the node can give the pod what it asks for ([`admission`]), allows it ([`policy`]) and has room for it ([`room`]).
//! - [`credentials`]: what programs of the node give for registries.
//! - [`probe`], [`hook`]: what a container is asked and told, by way of [`contact`]; [`url`]: addresses of servers.
//! - [`status`] → [`board`]: what is shown, with [`events`]; [`view`] are its types. [`removed`]: pods that were.
//! - [`ending`]: the pods' end when the node shuts down.
//! - [`sweep`], [`preload`]: what belongs to no pod; image archives. [`survivors`]: which pods have processes at all.
//! - [`api`], [`logs`]: the local API and what containers wrote; [`links`] to that for log shippers.
//! - [`health`]: whether the agent is well.
//! - [`supervisor`]: owns every task. [`agent`]: wires it all.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod admission;
mod agent;
pub mod api;
pub mod backends;
pub mod board;
mod clock;
pub mod config;
mod contact;
mod credentials;
pub mod desired;
mod ending;
mod env;
pub mod events;
mod files;
pub mod handle;
pub mod health;
mod hook;
mod id_ranges;
mod images;
mod limits;
mod links;
mod listener;
pub mod logs;
mod node;
mod observe;
mod plan;
mod policy;
mod preload;
mod probe;
mod reconcile;
pub mod reference;
pub mod removed;
mod room;
mod source;
mod status;
mod supervisor;
mod survivors;
mod sweep;
pub mod url;
pub mod view;
mod worker;

pub use agent::{Agent, RunError};
pub use clock::{Clock, Stamp, instant};
pub use supervisor::Supervisor;
