//! Failures of credential provider plugins.

use std::{io, path::PathBuf, process::ExitStatus};

use super::plugin::{ANSWER_TIMEOUT, MAX_ANSWER};

/// Reason why a plugin gave no credentials. The texts quote nothing of the plugin's answer (I10).
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error("the agent is stopping")]
    Stopping,
    /// A call failed. The text repeats the request, so that a user can make it by hand.
    #[error("{error}; to see what it says run it with its arguments: echo '{request}' | {}", path.display())]
    Call { error: CallError, request: String, path: PathBuf },
    #[error("its answer is not a CredentialProviderResponse: {category:?} at line {line}, column {column}")]
    NoResponse { category: serde_json::error::Category, line: usize, column: usize },
    #[error("its answer must be a CredentialProviderResponse of {0}, as its apiVersion in the settings is")]
    OtherVersion(String),
    #[error("its answer's cacheKeyType must be Image, Registry or Global")]
    CacheKeyType,
    #[error("its answer's cacheDuration must be a time such as \"12h\"")]
    CacheDuration,
}

/// Failure to run a plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("it cannot be started: {0}")]
    Start(io::Error),
    #[error("talking to it failed: {0}")]
    Talk(io::Error),
    #[error("it did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Late,
    #[error("it answered more than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("it ended with {0}")]
    Ended(ExitStatus),
}
