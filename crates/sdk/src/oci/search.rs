//! The search for this node's manifest, from an index. The search names the documents that it needs; the caller reads
//! them from a registry, a store or an archive.

use std::collections::HashSet;

use stanchion_runtime::{Error, ErrorKind, Result};
use stanchion_untrusted::Limit;

use super::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, INDEX, ImageConfig, MANIFEST, Manifest, has_digest, platform,
};
use crate::limits;

/// A search in progress. An index may name indexes: the search follows the best entry first, then the next, each digest
/// once, and at most [`limits::DOCUMENTS`] in all.
#[derive(Debug, Default)]
pub struct Search {
    /// Entries for this node, the best last.
    fitting: Vec<Descriptor>,
    reading: Option<Reading>,
    found: Option<Box<Found>>,
    seen: HashSet<String>,
}

/// Blob that the search has asked for.
#[derive(Debug)]
enum Reading {
    Document(Descriptor),
    /// Configuration of a manifest whose entry has no platform.
    Config(Box<Found>),
}

/// A manifest for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The manifest.
    pub manifest: Manifest,
    /// Bytes of the manifest.
    pub bytes: Vec<u8>,
    /// Digest of the manifest.
    pub digest: String,
}

/// The next step of a search.
#[derive(Debug)]
pub enum Next {
    /// Read this blob, up to the limit, and pass it to [`Search::take`].
    Read(Box<Descriptor>, Limit),
    /// The search is over: this is the manifest.
    Found(Box<Found>),
}

impl Search {
    /// Begins a search at a manifest or an index with that digest.
    ///
    /// # Errors
    /// `Invalid`: the document cannot be read.
    pub fn of(bytes: Vec<u8>, digest: String) -> Result<Self> {
        let mut search = Self::default();
        search.seen.insert(digest.clone());
        match Document::read(&bytes)? {
            // The platform of a single manifest does not matter, because there is no other choice.
            Document::Manifest(manifest) => search.found = Some(Box::new(Found { manifest: *manifest, bytes, digest })),
            Document::Index(entries) => search.add(entries),
        }
        Ok(search)
    }

    /// Begins a search at the entries of an index.
    #[must_use]
    pub fn among(entries: Vec<Descriptor>) -> Self {
        let mut search = Self::default();
        search.add(entries);
        search
    }

    /// Adds the entries for this node. One without a platform may be for this node, and comes last, as in containerd.
    fn add(&mut self, entries: Vec<Descriptor>) {
        let is_known = |kind: &str| matches!(kind, "" | MANIFEST | INDEX | DOCKER_MANIFEST | DOCKER_INDEX);
        let rank = |entry: &Descriptor| match &entry.platform {
            Some(platform) => platform.rank(),
            None => Some(usize::MAX),
        };
        let is_readable = |entry: &Descriptor| is_known(&entry.media_type) && entry.check().is_ok();
        let readable = entries.into_iter().filter(is_readable);
        let mut fitting: Vec<_> = readable.filter_map(|entry| Some((rank(&entry)?, entry))).collect();
        fitting.sort_by_key(|(rank, _)| *rank);
        self.fitting.extend(fitting.into_iter().rev().map(|(_, entry)| entry));
    }

    /// Returns the blob to read next, or the manifest that was found.
    ///
    /// # Errors
    /// `NotFound`: no manifest is for this node. `Invalid`: a blob for it is too large, or there are too many.
    pub fn step(&mut self) -> Result<Next> {
        if let Some(found) = self.found.take() {
            return Ok(Next::Found(found));
        }
        if let Some(Reading::Config(found)) = &self.reading {
            let config = found.manifest.config.clone();
            too_large(&config, limits::CONFIG)?;
            return Ok(Next::Read(Box::new(config), limits::CONFIG));
        }
        while let Some(entry) = self.fitting.pop() {
            if !self.seen.insert(entry.digest.clone()) {
                continue;
            }
            let Limit { name, most } = limits::DOCUMENTS;
            if self.seen.len() > limits::DOCUMENTS.size() {
                let message =
                    format!("the image's indexes name more than {most} manifests and indexes (limit {name:?})");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            too_large(&entry, limits::MANIFEST)?;
            self.reading = Some(Reading::Document(entry.clone()));
            return Ok(Next::Read(Box::new(entry), limits::MANIFEST));
        }
        let architecture = platform::architecture();
        Err(Error::new(ErrorKind::NotFound, format!("the image has no variant for linux/{architecture}")))
    }

    /// Takes the blob that [`step`](Self::step) asked for.
    ///
    /// # Errors
    /// `Invalid`: it has another digest or type, or cannot be read.
    pub fn take(&mut self, bytes: Vec<u8>) -> Result<()> {
        match self.reading.take() {
            None => Ok(()),
            Some(Reading::Document(entry)) => {
                is_of(&bytes, &entry.digest)?;
                match (Document::read(&bytes)?, entry.media_type.as_str()) {
                    (Document::Index(_), MANIFEST | DOCKER_MANIFEST)
                    | (Document::Manifest(_), INDEX | DOCKER_INDEX) => {
                        let message = format!("{} is not what the index says, {:?}", entry.digest, entry.media_type);
                        return Err(Error::new(ErrorKind::Invalid, message));
                    }
                    (Document::Index(entries), _) => self.add(entries),
                    (Document::Manifest(manifest), _) => {
                        let found = Box::new(Found { manifest: *manifest, bytes, digest: entry.digest });
                        match entry.platform {
                            Some(_) => self.found = Some(found),
                            None => self.reading = Some(Reading::Config(found)),
                        }
                    }
                }
                Ok(())
            }
            Some(Reading::Config(found)) => {
                is_of(&bytes, &found.manifest.config.digest)?;
                // The configuration of an artifact may be anything, so errors only rule it out.
                if ImageConfig::read(&bytes).is_ok_and(|config| config.platform().rank().is_some()) {
                    self.found = Some(found);
                }
                Ok(())
            }
        }
    }
}

/// Refuses a blob whose descriptor gives a size above the limit, before it is read.
fn too_large(blob: &Descriptor, limit: Limit) -> Result<()> {
    limit
        .check(blob.size)
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("blob {}", blob.digest)).caused_by(&error))
}

fn is_of(bytes: &[u8], digest: &str) -> Result<()> {
    match has_digest(bytes, digest) {
        Some(true) => Ok(()),
        _ => {
            Err(Error::new(ErrorKind::Invalid, format!("blob {digest} has another content: {}", super::digest(bytes))))
        }
    }
}
