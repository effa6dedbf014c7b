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
    /// How much is kept of removed pods.
    pub remembered: Remembered,
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
