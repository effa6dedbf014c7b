//! A source of either kind: files or a URL.

use jiff::Timestamp;
use stanchion_pod::PodKey;

use super::{
    page::Page,
    reader::{ManifestFile, Reader},
};

/// A source of manifests.
#[derive(Debug)]
pub(super) enum Source {
    Files(Reader),
    Page(Page),
}

impl Source {
    /// Returns the path or URL.
    pub fn location(&self) -> String {
        match self {
            Self::Files(reader) => reader.location().display().to_string(),
            Self::Page(page) => page.location(),
        }
    }

    /// Returns why the source cannot be read now.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Files(reader) => reader.error(),
            Self::Page(page) => page.error(),
        }
    }

    /// Returns whether the source has failed so often that a changed error causes no further event (R-HTTP-7).
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Files(_) => false,
            Self::Page(page) => page.is_quiet(),
        }
    }

    /// Returns since when the source cannot be read, or since when it can.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Files(reader) => reader.since(),
            Self::Page(page) => page.since(),
        }
    }

    /// Returns whether it is known which pods the source wants.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Files(reader) => reader.is_known(),
            Self::Page(page) => page.is_known(),
        }
    }

    /// Returns why a pod of the source is not run here; `None` if it is.
    pub fn withheld(&self, pod: &PodKey) -> Option<String> {
        match self {
            Self::Files(reader) => reader.withheld(pod),
            Self::Page(_) => None,
        }
    }

    /// Returns the manifests with their paths or URL, in order.
    pub fn manifests(&self) -> Vec<(String, &ManifestFile)> {
        match self {
            Self::Files(reader) => reader.files().map(|(path, file)| (path.display().to_string(), file)).collect(),
            Self::Page(page) => page.manifest().map(|manifest| (page.location(), manifest)).into_iter().collect(),
        }
    }

    /// Writes changed content to disk, for the agent's next start.
    pub fn keep(&mut self) {
        match self {
            Self::Files(reader) => reader.keep(),
            Self::Page(page) => page.keep(),
        }
    }

    /// Returns the file reader; `None` for a URL.
    pub fn files(&self) -> Option<&Reader> {
        match self {
            Self::Files(reader) => Some(reader),
            Self::Page(_) => None,
        }
    }

    /// Returns the file reader for changes; `None` for a URL.
    pub fn files_mut(&mut self) -> Option<&mut Reader> {
        match self {
            Self::Files(reader) => Some(reader),
            Self::Page(_) => None,
        }
    }
}
