//! The client of image registries: it finds an image for this node, and fetches what is missing of it.
//!
//! Registries are others: what they send is bounded in size and time, credentials go only to the host that they are
//! for, and no message contains them (I10).
//!
//! # Layout
//! - [`reference`]: image names. [`RegistryConfig`]: settings of one registry.
//! - [`Registries`]: hosts to ask for an image, and what is kept from one pull to the next. [`Repository`]: requests to
//!   one of them. `sign_in`: credentials. `tls`: certificates. `transfer`: bounded answers.
//! - [`Repository::find`], [`Repository::fetch`]: an image's manifest, and its blobs into a place for [`Blobs`].
//! - `refusal`: error answers. `retry`: when to ask a busy registry again. [`together`]: the errors of all hosts.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod blobs;
mod config;
mod hosts;
mod limits;
pub mod reference;
mod refusal;
mod repository;
mod retry;
mod sign_in;
mod tls;
mod transfer;

pub use blobs::{Blobs, together};
pub use config::RegistryConfig;
pub use hosts::{Endpoint, Registries};
pub use reference::Reference;
pub use repository::Repository;
