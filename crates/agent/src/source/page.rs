//! A URL source: the body that the server serves, and the last good body.

use std::{ffi::OsStr, path::Path};

use jiff::Timestamp;
use stanchion_pod::{Manifest, ObjectKind, Origin, Problem, decode_from};

use super::{fetch::PollResult, last_good::LastGood, reader::ManifestFile};
use crate::{config::UrlSource, url::Url};

/// File name of the body in [`LastGood`].
const BODY: &str = "body";

/// A URL source and the latest poll's result.
#[derive(Debug)]
pub(super) struct Page {
    url: Url,
    node_name: String,
    allow_empty: bool,
    manifest: ManifestFile,
    /// A body that is not decoded yet; `true`: it came over https all the way.
    unread: Option<(Vec<u8>, bool)>,
    /// `true` once this agent or an earlier one had a good body: `manifest` then has all pods of the source.
    known: bool,
    error: Option<String>,
    is_quiet: bool,
    since: Timestamp,
    last_good: LastGood,
    is_unkept: bool,
}

impl Page {
    pub fn new(source: &UrlSource, node_name: &str, state_dir: &Path) -> Self {
        let mut page = Self {
            url: source.url.clone(),
            node_name: node_name.to_owned(),
            allow_empty: source.allow_empty,
            manifest: ManifestFile::default(),
            unread: None,
            known: false,
            error: None,
            is_quiet: false,
            since: crate::Clock::System.now(),
            last_good: LastGood::of(state_dir, source.url.whole().as_bytes()),
            is_unkept: false,
        };
        page.recall();
        page
    }

    pub fn location(&self) -> String {
        self.url.to_string()
    }

    /// Returns why the server gives no body now.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns whether the server has failed so often that a changed error causes no further event (R-HTTP-7).
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Returns since when the server has failed, or since when it answers.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Returns whether it is known which pods the source wants.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Returns the manifest of the body; `None` before the first body.
    pub fn manifest(&self) -> Option<&ManifestFile> {
        (self.known || !self.manifest.problems.is_empty()).then_some(&self.manifest)
    }

    /// Applies a poll's result. A failure is not an order to delete (design: I2).
    pub fn apply(&mut self, result: PollResult) {
        let (error, is_quiet) = match result {
            PollResult::Failed { error, is_quiet } => (Some(error), is_quiet),
            PollResult::Body { content, is_private } => {
                self.unread = Some((content, is_private));
                (None, false)
            }
            PollResult::Back => (None, false),
        };
        if error.is_some() != self.error.is_some() {
            self.since = crate::Clock::System.now();
        }
        (self.error, self.is_quiet) = (error, is_quiet);
    }

    /// Decodes a new body. A good body comes in force as a whole, a bad one not at all (R-HTTP-6).
    pub fn read(&mut self) {
        let Some((content, is_private)) = self.unread.take() else { return };
        match self.decoded(&content, is_private) {
            Ok(manifest) => {
                self.manifest.put_in_force(manifest, content);
                self.known = true;
                self.is_unkept = true;
            }
            Err(problems) => self.manifest.problems = problems,
        }
    }

    /// Writes the body to disk, for the agent's next start (R-GAP-33).
    pub fn keep(&mut self) {
        if !self.is_unkept {
            return;
        }
        let kept = self.last_good.begin().and_then(|()| self.last_good.keep(OsStr::new(BODY), &self.manifest.content));
        match kept {
            Ok(()) => {
                self.is_unkept = false;
                self.manifest.content = Vec::new();
            }
            Err(error) => {
                let url = &self.url;
                tracing::warn!(%url, %error, "keeping the last good manifests failed; a restart may not know them");
            }
        }
    }

    /// Restores the body that an earlier agent kept, until the server sends another one.
    fn recall(&mut self) {
        let kept = match self.last_good.load() {
            Ok(kept) => kept.and_then(|mut kept| kept.remove(OsStr::new(BODY))),
            Err(error) => {
                let url = &self.url;
                return tracing::warn!(%url, %error, "the last good manifests cannot be read");
            }
        };
        // Without content, the body could not be kept, and is unknown.
        let Some(content) = kept.flatten() else { return };
        // The check for https was made when the body came; the record does not say how it came.
        if let Ok(manifest) = self.decoded(&content, true) {
            self.manifest.put_in_force(manifest, content);
            self.manifest.is_recalled = true;
            self.manifest.content = Vec::new();
            self.known = true;
        }
    }

    fn decoded(&self, content: &[u8], is_private: bool) -> Result<Manifest, Vec<Problem>> {
        if self.allow_empty && content.trim_ascii().is_empty() {
            return Ok(Manifest::default());
        }
        let manifest = decode_from(Origin::Http, content, &self.node_name)?;
        if !is_private && manifest.objects.iter().any(|(key, _)| key.kind == ObjectKind::Secret) {
            let message =
                "holds a Secret, and came over http, where others can read it; serve it over https".to_owned();
            return Err(vec![Problem { message, ..Problem::default() }]);
        }
        Ok(manifest)
    }
}
