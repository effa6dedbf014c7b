//! Reads the sources of manifests and merges their pods into [`Desired`].
//!
//! # Layout
//! - [`Sources::run`]: reads all sources on changes and at least every 20 s, merges them and publishes the result.
//!   [`any`]: a source of either kind.
//! - [`reader`]: one directory or file, with the last good content of each manifest. [`last_good`]: that content on
//!   disk. [`directory`]: the entries of a directory, and its identity.
//! - [`page`]: the body of a URL, likewise. [`fetch`]: its polling, by way of [`get`]. [`exposure`]: check that only
//!   root can read a file.
//! - [`standby`]: a source that belongs to a kubelet. [`kubelets`]: containers that run on although their kubelet is
//!   away. [`lock`]: the kubelet's lock file, which keeps a pod from running twice.
//! - [`watch`]: changes that inotify reports. [`merge`]: several sources, one set of pods.

mod any;
mod directory;
mod exposure;
mod fetch;
mod get;
mod kubelets;
mod last_good;
mod leftover;
mod lock;
mod merge;
mod page;
mod reader;
mod standby;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use stanchion_board::{Board, EventLog};
use tokio::sync::{
    mpsc,
    watch::{Receiver, Sender},
};
use tokio_util::sync::CancellationToken;

use crate::{
    blocking,
    clock::sleep_until,
    config::{AgentConfig, SourceConfig},
    desired::{Desired, ReconcilerProgress},
};
use any::Source;
pub(crate) use fetch::Fetcher;
use fetch::PollResult;
use merge::Merge;
use page::Page;
use reader::Reader;
use standby::Standby;
use watch::{Change, Watch};

/// Period of full reads, which find changes that inotify does not report (R-FILE-1).
const FULL_READ: Duration = Duration::from_secs(20);
/// Period of reads while a source cannot be read, or inotify does not report its changes.
const SHORT_READ: Duration = Duration::from_secs(2);
/// Grace after a file's removal: an editor that replaces a file writes it anew within this time.
const REPLACED_WITHIN: Duration = Duration::from_millis(20);

/// State of the source task.
pub(crate) struct Sources {
    sources: Vec<Source>,
    watch: Watch,
    /// Results of the fetchers, with the indices of their sources.
    results: mpsc::Receiver<(usize, PollResult)>,
    merge: Merge,
    desired: Sender<Arc<Desired>>,
    progress: Receiver<ReconcilerProgress>,
}

impl Sources {
    /// Creates the sources, and a fetcher for each URL source.
    pub fn new(
        config: &AgentConfig,
        board: Arc<Board>,
        events: Arc<EventLog>,
        desired: Sender<Arc<Desired>>,
        progress: Receiver<ReconcilerProgress>,
    ) -> (Self, Vec<Fetcher>) {
        let (node_name, state_dir) = (&config.node_name, &config.state_dir);
        let (send, results) = mpsc::channel(8);
        let (mut sources, mut paths, mut fetchers) = (Vec::new(), Vec::new(), Vec::new());
        for (index, source) in config.sources.iter().enumerate() {
            sources.push(match source {
                SourceConfig::Files(files) => {
                    paths.push(files.path.clone());
                    Source::Files(Reader::new(files, node_name, state_dir))
                }
                SourceConfig::Url(url) => {
                    fetchers.push(Fetcher::new(url.clone(), index, send.clone()));
                    Source::Page(Page::new(url, node_name, state_dir))
                }
            });
        }
        let (watch, merge) = (Watch::new(paths), Merge::new(board, events));
        (Self { sources, watch, results, merge, desired, progress }, fetchers)
    }

    /// Reads the sources and publishes the merged pods until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.watch.renew();
            if shutdown.run_until_cancelled(self.poll_kubelets()).await.is_none() {
                return;
            }
            self = blocking(move || self.read()).await;
            let next_read = crate::clock::instant() + self.period();
            if shutdown.run_until_cancelled(self.changed(next_read)).await.is_none() {
                return;
            }
        }
    }

    /// Polls the kubelets that sources belong to. Returns whether anything has changed.
    async fn poll_kubelets(&mut self) -> bool {
        let standbys = self.sources.iter_mut().filter_map(|source| source.files_mut()?.standby());
        let has_changed = join_all(standbys.map(Standby::poll)).await.contains(&true);
        self.release_locks();
        has_changed
    }

    /// Releases a kubelet's lock file once none of its pods is left here and none will be started.
    fn release_locks(&mut self) {
        let progress = self.progress.borrow();
        let desired = self.desired.borrow();
        if !Arc::ptr_eq(&progress.desired, &desired) {
            return;
        }
        for reader in self.sources.iter_mut().filter_map(Source::files_mut) {
            let is_left = reader.pods().any(|pod| desired.pods.contains_key(pod) || progress.present.contains(pod));
            if let Some(standby) = reader.standby().filter(|standby| !is_left && standby.is_to_be_released()) {
                standby.release();
            }
        }
    }

    /// Returns the time of the next poll of a kubelet; `None` if no source belongs to one.
    fn next_question(&mut self) -> Option<Instant> {
        let periods = self.sources.iter_mut().filter_map(|source| Some(source.files_mut()?.standby()?.period()));
        periods.min().map(|period| crate::clock::instant() + period)
    }

    /// Reads every source, merges them and publishes the result.
    fn read(mut self) -> Self {
        let writing = self.watch.being_written();
        for source in &mut self.sources {
            match source {
                Source::Files(reader) => reader.read(&writing),
                Source::Page(page) => page.read(),
            }
        }
        let desired = self.merge.merge(&self.sources, self.watch.watch_error());
        self.desired.send_if_modified(|last| {
            let changed = last.pods != desired.pods || last.complete != desired.complete;
            if changed {
                *last = Arc::new(desired);
            }
            changed
        });
        // The content is kept after publishing, so that no pod waits for the disk.
        self.sources.iter_mut().for_each(Source::keep);
        self
    }

    fn period(&self) -> Duration {
        let is_short = |reader: &Reader| {
            let is_silent = reader.has_links() || reader.is_silent() || reader.awaits_ends();
            reader.error().is_some() || is_silent || !self.watch.is_working()
        };
        if self.sources.iter().filter_map(Source::files).any(is_short) { SHORT_READ } else { FULL_READ }
    }

    /// Waits until a read is due.
    ///
    /// *Cancel-safe:* the watch keeps the events that it has received, and each page its results.
    async fn changed(&mut self, latest: Instant) {
        let mut due = latest;
        let mut asking = self.next_question();
        loop {
            let quiet = self.watch.quiet_at();
            tokio::select! {
                change = self.watch.next() => due = match change {
                    Change::Written => return,
                    Change::Removed => due.min(crate::clock::instant() + REPLACED_WITHIN),
                    Change::BeingWritten => due,
                },
                Some((index, result)) = self.results.recv() => {
                    if let Some(Source::Page(page)) = self.sources.get_mut(index) {
                        page.apply(result);
                    }
                    return;
                }
                () = sleep_until(asking.unwrap_or(due)), if asking.is_some() => {
                    if self.poll_kubelets().await {
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
