//! Settings from a TOML file, the files of `conf.d` beside it in order, and `STANCHION_…` variables.

mod images;
mod source;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use config::{Config, Environment, File, FileFormat};
use indexmap::IndexMap;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;
use stanchion_agent::config::{
    AgentConfig, DefaultBackend, Failover, ImageGc, Level, NodeShutdown, Policy, Remembered,
};
use stanchion_runtime::OnReturn;

use images::RawImages;
use source::RawSource;
use stanchion_untrusted::{Links, read_text};

use crate::limits;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Settings of the agent.
    pub agent: AgentConfig,
    /// Address of the health endpoint.
    pub health_address: Option<SocketAddr>,
    /// Settings of the backends, in the order of the file.
    pub backends: Vec<BackendSettings>,
}

/// Settings of one backend.
#[derive(Clone, Debug)]
pub struct BackendSettings {
    /// Name of the backend.
    pub name: String,
    /// Path of its library.
    pub library: PathBuf,
    /// SHA-256 that the library must have.
    pub sha256: Option<String>,
    /// Failover during the backend's outage, if the agent decides about it.
    pub failover: Option<Failover>,
    /// Remaining keys of its table, which the backend checks itself.
    pub table: Value,
}

/// The file as written. Every key is optional.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    agent: RawAgent,
    source: Vec<RawSource>,
    backend: IndexMap<String, BTreeMap<String, Value>>,
    images: RawImages,
    runtime_classes: BTreeMap<String, String>,
    policy: RawPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPolicy {
    level: Option<String>,
    registries: Option<Vec<String>>,
    exempt_namespaces: Vec<String>,
}

impl RawPolicy {
    fn check(self) -> Result<Policy, String> {
        let level = match self.level.as_deref() {
            None | Some("privileged") => Level::Privileged,
            Some("baseline") => Level::Baseline,
            Some("restricted") => Level::Restricted,
            Some(other) => {
                return Err(format!("policy.level {other:?} must be \"privileged\", \"baseline\" or \"restricted\""));
            }
        };
        if self.registries.iter().flatten().any(|registry| registry.trim_matches('/').is_empty()) {
            return Err("policy.registries must name registries, e.g. \"docker.io/library\"".to_owned());
        }
        Ok(Policy { level, registries: self.registries, exempt_namespaces: self.exempt_namespaces })
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAgent {
    node_name: Option<String>,
    state_dir: PathBuf,
    run_dir: PathBuf,
    log_dir: PathBuf,
    log_links: Option<PathBuf>,
    plugin_dir: PathBuf,
    default_backend: String,
    seccomp_default: bool,
    allowed_unsafe_sysctls: Vec<String>,
    pod_pids_limit: Option<i64>,
    max_pods: u64,
    resolv_conf: Option<PathBuf>,
    shutdown_grace_period: String,
    shutdown_grace_period_critical_pods: String,
    removed_pods: usize,
    removed_pods_for: String,
    health_address: Option<String>,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            node_name: None,
            state_dir: "/var/lib/stanchion".into(),
            run_dir: "/run/stanchion".into(),
            log_dir: "/var/log/stanchion/pods".into(),
            log_links: None,
            plugin_dir: "/usr/lib/stanchion/backends".into(),
            default_backend: "auto".to_owned(),
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            pod_pids_limit: None,
            max_pods: 110,
            resolv_conf: None,
            shutdown_grace_period: "30s".to_owned(),
            shutdown_grace_period_critical_pods: "10s".to_owned(),
            removed_pods: Remembered::default().most,
            removed_pods_for: "24h".to_owned(),
            health_address: None,
        }
    }
}

impl RawAgent {
    fn node_shutdown(&self) -> Result<NodeShutdown, String> {
        let grace = time("agent.shutdown_grace_period", &self.shutdown_grace_period)?;
        let critical = time("agent.shutdown_grace_period_critical_pods", &self.shutdown_grace_period_critical_pods)?;
        if critical > grace {
            return Err(
                "agent.shutdown_grace_period_critical_pods is a part of agent.shutdown_grace_period, and must \
                        not be longer than it"
                    .to_owned(),
            );
        }
        Ok(NodeShutdown { grace, critical })
    }
}

