//! A node to test on: a containerd of its own, a registry of its own, an agent, and looks at what really runs.
//!
//! Everything of a [`Node`] lives in one directory of the temp directory and carries its name (bridge, cgroups), so that
//! many run side by side, nothing of the machine's own daemons is touched, and what a killed run left behind is found and
//! removed by the next ([`slot::sweep`]).
//!
//! # Layout
//!
//! - [`tools`] finds the programs that are run; [`process`] runs them; [`wait`] awaits; [`http`] asks, [`site`] answers.
//! - [`layer`], [`image`], [`fixtures`]: OCI images made from Debian packages of this machine; [`registry`] serves them,
//!   [`proxy`] spoils what it serves, [`hostile`] serves what nobody should, [`authority`] makes certificates.
//! - [`slot`] the directory and names of a node; [`remains`] what is on the machine under those names.
//! - [`containerd`] and [`docker`] above it, each a daemon (`daemon`), [`ctr`] what the one says and [`events`] what it reports,
//!   [`proc`] what the kernel says.
//! - [`k3s`] the layout of K3s, with a real containerd at its socket.
//! - [`cgroups`] who makes those of the containers.
//! - [`view`] what either runtime says of the pods; [`on_each_runtime!`] makes tests for both.
//! - [`node`] puts it together with [`agent`], the program under test.
//! - [`golden`] recordings of a kubelet, and how they are compared with what a node shows.
//! - [`rules`] which tests prove which rule of `docs/rules.md`; [`limits`] what `docs/limits.md` lists.
//! - [`soak`]: edits, kills and hostile input at random, for minutes or hours.
//! - [`pods`] manifests; [`redis`] the client; [`random`] seeded chance.

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
