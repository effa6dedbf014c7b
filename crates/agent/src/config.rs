//! Settings of the agent, already checked.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use hyper::HeaderMap;
pub use stanchion_plan::place::{DefaultBackend, Failover};

use crate::url::Url;

/// Settings of the agent. The binary builds them from TOML.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the node: a DNS subdomain.
    pub node_name: String,
    /// Directory for files that survive a reboot: last good manifests, volumes.
    pub state_dir: PathBuf,
    /// Directory for files that a reboot clears: the socket.
    pub run_dir: PathBuf,
    /// Root of the container logs.
    pub log_dir: PathBuf,
    /// Directory of links to the logs, for log shippers; `None` makes no links.
    pub log_links: Option<PathBuf>,
    /// Sources of manifests. If two define one pod, the earlier source wins.
    pub sources: Vec<SourceConfig>,
    /// Backend of pods without `runtimeClassName`.
    pub default_backend: DefaultBackend,
    /// Backends by `runtimeClassName`.
    pub runtime_classes: BTreeMap<String, String>,
    /// Directory of image archives. The agent watches it, and imports them into every backend.
    pub preload: Option<PathBuf>,
    /// Credential provider plugins for registries.
    pub credential_providers: Option<CredentialProviders>,
    /// Removal of unused images.
    pub image_gc: ImageGc,
    /// `true` gives containers without a seccomp profile the runtime's default one; `false` runs them unconfined, as a
    /// kubelet does.
    pub seccomp_default: bool,
    /// Allowed sysctls beyond the safe ones. A `*` at the end of a name stands for any text.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Maximum number of processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// Maximum number of pods on the node.
    pub max_pods: u64,
    /// The node's `resolv.conf`, for pods. An empty path stands for a resolver on the node itself. `None` is the usual
    /// file, or systemd-resolved's if pods cannot use the usual one.
    pub resolv_conf: Option<PathBuf>,
    /// Limits on manifests.
    pub policy: Policy,
    /// Time that pods have to end when the node shuts down.
    pub node_shutdown: NodeShutdown,
    /// Bounds on the kept state of removed pods.
    pub remembered: Remembered,
}

/// Time that pods have to end when the node shuts down. If both are zero, the agent does not end them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShutdown {
    /// Time for all pods together (a kubelet's `shutdownGracePeriod`).
    pub grace: Duration,
    /// Part of it for critical pods, which end last (a kubelet's `shutdownGracePeriodCriticalPods`).
    pub critical: Duration,
}

impl Default for NodeShutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), critical: Duration::from_secs(10) }
    }
}

/// Paths of a kubelet's credential provider plugins (R-IMG-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProviders {
    /// A file with a `CredentialProviderConfig`, or a directory of such files.
    pub config: PathBuf,
    /// Directory of the plugins.
    pub bin_dir: PathBuf,
}

/// Removal of unused images that the agent has pulled or imported (R-IMG-11). The default is a kubelet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGc {
    /// Usage of the images' file system, percent, at which removal begins, and at which it ends; `None` never removes
    /// images to free space.
    pub thresholds: Option<(u8, u8)>,
    /// Minimum age of an image that is removed to free space.
    pub minimum_age: Duration,
    /// Time without use after which an image is removed even if there is space; `None` keeps it.
    pub maximum_age: Option<Duration>,
    /// Interval of the checks.
    pub period: Duration,
}

impl Default for ImageGc {
    fn default() -> Self {
        Self {
            thresholds: Some((85, 80)),
            minimum_age: Duration::from_secs(120),
            maximum_age: None,
            period: Duration::from_secs(300),
        }
    }
}

/// Bounds on the kept state of removed pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Maximum number of pods; 0 keeps none.
    pub most: usize,
    /// Time for which a pod is kept.
    pub age: Duration,
}

impl Default for Remembered {
    /// Returns bounds of 100 pods and one day.
    fn default() -> Self {
        Self { most: 100, age: Duration::from_secs(24 * 3600) }
    }
}

/// Limits on manifests. The default allows everything, as a kubelet does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pod Security Standard that pods must meet.
    pub level: Level,
    /// Allowed origins of images: registries, or paths in them; `None` allows any.
    pub registries: Option<Vec<String>>,
    /// Namespaces whose pods are exempt from all limits.
    pub exempt_namespaces: Vec<String>,
}

/// Kubernetes' Pod Security Standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// A source of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// Files of this node.
    Files(FileSource),
    /// A URL that serves manifests.
    Url(UrlSource),
}

impl From<PathBuf> for SourceConfig {
    fn from(path: PathBuf) -> Self {
        Self::Files(FileSource { path, kubelet: None })
    }
}

/// Manifests in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// Directory of manifests, or one manifest file.
    pub path: PathBuf,
    /// Kubelet that the source belongs to. While it is running, the agent does not run the source's pods.
    pub kubelet: Option<Kubelet>,
}

/// Manifests from a server, all in one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSource {
    /// Address of the manifests.
    pub url: Url,
    /// Pause between two requests.
    pub interval: Duration,
    /// Headers that replace the default ones. They are marked as sensitive, so that nothing shows them.
    pub headers: HeaderMap,
    /// File with more such headers, one `Name: value` a line. It is read before each request.
    pub headers_file: Option<PathBuf>,
    /// `true` takes an empty body as an order to run no pods; `false` takes it as a failure.
    pub allow_empty: bool,
}

/// A kubelet on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Address of its health endpoint (`healthzBindAddress`, `healthzPort`).
    pub address: SocketAddr,
    /// Time without an answer after which the agent runs its pods.
    pub absent_for: Duration,
    /// State directories of the containerds that may run its containers.
    pub runtime_state: Vec<PathBuf>,
    /// Its `--lock-file`, if it has one. The agent holds the lock while it runs the pods.
    pub lock_file: Option<PathBuf>,
}