/// All known keys: an error about an unknown key suggests the nearest one.
const KEYS: [&str; 51] = [
    "agent",
    "policy",
    "policy.level",
    "policy.registries",
    "policy.exempt_namespaces",
    "source",
    "backend",
    "images",
    "runtime_classes",
    "agent.node_name",
    "agent.state_dir",
    "agent.run_dir",
    "agent.log_dir",
    "agent.log_links",
    "agent.plugin_dir",
    "agent.default_backend",
    "agent.seccomp_default",
    "agent.allowed_unsafe_sysctls",
    "agent.pod_pids_limit",
    "agent.max_pods",
    "agent.shutdown_grace_period",
    "agent.shutdown_grace_period_critical_pods",
    "agent.resolv_conf",
    "agent.health_address",
    "agent.removed_pods",
    "agent.removed_pods_for",
    "source.path",
    "source.url",
    "source.interval",
    "source.headers",
    "source.headers_file",
    "source.allow_empty",
    "source.kubelet",
    "source.kubelet_absent_for",
    "source.kubelet_runtime_state",
    "source.kubelet_lock_file",
    "images.preload",
    "images.credential_provider_config",
    "images.credential_provider_bin_dir",
    "images.gc_high_threshold_percent",
    "images.gc_low_threshold_percent",
    "images.minimum_gc_age",
    "images.maximum_gc_age",
    "images.gc_period",
    "backend.failover",
    "backend.failover_after",
    "backend.on_return",
    "backend.containerd",
    "backend.containerd.socket",
    "backend.containerd.registry",
    "backend.containerd.network",
];

/// Default path of the configuration.
pub const DEFAULT: &str = "/etc/stanchion/stanchion.toml";

impl Settings {
    /// Reads and checks the settings.
    pub fn load(path: &Path) -> Result<Self> {
        check(read(path)?).with_context(|| format!("configuration {}", path.display()))
    }
}

fn read(path: &Path) -> Result<Raw> {
    let mut files = vec![path.to_owned()];
    if let Ok(entries) = std::fs::read_dir(path.with_file_name("conf.d")) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        more.sort();
        files.extend(more);
    }
    // Each file is also read alone, so that an error about a typo names its file.
    let mut builder = Config::builder();
    for file in &files {
        let text = read_text(file, Links::Follow, limits::SETTINGS_FILE).with_context(|| {
            format!("cannot read the configuration {}; see config/stanchion.toml for an example", file.display())
        })?;
        let one = Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build();
        one.and_then(Config::try_deserialize::<Raw>).map_err(|error| explain(&error.to_string(), file))?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    // `STANCHION_CONFIG` belongs to the command line and is no setting.
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("STANCHION_") && name.contains("__"));
    let environment = Environment::with_prefix("STANCHION").prefix_separator("_").separator("__");
    let builder = builder.add_source(environment.source(Some(variables.collect())));
    builder.build().and_then(Config::try_deserialize::<Raw>).map_err(|error| explain(&error.to_string(), path))
}

