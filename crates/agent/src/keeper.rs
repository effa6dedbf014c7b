//! Task that keeps the events of the board on disk.
//!
//! It writes several events at once, and waits at least [`PAUSE`] between two writes. A kill of the agent can lose the
//! events of the last second.

use std::{sync::Arc, time::Duration};

use stanchion_board::{EventLog, Journal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::blocking;

/// Minimum time between two writes, in which events gather.
const PAUSE: Duration = Duration::from_secs(1);
/// Wait after a failed write, e.g. to a full disk.
const RETRY: Duration = Duration::from_secs(30);

/// Writer of a log's events.
#[derive(Debug)]
pub(crate) struct Keeper {
    log: Arc<EventLog>,
    journal: Journal,
    /// Id of the latest event on disk.
    written: u64,
    /// The latest error, which is logged once.
    error: Option<String>,
}

impl Keeper {
    /// Puts the events of earlier agents into `log`, before its own. Logs an error if they cannot be read, and goes on
    /// without them.
    pub async fn open(log: Arc<EventLog>, journal: Journal) -> Self {
        let from = journal.clone();
        let earlier = blocking(move || from.read()).await;
        let written = earlier.last().map_or(0, |event| event.id);
        log.restore(earlier);
        Self { log, journal, written, error: None }
    }

    /// Keeps new events until `shutdown`. While the directory cannot be written, they are in memory only; that is
    /// logged once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut newest = self.log.watch();
        newest.mark_changed();
        loop {
            // *Cancel-safe:* a change that was not waited for stays, and the last write covers it.
            shutdown.run_until_cancelled(newest.changed()).await;
            // *Cancel-safe:* it holds nothing.
            shutdown.run_until_cancelled(sleep(PAUSE)).await;
            let is_last = shutdown.is_cancelled();
            let error = self.write().await.err().map(|error| error.to_string());
            if let Some(error) = error.as_ref().filter(|error| self.error.as_ref() != Some(error)) {
                let directory = self.journal.directory().display();
                tracing::warn!(error, %directory, "cannot write events; new ones are in memory only until it can be written");
            }
            self.error = error;
            if self.error.is_some() {
                newest.mark_changed();
                // *Cancel-safe:* it holds nothing.
                shutdown.run_until_cancelled(sleep(RETRY)).await;
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes the events that are not yet on disk.
    async fn write(&mut self) -> std::io::Result<()> {
        let events = self.log.since(self.written);
        let Some(last) = events.last().map(|event| event.id) else { return Ok(()) };
        let (log, journal) = (Arc::clone(&self.log), self.journal.clone());
        blocking(move || journal.append(&events, || log.all())).await?;
        self.written = last;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
