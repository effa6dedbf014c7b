//! A pod that cannot be wrong: what decoding, defaulting and validation leave for the agent to run.

mod env;
mod volume;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1 as wire;

pub use env::*;
pub use volume::*;

use crate::ObjectKey;

/// One static pod of this node, valid, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// What it is called; unique on the node.
    pub key: PodKey,
    /// Identifies this revision of it on this node.
    pub uid: PodUid,
    /// Hash of the user's document before defaults: what decides whether anything changed (design: identity).
    pub revision: Revision,
    /// Labels of the manifest.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// When its containers are started again.
    pub restart_policy: RestartPolicy,
    /// How long its containers may take to stop. At least one second.
    pub grace: Duration,
    /// Uses the node's network.
    pub host_network: bool,
    /// Host name inside the pod: `spec.hostname`, else the pod's name, at most 63 characters (R-HOST).
    pub hostname: String,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// Its containers, in the manifest's order; at least one.
    pub containers: Vec<Container>,
    /// Its volumes, by name.
    pub volumes: BTreeMap<String, Volume>,
    /// The manifest as Kubernetes' own type, defaults included, as `kubectl get -o yaml` shows it (without status).
    pub wire: Arc<wire::Pod>,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Unique in the pod.
    pub name: String,
    /// Image reference as the user wrote it, e.g. `redis`.
    pub image: String,
    /// When the image is fetched.
    pub pull_policy: PullPolicy,
    /// `command`: replaces the image's entrypoint. `$(NAME)` in it is expanded when the container starts.
    pub command: Option<Vec<String>>,
    /// `args`: replaces the image's arguments. `$(NAME)` in it is expanded when the container starts.
    pub args: Option<Vec<String>>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `envFrom`, in order; what `env` names wins.
    pub env_from: Vec<EnvFrom>,
    /// `env`, in order; of one name the last counts.
    pub env: Vec<Variable>,
    /// Ports of the pod that lead into this container.
    pub ports: Vec<Port>,
    /// Requests and limits.
    pub resources: Resources,
    /// Where volumes appear.
    pub mounts: Vec<VolumeMount>,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `name`.
    pub name: Option<String>,
    /// `containerPort`.
    pub container_port: u16,
    /// `hostPort`; `None` is not published on the node.
    pub host_port: Option<u16>,
    /// `hostIP`; `None` is every address of the node.
    pub host_ip: Option<IpAddr>,
    /// `protocol`.
    pub protocol: Protocol,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Requests and limits of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU request, millicores.
    pub cpu_request: Option<u64>,
    /// CPU limit, millicores.
    pub cpu_limit: Option<u64>,
    /// Memory request, bytes.
    pub memory_request: Option<u64>,
    /// Memory limit, bytes.
    pub memory_limit: Option<u64>,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// Namespace and name (node suffix included) of a pod. Both are valid DNS names, so safe in paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// `<metadata.name>-<node>`.
    pub name: String,
}

impl Pod {
    /// The objects that this pod refers to.
    #[must_use]
    pub fn references(&self) -> BTreeSet<&ObjectKey> {
        self.mentions().map(|(object, _)| object).collect()
    }

    /// Those of them without which it cannot start.
    #[must_use]
    pub fn needs(&self) -> BTreeSet<&ObjectKey> {
        self.mentions().filter(|(_, optional)| !optional).map(|(object, _)| object).collect()
    }

    /// The objects that it mentions, and whether each may be missing there.
    fn mentions(&self) -> impl Iterator<Item = (&ObjectKey, bool)> {
        let volumes = self.volumes.values().flat_map(Volume::mentions);
        volumes.chain(self.containers.iter().flat_map(Container::mentions))
    }
}

impl Container {
    fn mentions(&self) -> impl Iterator<Item = (&ObjectKey, bool)> {
        let keys = self.env.iter().filter_map(|variable| match &variable.value {
            Value::Key { object, optional, .. } => Some((object, *optional)),
            _ => None,
        });
        keys.chain(self.env_from.iter().map(|from| (&from.object, from.optional)))
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// UID of a pod: alphanumerics and `-`, at most 63, so safe in paths, cgroups and labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

/// Hash of a user's document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(Arc<str>);

macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// Takes text that the caller has checked, e.g. read back from a label.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
text!(PodUid);
text!(Revision);
