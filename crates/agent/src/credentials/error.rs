//! Failures of credential provider plugins, and mistakes in their settings.

use std::{io, path::PathBuf, process::ExitStatus};

use stanchion_pod::Problem;

use super::{
    plugin::{ANSWER_TIMEOUT, MAX_ANSWER},
    settings::{FILE_VERSIONS, PLUGIN_VERSIONS},
};

/// Reason why settings are left out: a file, or a provider in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The path leads to no file and no directory of files.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: FileError },
    #[error("there is no program {} for provider {provider:?}", path.display())]
    NoProgram { path: PathBuf, provider: String },
}

/// Mistake in a file of providers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Unreadable(io::Error),
    #[error("{0}")]
    Syntax(Problem),
    #[error(transparent)]
    Fields(serde_json::Error),
    #[error("it is {kind} of {version}, not CredentialProviderConfig of {}", FILE_VERSIONS[0])]
    OtherKind { kind: String, version: String },
    #[error("it has no providers")]
    NoProviders,
    #[error("there are two providers named {0:?}")]
    Twice(String),
    #[error("providers[{number}]: {error}")]
    Provider { number: usize, error: InvalidProvider },
}

/// Mistake in the settings of a provider. Most begin with its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidProvider {
    #[error(transparent)]
    Fields(serde_json::Error),
    #[error("name {0:?} must be the name of a program, without directories and blanks")]
    Name(String),
    #[error("{0} has no matchImages")]
    NoImages(String),
    #[error("{name}: matchImages {image:?} must begin with a host, without a scheme")]
    Image { name: String, image: String },
    #[error("{name}: apiVersion {version:?} must be {}", PLUGIN_VERSIONS[0])]
    Version { name: String, version: String },
    #[error("{0} has no defaultCacheDuration")]
    NoDuration(String),
    #[error("{name}: defaultCacheDuration {text:?} must be a time such as \"12h\"")]
    Duration { name: String, text: String },
    #[error("{0} wants tokens of service accounts (tokenAttributes), which only an API server gives")]
    Tokens(String),
}

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
