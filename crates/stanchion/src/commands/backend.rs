//! `stanchion backend`: commands for authors of backends.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use stanchion_loader::{LoadedBackend, load};
use stanchion_runtime::{
    Runtime as _,
    clock::instant,
    testing::conformance::{self, Case, Options, Transcript},
};
use stanchion_untrusted::{text::escaped_lines, tree};

use crate::{
    backends,
    config::{BackendSettings, Settings},
    run::{self, LogFormat},
};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Run the conformance suite on a backend library and say what passes, what is unsupported and what fails
    ///
    /// The exit code is 0 when nothing fails. The backend is opened with its table of the configuration, like by the
    /// agent, which must not run meanwhile: it would remove the suite's pods.
    Check(Check),
}

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The library, lib….so
    library: PathBuf,
    /// Name of the backend, if no [backend.NAME] of the configuration has the library
    #[arg(long)]
    name: Option<String>,
    /// Pull this image, with a busybox-like sh, instead of importing one made of this node's own programs
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,
    /// Only cases whose names begin with this
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
}

/// Runs the action.
pub fn run(config: &Path, action: &Action) -> Result<ExitCode> {
    let Action::Check(options) = action;
    let settings = Settings::load(config)?;
    let backend = named(&settings, config, options)?;
    run::log(LogFormat::Text, "warn");
    let _lock = run::prepare(&settings.agent)?;
    let dir = Dir::new()?;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let transcript = tokio.context("starting the threads")?.block_on(async {
        let backend = load(backends::spec(&backend, &settings.agent)).await.map_err(|error| anyhow!(error.chain()))?;
        check(&backend, options, &dir.0).await
    })?;
    Ok(if transcript.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the settings of the backend: of the one with the library, of the one with the name, or defaults for a new
/// name.
fn named(settings: &Settings, config: &Path, options: &Check) -> Result<BackendSettings> {
    let library = fs::canonicalize(&options.library).with_context(|| format!("no {}", options.library.display()))?;
    let has_it = |backend: &&BackendSettings| match &options.name {
        Some(name) => backend.name == *name,
        None => fs::canonicalize(&backend.library).is_ok_and(|its| its == library),
    };
    let found: Vec<_> = settings.backends.iter().filter(has_it).cloned().collect();
    match (&found[..], &options.name) {
        ([backend], _) => Ok(BackendSettings { library, ..backend.clone() }),
        ([], Some(name)) => {
            Ok(BackendSettings { name: name.clone(), library, sha256: None, failover: None, table: json!({}) })
        }
        ([], None) => bail!(
            "no [backend.NAME] of {} has library = {library:?}; add it, or name the backend with --name NAME",
            config.display()
        ),
        (several, _) => {
            let names: Vec<_> = several.iter().map(|backend| &backend.name).collect();
            bail!("several backends have that library, {names:?}; choose one with --name NAME")
        }
    }
}

async fn check(backend: &LoadedBackend, options: &Check, dir: &Path) -> Result<Transcript> {
    let version = backend.version().await.map_err(|error| anyhow!(error.chain()))?;
    let (major, minor) = backend.abi();
    println!(
        "{} {}, library {}, ABI {major}.{minor}",
        version.runtime,
        version.runtime_version,
        backend.library_version()
    );
    let suite = suite(options, version.capabilities.import, dir)?;
    let start = instant();
    let transcript = conformance::run(backend, &suite).await;
    let (all, failed, unsupported) =
        (transcript.cases.len(), transcript.failures().len(), transcript.unsupported().len());
    let passed = all - failed - unsupported;
    let took = start.elapsed().as_secs_f32();
    println!("{passed} passed, {unsupported} unsupported, {failed} failed, in {took:.1} s");
    match (all, backend.stuck_calls()) {
        (0, _) => bail!("no case has a name that begins with {:?}", options.only.as_deref().unwrap_or_default()),
        (_, 0) => Ok(transcript),
        (_, stuck) => bail!("{stuck} calls that were given up have not ended: check what they wait for"),
    }
}

/// Returns the suite's options, for a backend that imports archives or does not.
pub(crate) fn suite(options: &Check, can_import: bool, dir: &Path) -> Result<Options> {
    let mut suite = match &options.image {
        Some(image) => Options::pulling(image, dir),
        None if can_import => Options::making_the_image(dir)
            .context("cannot make an image of this node's programs; name one to pull with --image")?,
        None => bail!("this backend does not import archives; name an image to pull with --image"),
    };
    suite.only.clone_from(&options.only);
    suite.on_case = Some(tell);
    Ok(suite)
}

fn tell(case: &Case, took: Duration) {
    println!("{}", escaped_lines(&case.line(took)));
}

/// Temporary directory of the suite, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("stanchion-check-{}", std::process::id()));
        // Everyone may read and enter it, because a container's user may be anyone.
        DirBuilder::new().mode(0o755).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
