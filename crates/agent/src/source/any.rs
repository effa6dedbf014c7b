//! A source of either kind.

use jiff::Timestamp;
use stanchion_pod::PodKey;

use super::{
    page::Page,
    reader::{ManifestFile, Reader},
};

/// Files, or what a URL serves.
#[derive(Debug)]
pub(super) enum Source {
    Files(Reader),
    Page(Page),
}

impl Source {
    /// Its path or URL.
    pub fn location(&self) -> String {
        match self {
            Self::Files(reader) => reader.location().display().to_string(),
            Self::Page(page) => page.location(),
        }
    }

    /// Why it cannot be read now.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Files(reader) => reader.error(),
            Self::Page(page) => page.error(),
        }
    }

    /// Whether that has been said often enough.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Files(_) => false,
            Self::Page(page) => page.is_quiet(),
        }
    }

    /// Since when that is so, or since when it can be read.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Files(reader) => reader.since(),
            Self::Page(page) => page.since(),
        }
    }

    /// Whether it is known what is wanted of it.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Files(reader) => reader.is_known(),
            Self::Page(page) => page.is_known(),
        }
    }

    /// Why a pod of it is not run here.
    pub fn withheld(&self, pod: &PodKey) -> Option<String> {
        match self {
            Self::Files(reader) => reader.withheld(pod),
            Self::Page(_) => None,
        }
    }

    /// The manifests, by path or URL, in order.
    pub fn manifests(&self) -> Vec<(String, &ManifestFile)> {
        match self {
            Self::Files(reader) => reader.files().map(|(path, file)| (path.display().to_string(), file)).collect(),
            Self::Page(page) => page.manifest().map(|manifest| (page.location(), manifest)).into_iter().collect(),
        }
    }

    /// Writes down what changed since the last time, for the next life.
    pub fn keep(&mut self) {
        match self {
            Self::Files(reader) => reader.keep(),
            Self::Page(page) => page.keep(),
        }
    }

    /// The reader of one of files.
    pub fn files(&self) -> Option<&Reader> {
        match self {
            Self::Files(reader) => Some(reader),
            Self::Page(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn files_mut(&mut self) -> Option<&mut Reader> {
        match self {
            Self::Files(reader) => Some(reader),
            Self::Page(_) => None,
        }
    }
}
