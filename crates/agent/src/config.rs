//! What the agent is told: values that are already checked.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use hyper::HeaderMap;
use stanchion_runtime::OnReturn;

use crate::url::Url;

/// Settings of the agent. The binary builds them from TOML.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the node: a DNS subdomain.
    pub node_name: String,
    /// Survives a reboot: last good manifests, volumes.
    pub state_dir: PathBuf,
    /// Gone after a reboot: the socket.
    pub run_dir: PathBuf,
    /// Root of the container logs.
    pub log_dir: PathBuf,
    /// Where log shippers look for links to the logs.
    pub log_links: Option<PathBuf>,
    /// Where manifests come from, in order: of two sources naming one pod, the earlier wins.
    pub sources: Vec<SourceConfig>,
    /// The backend of pods without `runtimeClassName`.
    pub default_backend: DefaultBackend,
    /// `runtimeClassName` → backend.
    pub runtime_classes: BTreeMap<String, String>,
    /// Watched for image archives, which are imported into every backend.
    pub preload: Option<PathBuf>,
    /// Programs that give credentials for registries.
    pub credential_providers: Option<CredentialProviders>,
    /// When images that nothing uses are removed.
    pub image_gc: ImageGc,
    /// Containers without a seccomp profile have the runtime's own; else none confines them, as with a kubelet.
    pub seccomp_default: bool,
    /// Kernel parameters that pods may set beyond the safe ones: names, or beginnings of names with `*` after them.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The most processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// The most pods on the node.
    pub max_pods: u64,
    /// The node's resolver file, for pods; an empty path stands for a resolver on the node itself. `None`: the usual one, or
    /// systemd-resolved's where pods cannot use that.
    pub resolv_conf: Option<PathBuf>,
    /// What manifests may ask for.
    pub policy: Policy,
    /// How long pods may take to end when the node shuts down.
    pub node_shutdown: NodeShutdown,
    /// How much is kept of removed pods.
    pub remembered: Remembered,
}

/// The time that pods have when the node shuts down. All of it zero: they are left to whatever ends the node's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShutdown {
    /// For all together (`shutdownGracePeriod` of a kubelet).
    pub grace: Duration,
    /// The part of it that is for critical pods, which end last (`shutdownGracePeriodCriticalPods`).
    pub critical: Duration,
}

impl Default for NodeShutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), critical: Duration::from_secs(10) }
    }
}

/// Where kubelet's credential provider plugins are (R-IMG-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProviders {
    /// A `CredentialProviderConfig`, or a directory of them.
    pub config: PathBuf,
    /// The directory of the programs.
    pub bin_dir: PathBuf,
}

/// When images that the agent has brought and nothing uses are removed (R-IMG-11). The default is a kubelet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGc {
    /// From how many percent of their file system on, and below how many it is enough; `None` is never.
    pub thresholds: Option<(u8, u8)>,
    /// How long an image must have been here to be removed for want of room.
    pub minimum_age: Duration,
    /// How long nothing must have used an image for it to be removed whether or not there is room; `None` is never.
    pub maximum_age: Option<Duration>,
    /// From one look to the next.
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

/// How many removed pods are remembered, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The most pods; with 0 nothing is kept.
    pub most: usize,
    /// How long a pod is remembered.
    pub age: Duration,
}

impl Default for Remembered {
    /// A day, as far as files stay few.
    fn default() -> Self {
        Self { most: 100, age: Duration::from_secs(24 * 3600) }
    }
}

/// What manifests may ask for. The default is what a kubelet allows: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The Pod Security Standard that pods keep.
    pub level: Level,
    /// Where images may be from: registries, or beginnings of repositories in them; `None` is anywhere.
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
    /// What a server says.
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
    /// The kubelet that it belongs to: while that is there, its pods are not run here.
    pub kubelet: Option<Kubelet>,
}

/// Manifests that a server has, all of them in one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSource {
    /// Where they are.
    pub url: Url,
    /// From the end of one request to the next.
    pub interval: Duration,
    /// Sent instead of the headers that a request would have. They are marked as sensitive, and so never shown.
    pub headers: HeaderMap,
    /// A file with more of them, a `Name: value` on each line, read before each request.
    pub headers_file: Option<PathBuf>,
    /// Whether an empty body means that there are no pods. It is a failure otherwise.
    pub allow_empty: bool,
}

/// A kubelet on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Where it says how it is (`healthzBindAddress`, `healthzPort`).
    pub address: SocketAddr,
    /// How long it must not have answered before its pods are run here.
    pub absent_for: Duration,
    /// State directories of the containerds that may run its containers.
    pub runtime_state: Vec<PathBuf>,
    /// Its `--lock-file`, where it has one: it is held while its pods are run here.
    pub lock_file: Option<PathBuf>,
}

/// Which backend takes pods that name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultBackend {
    /// This one.
    Named(String),
    /// The first healthy one, in the configuration's order.
    Auto,
}

/// How the pods of a backend that is gone run on another: those with `restartPolicy: Always` that name no runtime class,
/// once nothing of them lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How long the backend must have been away.
    pub after: Duration,
    /// Where they run when it is back.
    pub on_return: OnReturn,
}

impl Default for Failover {
    /// Longer than a daemon takes to be restarted or upgraded.
    fn default() -> Self {
        Self { after: Duration::from_secs(10), on_return: OnReturn::Stay }
    }
}
