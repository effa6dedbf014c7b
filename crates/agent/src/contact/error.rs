//! Failures of requests. Their texts are a kubelet's, and so Go's, since people and tools know them.

use std::{error::Error, io};

use super::http::MAX_REDIRECTS;

/// Failure of a request to a container, or to a server of manifests.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContactError {
    /// No container of the pod has a port of this name.
    #[error("couldn't find port: {0}")]
    UnknownPort(String),
    /// The kernel refused the connection to an address.
    #[error("dial tcp {to}: connect: {}", in_gos_words(.error))]
    Connect { to: String, error: io::Error },
    /// A host name has no address.
    #[error("dial tcp: lookup {host}: {}", in_gos_words(.error))]
    Lookup { host: String, error: io::Error },
    /// The address did not answer in time.
    #[error("dial tcp {0}: i/o timeout")]
    ConnectTimeout(String),
    /// The server speaks plain HTTP where TLS was expected.
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainHttp,
    #[error("{}", in_gos_words(.0))]
    Tls(io::Error),
    /// A header or a target that HTTP does not allow.
    #[error("{0}")]
    Request(hyper::http::Error),
    #[error("{}", chain(.0))]
    Http(hyper::Error),
    /// The body broke off.
    #[error("{0}")]
    Body(Box<dyn Error + Send + Sync>),
    #[error("the connection ended")]
    Ended,
    #[error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Deadline,
    #[error("stopped after {MAX_REDIRECTS} redirects")]
    Redirects,
    /// A GET request of a probe or hook failed.
    #[error("Get \"{url}\": {error}")]
    Get { url: String, error: Box<Self> },
}

impl ContactError {
    /// Returns whether the server speaks plain HTTP where TLS was expected.
    pub fn is_plain_http(&self) -> bool {
        match self {
            Self::PlainHttp => true,
            Self::Get { error, .. } => error.is_plain_http(),
            _ => false,
        }
    }

    /// Adds the URL that was asked for.
    pub fn of(self, url: &str) -> Self {
        Self::Get { url: url.to_owned(), error: Box::new(self) }
    }
}

/// Returns an error of the system in Go's words.
fn in_gos_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // An abbreviation keeps its capitals: `EOF`.
        Some(first) if !chars.as_str().starts_with(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
