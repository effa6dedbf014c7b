//! A pod that cannot be wrong: what decoding, defaulting and validation leave for the agent to run.

mod env;
mod network;
mod resources;
mod security;
mod volume;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1 as wire;
use serde::{Deserialize, Serialize};

pub use env::*;
pub use network::{Dns, HostAlias};
pub use resources::{QosClass, Resources};
pub use security::{PodSecurity, Profile, SeLinux, Security};
pub use volume::*;

use crate::{
    ObjectKey,
    lifecycle::{Hook, Probe, Restart},
};

/// One static pod of this node, valid, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// What it is called; unique on the node.
    pub key: PodKey,
    /// Identifies this revision of it on this node.
    pub uid: PodUid,
    /// Hash of the user's document before defaults: what decides whether anything changed (design: identity).
    pub revision: Revision,
    /// Where its manifest comes from.
    pub origin: Origin,
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
    /// What its containers share and run with.
    pub security: PodSecurity,
    /// Its quality-of-service class.
    pub qos: QosClass,
    /// `spec.resources`, if any: what its containers may have together.
    pub resources: Option<Resources>,
    /// What the pod as a whole asks for and may have, overhead included (R-RES-13).
    pub total: Resources,
    /// What its status says that it asks for and may have: its own resources before its containers' together.
    pub whole: wire::ResourceRequirements,
    /// Host name inside the pod: `spec.hostnameOverride`, `spec.hostname` or the pod's name, at most 63 characters
    /// (R-HOST-1).
    pub hostname: String,
    /// The domain of that name, where `spec.subdomain` asks for one (R-HOST-2).
    pub domain: Option<String>,
    /// `spec.setHostnameAsFQDN`: the kernel's host name has the domain too (R-HOST-3).
    pub fqdn: bool,
    /// `spec.hostAliases`.
    pub host_aliases: Vec<HostAlias>,
    /// `spec.dnsPolicy` and `spec.dnsConfig`.
    pub dns: Dns,
    /// `spec.imagePullSecrets`: Secrets with credentials for registries. One that is missing holds nothing back.
    pub pull_secrets: Vec<ObjectKey>,
    /// `securityContext.fsGroup`: whose the files of its volumes are.
    pub fs_group: Option<FsGroup>,
    /// `spec.readinessGates`: conditions beside the containers that it takes for the pod to be ready.
    pub readiness_gates: Vec<String>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// How long it may take from its start until all of it has ended.
    pub active_deadline: Option<Duration>,
    /// What runs before its containers, in order: init containers, and sidecars, which run beside them too.
    pub init_containers: Vec<Container>,
    /// Its containers, in the manifest's order; at least one.
    pub containers: Vec<Container>,
    /// Its volumes, by name.
    pub volumes: BTreeMap<String, Volume>,
    /// The manifest as Kubernetes' own type, defaults included, as `kubectl get -o yaml` shows it (without status).
    pub wire: Arc<wire::Pod>,
}

impl Pod {
    /// Its containers of both kinds, in the order of their start. No two have the same name.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// A container of either kind, by name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().find(|container| container.name == name)
    }
}

/// Where a manifest comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A file of this node.
    #[default]
    File,
    /// A URL.
    Http,
}

impl Origin {
    /// Kubernetes' word for it, in the annotation `kubernetes.io/config.source` (R-ID-8).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
        }
    }
}

/// One container of a pod, of either kind.
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
    /// Who it runs as, and what it may do.
    pub security: Security,
    /// `tty`
    pub tty: bool,
    /// `stdin`
    pub stdin: bool,
    /// `stdinOnce`
    pub stdin_once: bool,
    /// Where volumes appear.
    pub mounts: Vec<VolumeMount>,
    /// When it is started again; `None` is as the pod says.
    pub restart: Option<Restart>,
    /// `lifecycle.postStart`.
    pub post_start: Option<Hook>,
    /// `lifecycle.preStop`.
    pub pre_stop: Option<Hook>,
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `terminationMessagePath`: where in the container its last words are; `None` is nowhere.
    pub message_path: Option<String>,
    /// `terminationMessagePolicy: FallbackToLogsOnError`: the end of its log stands for words that it did not leave.
    pub message_from_log: bool,
}

impl Container {
    /// Whether it is to run all the time: what makes a sidecar of an init container.
    #[must_use]
    pub fn runs_always(&self) -> bool {
        self.restart.as_ref().is_some_and(|restart| restart.policy == RestartPolicy::Always)
    }
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
        let pulls = self.pull_secrets.iter().map(|secret| (secret, true));
        let containers = self.init_containers.iter().chain(&self.containers);
        volumes.chain(pulls).chain(containers.flat_map(Container::mentions))
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
