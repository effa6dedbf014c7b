//! Sources of manifests, and their merging into what is desired.
//!
//! # Layout
//! - [`run`]: all sources, read when something changes and at least every 20 s, merged and published.
//! - [`reader`]: one directory or file, with the last good content of each manifest. [`last_good`]: that content on disk.
//! - [`standby`]: a source that belongs to a kubelet, while that is there. [`kubelets`]: what runs of it while it is not.
//! - [`watch`]: changes as the kernel reports them. [`merge`]: several sources, one set.

mod kubelets;
mod last_good;
mod leftover;
mod merge;
mod reader;
mod standby;
mod watch;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::watch::Sender,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{board::Board, config::AgentConfig, desired::Desired, events::EventLog};
use merge::Merge;
use reader::Reader;
use standby::Standby;
use watch::{Change, Watch};

/// The full read that covers changes that the kernel does not report (R-FILE-1).
const FULL_READ: Duration = Duration::from_secs(20);
/// How often a source that cannot be read, or that has links whose targets are not watched, is read.
const SHORT_READ: Duration = Duration::from_secs(2);
/// An editor that replaces a file by removing and writing it anew does so within this time.
const REPLACED_WITHIN: Duration = Duration::from_millis(20);

/// What the source task works with.
pub(crate) struct Sources {
    readers: Vec<Reader>,
    watch: Watch,
    merge: Merge,
    desired: Sender<Arc<Desired>>,
}

impl Sources {
    pub fn new(config: &AgentConfig, board: Arc<Board>, events: Arc<EventLog>, desired: Sender<Arc<Desired>>) -> Self {
        let paths = config.sources.iter().map(|source| source.path.clone());
        let reader = |source| Reader::new(source, &config.node_name, &config.state_dir);
        Self {
            readers: config.sources.iter().map(reader).collect(),
            watch: Watch::new(paths.collect()),
            merge: Merge::new(board, events),
            desired,
        }
    }

    /// Reads and publishes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.watch.renew();
            if shutdown.run_until_cancelled(self.ask_kubelets()).await.is_none() {
                return;
            }
            self = match tokio::task::spawn_blocking(move || self.read()).await {
                Ok(sources) => sources,
                // The reader's panic is the supervisor's to see.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            let next_read = Instant::now() + self.period();
            if shutdown.run_until_cancelled(self.changed(next_read)).await.is_none() {
                return;
            }
        }
    }

    /// Asks the kubelets that sources belong to whether they are there. Whether anything has changed.
    async fn ask_kubelets(&mut self) -> bool {
        join_all(self.readers.iter_mut().filter_map(Reader::standby).map(Standby::ask)).await.contains(&true)
    }

    /// When kubelets are asked next, where there are any.
    fn next_question(&mut self) -> Option<Instant> {
        let periods = self.readers.iter_mut().filter_map(|reader| Some(reader.standby()?.period()));
        periods.min().map(|period| Instant::now() + period)
    }

    /// Reads every source and publishes what they want together.
    fn read(mut self) -> Self {
        let writing = self.watch.being_written();
        for reader in &mut self.readers {
            reader.read(&writing);
        }
        let desired = self.merge.merge(&self.readers);
        self.desired.send_if_modified(|last| {
            let changed = last.pods != desired.pods || last.complete != desired.complete;
            if changed {
                *last = Arc::new(desired);
            }
            changed
        });
        // After publishing: keeping the last good content is not what a pod waits for.
        for reader in &mut self.readers {
            reader.keep();
        }
        self
    }

    fn period(&self) -> Duration {
        let is_short = |reader: &Reader| {
            let is_unseen = reader.has_links() || reader.is_silent() || reader.awaits_ends();
            reader.error().is_some() || is_unseen || !self.watch.is_working()
        };
        if self.readers.iter().any(is_short) { SHORT_READ } else { FULL_READ }
    }

    /// Waits until a read is due.
    ///
    /// *Cancel-safe:* what was noticed stays noted in the watch.
    async fn changed(&mut self, latest: Instant) {
        let mut due = latest;
        let mut asking = self.next_question();
        loop {
            let quiet = self.watch.quiet_at();
            tokio::select! {
                change = self.watch.next() => due = match change {
                    Change::Written => return,
                    Change::Removed => due.min(Instant::now() + REPLACED_WITHIN),
                    Change::BeingWritten => due,
                },
                () = sleep_until(asking.unwrap_or(due)), if asking.is_some() => {
                    if self.ask_kubelets().await {
                        return;
                    }
                    asking = self.next_question();
                }
                () = sleep_until(quiet.map_or(due, |quiet| quiet.min(due))) => {
                    self.watch.settle();
                    return;
                }
            }
        }
    }
}
