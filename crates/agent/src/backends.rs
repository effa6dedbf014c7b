//! The configured backends, open or not yet.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use crate::config::Failover;

/// Facts about a backend, whether or not it is open.
#[derive(Clone, Debug, Default)]
pub struct BackendInfo {
    /// Path of its library.
    pub library: PathBuf,
    /// Version of the library, as its author states it; empty until it is loaded.
    pub version: String,
    /// Version of the plugin ABI of the library, e.g. `1.0`; empty until it is loaded.
    pub abi: String,
}

/// State of a backend. The task that opens it keeps trying and publishes the state here.
#[derive(Debug)]
pub enum Opened<R> {
    /// Not open.
    No {
        /// Reason and remedy.
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
    /// Name in the configuration.
    pub name: String,
    /// Configured failover of its pods while it is away; `None` leaves that to the backend.
    pub failover: Option<Failover>,
    /// State of the backend. Once open, it stays open.
    pub opened: watch::Receiver<Opened<R>>,
}

impl<R> Clone for Backend<R> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), failover: self.failover, opened: self.opened.clone() }
    }
}

impl<R> Backend<R> {
    /// Returns the runtime, if the backend is open.
    #[must_use]
    pub fn runtime(&self) -> Option<Arc<R>> {
        match &*self.opened.borrow() {
            Opened::Yes { runtime, .. } => Some(Arc::clone(runtime)),
            Opened::No { .. } => None,
        }
    }

    /// Creates a backend that is open already, for tests and for statically linked backends.
    #[must_use]
    pub fn open(name: &str, runtime: Arc<R>) -> Self {
        let (_, opened) = watch::channel(Opened::Yes { runtime, info: BackendInfo::default() });
        Self { name: name.to_owned(), failover: None, opened }
    }
}
