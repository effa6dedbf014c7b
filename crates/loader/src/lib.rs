//! Checks, opens and drives backend libraries. The result, [`LoadedBackend`], is just another
//! [`Runtime`](stanchion_runtime::Runtime).
//!
//! # Layout
//! - [`load`]: the way in. [`check`]: who may have written the file. [`descriptor`]: what the library says of itself.
//! - [`LoadedBackend`] ([`proxy`]): the trait's methods as calls. [`call`]: one call and its answer.
//! - [`host`]: what the agent offers a backend: its log. [`memory`]: the heap that both use.

mod call;
mod check;
mod descriptor;
mod host;
mod instance;
pub mod memory;
mod proxy;

use std::{path::PathBuf, time::Duration};

use stanchion_runtime::{Error, ErrorKind, OpenRequest};

pub use proxy::LoadedBackend;

/// How long a backend may take to open.
const OPENING: Duration = Duration::from_secs(30);

/// Which backend to load.
#[derive(Clone, Debug)]
pub struct BackendSpec {
    /// Its name in the configuration; the library must offer a backend of that name.
    pub name: String,
    /// Absolute path of the library.
    pub library: PathBuf,
    /// SHA-256 that the file must have, in hexadecimal.
    pub sha256: Option<String>,
    /// What it is opened with.
    pub open: OpenRequest,
}

/// Loads and opens a backend.
///
/// # Errors
/// The library is missing, may have been written by others than root, is not a backend of this version, or did not open.
/// The message names the file and the way out.
pub async fn load(spec: BackendSpec) -> Result<LoadedBackend, Error> {
    let BackendSpec { name, library, sha256, open } = spec;
    let (file, wanted) = (library.clone(), name.clone());
    let found = tokio::task::spawn_blocking(move || {
        let file = check::library(&file, sha256.as_deref())?;
        descriptor::find(&file, &wanted)
    });
    let descriptor = found.await.map_err(|panic| {
        Error::new(ErrorKind::Crashed, format!("loading {}", library.display())).caused_by(&panic)
    })??;
    LoadedBackend::open(descriptor, library, open).await
}
