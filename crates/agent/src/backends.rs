//! The configured backends, open or not yet.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use crate::config::Failover;

/// What is known of a backend whether or not it is open.
#[derive(Clone, Debug, Default)]
pub struct BackendInfo {
    /// The library it is loaded from.
    pub library: PathBuf,
    /// Its version, as its author states it; empty until it is loaded.
    pub version: String,
    /// The version of the boundary it was built for, e.g. `1.0`; empty until it is loaded.
    pub abi: String,
}

/// A backend's state of being opened. Whoever opens it keeps trying and says here how far it is.
#[derive(Debug)]
pub enum Opened<R> {
    /// Not open; why, and what to do about it.
    No {
        /// The reason, for people.
        reason: String,
    },
    /// Open.
    Yes {
        /// The backend.
        runtime: Arc<R>,
        /// What it says of itself.
        info: BackendInfo,
    },
}

/// A configured backend.
#[derive(Debug)]
pub struct Backend<R> {
    /// Its name in the configuration.
    pub name: String,
    /// Set: what is to become of its pods while it is away. Not set: what it says itself, and else they wait.
    pub failover: Option<Failover>,
    /// Whether it is open. Once open it stays open.
    pub opened: watch::Receiver<Opened<R>>,
}

impl<R> Clone for Backend<R> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), failover: self.failover, opened: self.opened.clone() }
    }
}

impl<R> Backend<R> {
    /// The backend, if it is open.
    #[must_use]
    pub fn runtime(&self) -> Option<Arc<R>> {
        match &*self.opened.borrow() {
            Opened::Yes { runtime, .. } => Some(Arc::clone(runtime)),
            Opened::No { .. } => None,
        }
    }

    /// A backend that is open already, as tests and statically linked ones are.
    #[must_use]
    pub fn open(name: &str, runtime: Arc<R>) -> Self {
        let (_, opened) = watch::channel(Opened::Yes { runtime, info: BackendInfo::default() });
        Self { name: name.to_owned(), failover: None, opened }
    }
}
