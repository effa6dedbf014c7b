//! A test node: its own containerd and registry, an agent, and functions that read what really runs.
//!
//! All files of a [`Node`] are in one directory below the temp directory, and its bridge and cgroups bear its name. So
//! many nodes run side by side, none touches the machine's own daemons, and the next run finds and removes what a
//! killed run left behind ([`slot::sweep`]).
//!
//! # Layout
//!
//! - [`tools`] finds programs, [`process`] runs them; [`wait`] polls; [`http`] is a client, [`site`] a server.
//! - [`layer`], [`image`], [`fixtures`] make OCI images from Debian packages of this machine. [`registry`] serves them,
//!   [`proxy`] spoils its answers, [`hostile`] serves malformed images, [`authority`] issues certificates.
//! - [`slot`]: directory and names of a node. [`remains`]: everything on the machine under those names.
//! - [`containerd`], and [`docker`] on top of it: daemons (`daemon`). [`ctr`]: containerd's client. [`events`]: its
//!   events. [`proc`]: processes, mounts and cgroups as the kernel shows them.
//! - [`k3s`]: the layout of K3s, with a real containerd at its socket.
//! - [`cgroups`]: the cgroup driver of the containers.
//! - [`view`]: either runtime's own view of the pods. [`on_each_runtime!`] makes tests for both.
//! - [`node`] puts it together with [`agent`], the program under test.
//! - [`golden`]: recordings of a kubelet, and their comparison with a node.
//! - [`rules`]: the tests that prove each rule of `docs/rules.md`. [`limits`]: the page `docs/limits.md`.
//! - [`soak`]: edits, kills and hostile input at random, for minutes or hours.
//! - [`pods`]: manifests. [`redis`]: a client. [`random`]: seeded random numbers.

pub mod agent;
pub mod authority;
pub mod cgroups;
pub mod containerd;
pub mod ctr;
mod daemon;
pub mod docker;
mod each;
pub mod events;
pub mod fixtures;
pub mod golden;
pub mod hostile;
pub mod http;
pub mod image;
pub mod k3s;
pub mod layer;
pub mod limits;
pub mod node;
pub mod pods;
pub mod proc;
pub mod process;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod registry;
pub mod remains;
pub mod rules;
pub mod site;
pub mod slot;
pub mod soak;
pub mod tools;
pub mod view;
pub mod wait;

pub use node::{Node, NodeBuilder};
pub use view::Backend;
pub use wait::until;
