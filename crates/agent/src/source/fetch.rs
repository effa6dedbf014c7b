//! Polls the server of a URL source, and reports changes.

use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::get::{Client, Fetched};
use crate::config::UrlSource;

/// Number of failures in a row that are logged as warnings (R-HTTP-7).
const MAX_WARNINGS: u32 = 3;

/// Change that a poll of a URL source found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PollResult {
    /// The server has a new body.
    Body {
        content: Vec<u8>,
        /// `true` if nobody between server and agent can have read or changed it.
        is_private: bool,
    },
    /// The server, which had failed, serves the last body again.
    Back,
    /// The server cannot be reached, or has no body.
    Failed {
        /// The reason, which begins with the URL.
        error: String,
        /// `true` after more than [`MAX_WARNINGS`] failures in a row: a changed reason causes no further event.
        is_quiet: bool,
    },
}

/// Poller of one server.
pub(crate) struct Fetcher {
    config: UrlSource,
    client: Client,
    /// Index of the source, and the channel for the results.
    results: (usize, mpsc::Sender<(usize, PollResult)>),
    /// Hash of the last body.
    last: Option<[u8; 32]>,
    etag: Option<HeaderValue>,
    failures: u32,
    /// Failure that was reported last, until the server is back.
    failure: Option<String>,
}

impl Fetcher {
    pub(super) fn new(config: UrlSource, source: usize, results: mpsc::Sender<(usize, PollResult)>) -> Self {
        let client = Client::new(config.clone());
        Self { config, client, results: (source, results), last: None, etag: None, failures: 0, failure: None }
    }

    /// Returns the name of the fetcher's task.
    pub fn name(&self) -> String {
        format!("manifests of {}", self.config.url)
    }

    /// Polls until `shutdown`, the first time at once (R-HTTP-1).
    pub async fn run(mut self, shutdown: CancellationToken) {
        let asking = async {
            loop {
                if let Some(result) = self.poll().await
                    && self.results.1.send((self.results.0, result)).await.is_err()
                {
                    return;
                }
                sleep(self.config.interval).await;
            }
        };
        // *Cancel-safe:* only an answer is lost, and nobody would use it.
        shutdown.run_until_cancelled(asking).await;
    }

    /// Polls once, and returns the change that it found.
    pub(super) async fn poll(&mut self) -> Option<PollResult> {
        match self.client.get(self.etag.as_ref()).await {
            Ok(Fetched::Same) => self.recovered(),
            Ok(Fetched::Body { content, .. }) if content.trim_ascii().is_empty() && !self.config.allow_empty => {
                let url = &self.config.url;
                self.failed(format!(
                    "{url}: the answer is empty; allow_empty = true would take that for no pods at all"
                ))
            }
            Ok(Fetched::Body { content, etag, is_private }) => {
                let hash = Some(Sha256::digest(&content).into());
                self.etag = etag;
                if self.last == hash {
                    return self.recovered();
                }
                self.last = hash;
                (self.failures, self.failure) = (0, None);
                Some(PollResult::Body { content: content.into(), is_private })
            }
            Err(error) => self.failed(format!("{}: {error}", self.config.url)),
        }
    }

    fn recovered(&mut self) -> Option<PollResult> {
        self.failures = 0;
        self.failure.take().map(|_| PollResult::Back)
    }

    fn failed(&mut self, error: String) -> Option<PollResult> {
        self.failures = self.failures.saturating_add(1);
        let is_quiet = self.failures > MAX_WARNINGS;
        let is_new = self.failure.as_ref() != Some(&error);
        match is_quiet {
            true => tracing::debug!(failures = self.failures, "{error}"),
            // A new error is logged as an event.
            false if is_new => {}
            false => tracing::warn!("{error}; its pods keep running unchanged"),
        }
        self.failure = Some(error.clone());
        is_new.then_some(PollResult::Failed { error, is_quiet })
    }
}
