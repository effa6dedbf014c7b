//! `stanchion run`: the agent, from its start to its end.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, IsTerminal, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use stanchion_agent::{Agent, Supervisor, api, config::AgentConfig, health};
use stanchion_board::view::NodeView;
use stanchion_loader::memory;
use stanchion_runtime::clock;
use stanchion_untrusted::text::{escaped, escaped_json};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{FormatFields, format::debug_fn},
};

use crate::{
    backends,
    config::Settings,
    notify::{notify, watchdog},
    shutdown,
};

/// How often unused memory returns to the node: more often than an idle agent's periodic work, whose memory would
/// otherwise stay.
const GIVE_BACK: Duration = Duration::from_secs(4);
/// Maximum that the agent raises its limit of open files to: programs that close every possible inherited descriptor
/// would take minutes with more.
const MOST_OPEN_FILES: u64 = 1 << 20;
/// Time beyond the pods' grace period until systemd may kill the agent during a shutdown.
const MARGIN: Duration = Duration::from_secs(30);

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How the log is written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Runs the agent until a signal ends it.
pub fn run(config: &Path, options: &Options) -> Result<ExitCode> {
    let settings = Settings::load(config)?;
    log(options.log_format, "info");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the agent starts");
    raise_open_files();
    memory::share_one_heap();
    let _lock = prepare(&settings.agent)?;
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("starting the threads")?;
    tokio.block_on(agent(settings))
}

async fn agent(settings: Settings) -> Result<ExitCode> {
    let shutdown = CancellationToken::new();
    let tasks = Supervisor::new(shutdown.clone());
    let backends = settings.backends.iter().map(|backend| backends::open(backend, &settings.agent, &tasks)).collect();
    let socket = listen(&socket_path(&settings.agent))?;
    let node = NodeView {
        name: settings.agent.node_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(clock::now()),
        info: node_info(),
        log_dir: settings.agent.log_dir.clone(),
        ..NodeView::default()
    };
    let limits = settings.agent.node_shutdown;
    let agent = Agent::new(settings.agent, backends, node);
    if let Some(address) = settings.health_address {
        tasks.spawn("health", health::serve(agent.handle(), address, shutdown.clone()));
    }
    let (handle, served) = (agent.handle(), shutdown.clone());
    let ending = handle.clone();
    tasks.spawn("local API", api::serve(handle, socket, served));
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let told = shutdown.clone();
    tasks.spawn("signals", async move {
        let is_told_to_end = tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => false,
            () = told.cancelled() => return,
        };
        if is_told_to_end && !limits.grace.is_zero() && shutdown::is_under_way().await {
            tracing::info!("the node shuts down; its pods are ended first");
            let time = limits.grace + MARGIN;
            notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
            ending.end_pods(limits).await;
        } else {
            tracing::info!("stopping; the pods run on");
            notify("STOPPING=1");
        }
        told.cancel();
    });
    let idle = shutdown.clone();
    tasks.spawn("memory", async move {
        while idle.run_until_cancelled(tokio::time::sleep(GIVE_BACK)).await.is_some() {
            memory::give_back();
        }
    });
    if let Some(period) = watchdog() {
        let (handle, idle) = (agent.handle(), shutdown.clone());
        tasks.spawn("watchdog", async move {
            while idle.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
                match handle.is_alive() {
                    Ok(()) => notify("WATCHDOG=1"),
                    Err(why) => tracing::error!(why, "skipping the message to the watchdog: the agent is not healthy"),
                }
            }
        });
    }
    notify("READY=1");
    let ended = agent.run(shutdown.clone()).await;
    shutdown.cancel();
    tasks.drain(Duration::from_secs(2)).await;
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Raises the limit of open files as far as the node allows: each followed log, exec, probe and pull needs some. The
/// agent's own child processes are short commands; containers have the limits of their runtime's service.
fn raise_open_files() {
    let limits = getrlimit(Resource::Nofile);
    let wanted = limits.maximum.unwrap_or(MOST_OPEN_FILES).min(MOST_OPEN_FILES);
    if limits.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limits.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays at {:?}", limits.current);
        }
    }
}

/// Returns the path of the agent's socket.
pub fn socket_path(agent: &AgentConfig) -> PathBuf {
    agent.run_dir.join("stanchion.sock")
}

/// Sets up the log on standard error, filtered by `RUST_LOG`, else by the given level.
pub fn log(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.fmt_fields(fields()).with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().with_writer(|| EscapedJson).init(),
    }
}

/// Standard error for a log in JSON: it escapes all control characters of a line, while JSON escapes only some.
struct EscapedJson;

