//! Checks, opens and drives backend libraries. The result, [`LoadedBackend`], is just another
//! [`Runtime`](stanchion_runtime::Runtime).
//!
//! # Layout
//! - [`load`]: the entry point. `check`: who could have written the file. `descriptor`: the library's description
//!   of itself.
//! - [`LoadedBackend`] (`proxy`): the trait's methods as calls. `instance`: an open backend. `call`: one call and
//!   its answer.
//! - `host`: the log that the agent offers a backend. [`memory`]: the heap that both use.

mod call;
mod check;
mod descriptor;
mod host;
mod instance;
pub mod memory;
mod proxy;

use std::{path::PathBuf, time::Duration};

use stanchion_runtime::{Error, OpenRequest, blocking};

pub use proxy::LoadedBackend;

/// Time limit for opening a backend.
const OPENING: Duration = Duration::from_secs(30);

/// Backend to load.
#[derive(Clone, Debug)]
pub struct BackendSpec {
    /// Name in the configuration; the library must offer a backend of that name.
    pub name: String,
    /// Absolute path of the library.
    pub library: PathBuf,
    /// SHA-256 that the file must have, in hexadecimal.
    pub sha256: Option<String>,
    /// Request that opens it.
    pub open: OpenRequest,
}

/// Loads and opens a backend.
///
/// # Errors
/// The library is missing, others than root or the agent's user could have written it, it is not a backend of this
/// version, or it did not open. The message names the file and the remedy.
pub async fn load(spec: BackendSpec) -> Result<LoadedBackend, Error> {
    let BackendSpec { name, library, sha256, open } = spec;
    let (file, wanted) = (library.clone(), name.clone());
    let found = blocking(move || {
        let file = check::library(&file, sha256.as_deref())?;
        descriptor::find(&file, &wanted)
    });
    let descriptor = found.await?;
    LoadedBackend::open(descriptor, library, open).await
}
