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
    /// Directory of what survives a reboot: last good manifests, volumes.
    pub state_dir: PathBuf,
    /// Directory of what is gone after a reboot: the socket.
    pub run_dir: PathBuf,
    /// Root of the container logs.
    pub log_dir: PathBuf,
    /// Directory of links to the logs, for log shippers.
    pub log_links: Option<PathBuf>,
    /// Sources of manifests, in order: of two that define one pod, the earlier wins.
    pub sources: Vec<SourceConfig>,
    /// The backend of pods without `runtimeClassName`.
    pub default_backend: DefaultBackend,
    /// `runtimeClassName` → backend.
    pub runtime_classes: BTreeMap<String, String>,
    /// Directory that is watched for image archives, which are imported into every backend.
    pub preload: Option<PathBuf>,
    /// Credential provider plugins for registries.
    pub credential_providers: Option<CredentialProviders>,
    /// Removal of unused images.
    pub image_gc: ImageGc,
    /// `true`: containers without a seccomp profile get the runtime's default one. `false`: they run unconfined, as
    /// with a kubelet.
    pub seccomp_default: bool,
    /// Sysctls that pods may set beyond the safe ones: names, or beginnings of names with `*` after them.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Maximum number of processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// Maximum number of pods on the node.
    pub max_pods: u64,
    /// The node's `resolv.conf`, for pods; an empty path stands for a resolver on the node itself. `None`: the usual
    /// file, or systemd-resolved's where pods cannot use that.
    pub resolv_conf: Option<PathBuf>,
    /// Limits on what manifests may ask for.
    pub policy: Policy,
    /// Time that pods have to end when the node shuts down.
    pub node_shutdown: NodeShutdown,
    /// Bounds on what is kept of removed pods.
    pub remembered: Remembered,
}

/// Time that pods have to end when the node shuts down. If both are zero, they are left to whatever ends the node's
/// processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShutdown {
    /// Time for all pods together (kubelet's `shutdownGracePeriod`).
    pub grace: Duration,
    /// The part of it for critical pods, which end last (kubelet's `shutdownGracePeriodCriticalPods`).
    pub critical: Duration,
}

impl Default for NodeShutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), critical: Duration::from_secs(10) }
    }
}

/// Location of kubelet's credential provider plugins (R-IMG-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProviders {
    /// A file with a `CredentialProviderConfig`, or a directory of such files.
    pub config: PathBuf,
    /// Directory of the plugins.
    pub bin_dir: PathBuf,
}

/// Removal of images that the agent has brought and nothing uses (R-IMG-11). The default is a kubelet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGc {
    /// Usage of the images' file system, percent, at which removal begins, and at which it ends; `None`: images are
    /// never removed for want of space.
    pub thresholds: Option<(u8, u8)>,
    /// Minimum age of an image that is removed for want of space.
    pub minimum_age: Duration,
    /// Time without use after which an image is removed even if there is space; `None`: never.
    pub maximum_age: Option<Duration>,
    /// Time from one look to the next.
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

/// Bounds on the removed pods that are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Maximum number of pods; with 0 nothing is kept.
    pub most: usize,
    /// Time for which a pod is remembered.
    pub age: Duration,
}

impl Default for Remembered {
    /// Keeps 100 pods for a day: the files stay few.
    fn default() -> Self {
        Self { most: 100, age: Duration::from_secs(24 * 3600) }
    }
}

/// Limits on what manifests may ask for. The default allows everything, as a kubelet does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The Pod Security Standard that pods must meet.
    pub level: Level,
    /// Allowed origins of images: registries, or paths in them; `None`: any.
    pub registries: Option<Vec<String>>,
    /// Namespaces whose pods may ask for anything.
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
    /// A directory of manifests, or one manifest file.
    pub path: PathBuf,
    /// The kubelet that the source belongs to: while that is there, the pods are not run here.
    pub kubelet: Option<Kubelet>,
}

/// Manifests that a server has, all of them in one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSource {
    /// Address of the manifests.
    pub url: Url,
    /// Time from the end of one request to the next.
    pub interval: Duration,
    /// Headers that replace the default ones. They are marked as sensitive, and so never shown.
    pub headers: HeaderMap,
    /// A file with more such headers, a `Name: value` on each line, read before each request.
    pub headers_file: Option<PathBuf>,
    /// `true`: an empty body means that there are no pods. `false`: it is a failure.
    pub allow_empty: bool,
}

/// A kubelet on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Address of its health endpoint (`healthzBindAddress`, `healthzPort`).
    pub address: SocketAddr,
    /// Time without an answer after which its pods are run here.
    pub absent_for: Duration,
    /// State directories of the containerds that may run its containers.
    pub runtime_state: Vec<PathBuf>,
    /// Its `--lock-file`, if it has one; the agent holds the lock while the pods run here.
    pub lock_file: Option<PathBuf>,
}
