//! Tests of the library ABI with third-party libraries: in C against the header, and in Rust from another workspace
//! with its own lock file, its own tokio and other compiler settings.

mod build;
mod c_backend;
mod check;
mod conformance;
mod exports;
mod logged;
mod misbehaviour;
mod refusals;
mod storm;

use std::path::Path;

use serde_json::Value;
use stanchion_loader::{BackendSpec, LoadedBackend, load};
use stanchion_runtime::{Error, OpenRequest};

/// Loads a backend as the agent does.
async fn open(library: &Path, name: &str, config: Value) -> Result<LoadedBackend, Error> {
    let open = OpenRequest { config, ..OpenRequest::default() };
    load(BackendSpec { name: name.to_owned(), library: library.to_owned(), sha256: None, open }).await
}
