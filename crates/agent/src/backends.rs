//! The configured backends, open or not yet.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use crate::config::Failover;

/// Facts about a backend, whether or not it is open.
#[derive(Clone, Debug, Default)]
pub struct BackendInfo {
    /// The library it is loaded from.
    pub library: PathBuf,
    /// Its version, as its author states it; empty until it is loaded.
    pub version: String,
    /// The version of the plugin ABI that it was built for, e.g. `1.0`; empty until it is loaded.
    pub abi: String,
}

/// State of a backend, open or not. Whoever opens it keeps trying, and publishes the state here.
#[derive(Debug)]
pub enum Opened<R> {
    /// Not open.
    No {
        /// The reason, and what to do about it.
        reason: String,
    },
    /// Open.
    Yes {
        /// The backend.
        runtime: Arc<R>,
        /// Facts about it.
        info: BackendInfo,
    },
}

/// A configured backend.
#[derive(Debug)]
pub struct Backend<R> {
    /// Its name in the configuration.
    pub name: String,
    /// Configured failover of its pods while it is away; `None`: as the backend says, else they wait.
    pub failover: Option<Failover>,
    /// Its state. Once open it stays open.
    pub opened: watch::Receiver<Opened<R>>,
}

impl<R> Clone for Backend<R> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), failover: self.failover, opened: self.opened.clone() }
    }
}

impl<R> Backend<R> {
    /// Returns the backend, if it is open.
    #[must_use]
    pub fn runtime(&self) -> Option<Arc<R>> {
        match &*self.opened.borrow() {
            Opened::Yes { runtime, .. } => Some(Arc::clone(runtime)),
            Opened::No { .. } => None,
        }
    }

    /// Creates a backend that is open already, for tests and for statically linked ones.
    #[must_use]
    pub fn open(name: &str, runtime: Arc<R>) -> Self {
        let (_, opened) = watch::channel(Opened::Yes { runtime, info: BackendInfo::default() });
        Self { name: name.to_owned(), failover: None, opened }
    }
}
