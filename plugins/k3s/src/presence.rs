//! Presence of K3s's containerd, and the time since it has been away.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::UnixStream, time::Instant};

/// Interval between checks while it is away and somebody waits for its return.
const PERIOD: Duration = Duration::from_secs(1);

/// Daemon behind a socket. The file alone is no sign of it: a daemon that was killed leaves its own.
#[derive(Clone, Debug)]
pub struct Presence {
    socket: PathBuf,
    absent: Arc<Mutex<Option<Instant>>>,
}

impl Presence {
    /// Makes the presence of the daemon at this socket.
    pub fn of(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), absent: Arc::default() }
    }

    /// Returns whether the daemon takes a connection now.
    pub async fn is_there(&self) -> bool {
        let is_there = UnixStream::connect(&self.socket).await.is_ok();
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        match is_there {
            true => *absent = None,
            false => drop(absent.get_or_insert_with(stanchion_sdk::clock::instant)),
        }
        is_there
    }

    /// Returns how long the daemon has been away, as far as was seen.
    pub fn absence(&self) -> Duration {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Waits for the daemon's return.
    ///
    /// *Cancel-safe:* it only waits.
    pub async fn returned(&self) {
        while !self.is_there().await {
            tokio::time::sleep(PERIOD).await;
        }
    }
}