fn explain(message: &str, file: &Path) -> anyhow::Error {
    let unknown = message.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`')).map(|(key, _)| key);
    let nearest = unknown.and_then(|key| {
        let last = |known: &str| known.rsplit('.').next().unwrap_or_default().to_owned();
        let score = |known: &str| strsim::jaro_winkler(&last(known), key);
        KEYS.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).filter(|known| score(known) > 0.7).map(last)
    });
    match (unknown, nearest) {
        (Some(key), Some(known)) => anyhow::anyhow!("{}: unknown key {key:?}, did you mean {known:?}?", file.display()),
        (Some(key), None) => anyhow::anyhow!("{}: unknown key {key:?}", file.display()),
        _ => anyhow::anyhow!("{}: {message}", file.display()),
    }
}

/// Returns whether a sysctl is namespaced (R-SEC-12).
fn is_namespaced(name: &str) -> bool {
    name == "kernel.sem" || ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|it| name.starts_with(it))
}

fn check(raw: Raw) -> Result<Settings> {
    let mut wrong = Vec::new();
    let node_shutdown = raw.agent.node_shutdown();
    let node_name = raw.agent.node_name.unwrap_or_else(host_name).trim().to_lowercase();
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if node_name.len() > 200 || !node_name.split('.').all(is_label) {
        wrong.push(format!("agent.node_name {node_name:?} must be letters, digits, '-' and '.', as a DNS name"));
    }
    let places = [
        ("agent.state_dir", &raw.agent.state_dir),
        ("agent.run_dir", &raw.agent.run_dir),
        ("agent.log_dir", &raw.agent.log_dir),
        ("agent.plugin_dir", &raw.agent.plugin_dir),
    ];
    let sources = raw.source.iter().flat_map(RawSource::paths);
    let preload = raw.images.paths();
    let links = raw.agent.log_links.iter().map(|path| ("agent.log_links", path));
    // An empty path is allowed.
    let resolver = raw.agent.resolv_conf.iter().filter(|path| !path.as_os_str().is_empty());
    let resolver = resolver.map(|path| ("agent.resolv_conf", path));
    let places = places.into_iter().chain(sources).chain(preload).chain(links).chain(resolver);
    for (key, path) in places.filter(|(_, path)| !path.is_absolute()) {
        wrong.push(format!("{key} {:?} must be an absolute path", path.display()));
    }
    if let Some(limit) = raw.agent.pod_pids_limit.filter(|limit| *limit < 1) {
        wrong.push(format!("agent.pod_pids_limit {limit} must be at least 1; leave it out for no limit"));
    }
    let age = time("agent.removed_pods_for", &raw.agent.removed_pods_for).unwrap_or_else(|error| {
        wrong.push(error);
        Remembered::default().age
    });
    let health_address = raw.agent.health_address.as_deref().and_then(|address| {
        let parsed = address.parse().ok();
        if parsed.is_none() {
            wrong.push(format!(
                "agent.health_address must be an address with a port, e.g. \"127.0.0.1:10348\", not {address:?}"
            ));
        }
        parsed
    });
    if raw.agent.max_pods == 0 {
        wrong.push("agent.max_pods must be at least 1; leave it out for 110".to_owned());
    }
    let node_shutdown = node_shutdown.unwrap_or_else(|error| {
        wrong.push(error);
        NodeShutdown::default()
    });
    for sysctl in &raw.agent.allowed_unsafe_sysctls {
        let name = sysctl.strip_suffix('*').unwrap_or(sysctl).replace('/', ".");
        if !is_namespaced(&name) {
            wrong.push(format!(
                "agent.allowed_unsafe_sysctls {sysctl:?} must be a sysctl that each pod has for itself: net.…, \
                 kernel.shm…, kernel.msg…, kernel.sem or fs.mqueue.…"
            ));
        }
    }
    let mut sources = Vec::new();
    for source in raw.source {
        match source.check() {
            Ok(source) => sources.push(source),
            Err(problem) => wrong.push(problem),
        }
    }
    let policy = raw.policy.check().unwrap_or_else(|problem| {
        wrong.push(problem);
        Policy::default()
    });
    let image_gc = raw.images.gc().unwrap_or_else(|problem| {
        wrong.push(problem);
        ImageGc::default()
    });
    let credential_providers = raw.images.providers().unwrap_or_else(|problem| {
        wrong.push(problem);
        None
    });
    let mut backends = Vec::new();
    for (name, mut table) in raw.backend {
        let failover = failover(&mut table).unwrap_or_else(|problem| {
            wrong.push(format!("backend.{name}.{problem}"));
            None
        });
        let mut text = |key: &str| match table.remove(key) {
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                wrong.push(format!("backend.{name}.{key} must be text, not {other}"));
                None
            }
            None => None,
        };
        let (library, sha256) = (text("library").map(PathBuf::from), text("sha256"));
        if let Some(library) = library.as_ref().filter(|library| !library.is_absolute()) {
            wrong.push(format!("backend.{name}.library {:?} must be an absolute path", library.display()));
        }
        let library = library.unwrap_or_else(|| raw.agent.plugin_dir.join(format!("libstanchion_{name}.so")));
        backends.push(BackendSettings { name, library, sha256, failover, table: table.into_iter().collect() });
    }
    let known: Vec<_> = backends.iter().map(|backend| backend.name.as_str()).collect();
    let choice = raw.agent.default_backend.as_str();
    let mut named: Vec<_> =
        raw.runtime_classes.iter().map(|(class, name)| (format!("runtime_classes.{class}"), name.as_str())).collect();
    if choice != "auto" {
        named.push(("agent.default_backend".to_owned(), choice));
    }
    for (key, name) in named.into_iter().filter(|(_, name)| !known.contains(name)) {
        wrong.push(format!("{key} names backend {name:?}, but there is no [backend.{name}]; there are {known:?}"));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    let default_backend = match choice {
        "auto" => DefaultBackend::Auto,
        name => DefaultBackend::Named(name.to_owned()),
    };
    let agent = AgentConfig {
        node_name,
        state_dir: raw.agent.state_dir,
        run_dir: raw.agent.run_dir,
        log_dir: raw.agent.log_dir,
        log_links: raw.agent.log_links,
        sources,
        default_backend,
        runtime_classes: raw.runtime_classes,
        preload: raw.images.preload,
        credential_providers,
        image_gc,
        seccomp_default: raw.agent.seccomp_default,
        allowed_unsafe_sysctls: raw.agent.allowed_unsafe_sysctls,
        pod_pids_limit: raw.agent.pod_pids_limit,
        max_pods: raw.agent.max_pods,
        resolv_conf: raw.agent.resolv_conf,
        policy,
        node_shutdown,
        remembered: Remembered { most: raw.agent.removed_pods, age },
    };
    Ok(Settings { agent, health_address, backends })
}

/// Parses a time of a setting; without a text it is the default.
fn time_or(key: &str, text: Option<&str>, usual: Duration) -> Result<Duration, String> {
    text.map_or(Ok(usual), |text| time(key, text))
}

/// Parses a time of a setting.
fn time(key: &str, text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| time.try_into().ok());
    time.ok_or_else(|| format!("{key} must be a time such as \"30s\" or \"2m\", not {text:?}"))
}

/// Takes the failover settings out of a backend's table. A backend with its own setting, `when_socket_absent`, reports
/// failover itself.
fn failover(table: &mut BTreeMap<String, Value>) -> Result<Option<Failover>, String> {
    if table.contains_key("when_socket_absent") {
        return Ok(None);
    }
    let mut failover = Failover::default();
    let is_wanted = match table.remove("failover") {
        None => false,
        Some(Value::Bool(wanted)) => wanted,
        Some(other) => return Err(format!("failover must be true or false, not {other}")),
    };
    if let Some(after) = table.remove("failover_after") {
        failover.after = match &after {
            Value::String(text) => time("failover_after", text)?,
            other => return Err(format!("failover_after must be a time such as \"10s\" or \"2m\", not {other}")),
        };
    }
    if let Some(on_return) = table.remove("on_return") {
        failover.on_return = match on_return.as_str() {
            Some("stay") => OnReturn::Stay,
            Some("migrate") => OnReturn::Migrate,
            _ => return Err(format!("on_return must be \"stay\" or \"migrate\", not {on_return}")),
        };
    }
    Ok(is_wanted.then_some(failover))
}

/// Returns the host's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