impl Write for EscapedJson {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(escaped_json(&String::from_utf8_lossy(lines)).as_bytes())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Subdirectories of the agent's directories that only root may enter, the agent's own and its backends'. A local user
/// who could reach files that a pod may write, e.g. its `/dev/shm` in `ns`, could write to them too.
const PRIVATE: [&str; 13] = [
    "claims",
    "cni",
    "docker-images",
    "exec",
    "images",
    "input",
    "ipam",
    "manifests",
    "ns",
    "pause",
    "pods",
    "removed",
    "seccomp",
];
/// Directory with the bundles of K3s's containerd; a pod's own users pass through it to their files.
const PASSED: &str = "k3s";

/// Removes access for others that an earlier version left on the directories.
fn close(directory: &Path) -> io::Result<()> {
    for (name, mode) in PRIVATE.into_iter().map(|name| (name, 0o700)).chain([(PASSED, 0o711)]) {
        let path = directory.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() && found.permissions().mode() & 0o077 & !mode != 0 => {
                fs::set_permissions(&path, Permissions::from_mode(mode))?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Formats fields without control characters, so that a text from a container or registry cannot begin a new line.
fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|to, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(to, "{}", escaped(&value)),
            // Fields of the log crate hold only the place of the call.
            name if name.starts_with("log.") => Ok(()),
            name => write!(to, "{name}={}", escaped(&value)),
        }
    })
    .delimited(" ")
}

/// Creates the directories, and takes the lock that excludes a second agent.
pub fn prepare(agent: &AgentConfig) -> Result<File> {
    // Users of the agent look for its socket in `run_dir`; log shippers, which seldom run as root, read in `log_dir`.
    for (path, mode) in [(&agent.state_dir, 0o700), (&agent.run_dir, 0o755), (&agent.log_dir, 0o755)] {
        let made = DirBuilder::new().recursive(true).mode(mode).create(path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
    }
    for path in [&agent.state_dir, &agent.run_dir] {
        close(path).with_context(|| format!("cannot keep others out of the directories in {}", path.display()))?;
    }
    let path = agent.state_dir.join("lock");
    let mut lock = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = lock.as_mut().map_err(|error| anyhow::anyhow!("cannot open {}: {error}", path.display()))?;
    // An agent that was just killed may need a moment to exit.
    let is_taken = || flock(&*file, FlockOperation::NonBlockingLockExclusive).is_err();
    #[allow(clippy::disallowed_methods, reason = "before anything runs")]
    let stays_taken = (0..20).all(|_| {
        is_taken() && {
            std::thread::sleep(Duration::from_millis(100));
            true
        }
    });
    if stays_taken {
        let mut owner = String::new();
        file.read_to_string(&mut owner).context("reading the lock")?;
        bail!("another agent (pid {}) uses {}", owner.trim(), agent.state_dir.display());
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .context("writing the lock")?;
    lock.context("taking the lock")
}

fn listen(path: &Path) -> Result<UnixListener> {
    // The lock guarantees that no agent listens there any more.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let socket = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    Ok(socket)
}

fn node_info() -> BTreeMap<String, String> {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    BTreeMap::from([
        ("kernelVersion".to_owned(), text(system.release())),
        ("architecture".to_owned(), text(system.machine())),
        ("operatingSystem".to_owned(), text(system.sysname())),
    ])
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_node_lets_us() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // The limit is enough for the tests beside this one.
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), maximum }).expect("it is lowered");
        raise_open_files();
        let found = getrlimit(Resource::Nofile).current;
        assert_eq!(found, Some(maximum.unwrap_or(MOST_OPEN_FILES).min(MOST_OPEN_FILES)));
    }

    #[test]
    fn others_are_kept_out_of_what_an_earlier_version_has_left_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |name: &str| {
            let found = fs::metadata(dir.path().join(name)).expect("it is there");
            found.permissions().mode() & 0o7777
        };
        for name in ["ns", "exec", "k3s", "somebody-elses"] {
            fs::create_dir(dir.path().join(name)).expect("made");
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o755)).expect("set");
        }
        std::os::unix::fs::symlink("somebody-elses", dir.path().join("images")).expect("linked");
        close(dir.path()).expect("closed");
        assert_eq!(["ns", "exec", "k3s", "somebody-elses"].map(mode), [0o700, 0o700, 0o711, 0o755]);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_forges_lines_of_the_log() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let evil = "gone\nINFO forged\u{1b}[2J\u{9b}1m\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("pod", name = %evil);
            span.in_scope(|| tracing::warn!(error = %evil, reason = evil, debug = ?evil, "probe failed: {evil}"));
        });
        let text = String::from_utf8(written.0.lock().expect("nobody panicked").clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end_matches('\n').contains(|it: char| it.is_control() || it == '\u{202e}'), "{text:?}");
        assert!(text.contains("probe failed: gone\\nINFO forged\\x1b[2J"), "{text}");
    }
}
