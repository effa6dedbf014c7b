//! Model of a valid pod: the result of decoding, defaults and validation, which the agent runs.

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
    /// Namespace and name; unique on the node.
    pub key: PodKey,
    /// UID of this revision of the pod on this node.
    pub uid: PodUid,
    /// Hash of the user's document before defaults; it decides whether anything changed (design: identity).
    pub revision: Revision,
    /// Origin of its manifest.
    pub origin: Origin,
    /// Labels of the manifest.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`, at least one second.
    pub grace: Duration,
    /// `spec.hostNetwork`: uses the node's network.
    pub host_network: bool,
    /// Security settings that all its containers share.
    pub security: PodSecurity,
    /// Quality-of-service class.
    pub qos: QosClass,
    /// `spec.resources`, if any: requests and limits of its containers together.
    pub resources: Option<Resources>,
    /// Requests and limits of the pod as a whole, overhead included (R-RES-13).
    pub total: Resources,
    /// Requests and limits in its status: the sum of its containers', overridden by its own.
    pub whole: wire::ResourceRequirements,
    /// Host name inside the pod: `spec.hostnameOverride`, `spec.hostname` or the pod's name, at most 63 characters
    /// (R-HOST-1).
    pub hostname: String,
    /// Domain of the host name, if `spec.subdomain` asks for one (R-HOST-2).
    pub domain: Option<String>,
    /// `spec.setHostnameAsFQDN`: the kernel's host name includes the domain (R-HOST-3).
    pub fqdn: bool,
    /// `spec.hostAliases`.
    pub host_aliases: Vec<HostAlias>,
    /// `spec.dnsPolicy` and `spec.dnsConfig`.
    pub dns: Dns,
    /// `spec.imagePullSecrets`: Secrets with credentials for registries. The pod does not wait for a missing one.
    pub pull_secrets: Vec<ObjectKey>,
    /// `securityContext.fsGroup`: group that owns the files of its volumes.
    pub fs_group: Option<FsGroup>,
    /// `spec.readinessGates`: further conditions that must be true for the pod to be ready.
    pub readiness_gates: Vec<String>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// `spec.activeDeadlineSeconds`: longest time from its start to its end.
    pub active_deadline: Option<Duration>,
    /// Init containers, in order, with sidecars, which run beside the containers too.
    pub init_containers: Vec<Container>,
    /// Containers, in the manifest's order; at least one.
    pub containers: Vec<Container>,
    /// Volumes, by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Manifest as Kubernetes' own type, defaults included, as `kubectl get -o yaml` shows it (without status).
    pub wire: Arc<wire::Pod>,
}

impl Pod {
    /// Returns its containers of both kinds, in the order of their start. No two have the same name.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// Returns a container of either kind, by name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().find(|container| container.name == name)
    }
}

/// Origin of a manifest.
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
    /// Returns Kubernetes' name of it, for the annotation `kubernetes.io/config.source` (R-ID-8).
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
    /// Name, unique in the pod.
    pub name: String,
    /// Image reference as the user wrote it, e.g. `redis`.
    pub image: String,
    /// `imagePullPolicy`.
    pub pull_policy: PullPolicy,
    /// `command`: replaces the image's entrypoint. `$(NAME)` in it is expanded when the container starts.
    pub command: Option<Vec<String>>,
    /// `args`: replaces the image's arguments. `$(NAME)` in it is expanded when the container starts.
    pub args: Option<Vec<String>>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `envFrom`, in order; `env` overrides it.
    pub env_from: Vec<EnvFrom>,
    /// `env`, in order; of variables with one name the last counts.
    pub env: Vec<Variable>,
    /// `ports`.
    pub ports: Vec<Port>,
    /// `resources`: requests and limits.
    pub resources: Resources,
    /// Security context in force.
    pub security: Security,
    /// `tty`
    pub tty: bool,
    /// `stdin`
    pub stdin: bool,
    /// `stdinOnce`
    pub stdin_once: bool,
    /// `volumeMounts`.
    pub mounts: Vec<VolumeMount>,
    /// Restart policy of its own; `None` is the pod's.
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
    /// `terminationMessagePath`: path of the termination message in the container; `None` is no message.
    pub message_path: Option<String>,
    /// `terminationMessagePolicy: FallbackToLogsOnError`: the end of its log replaces a missing termination message.
    pub message_from_log: bool,
}

impl Container {
    /// Returns whether its own restart policy is `Always`, which makes an init container a sidecar.
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
    /// `hostPort`; without it the port is not published on the node.
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
    /// Returns the objects that this pod refers to.
    #[must_use]
    pub fn references(&self) -> BTreeSet<&ObjectKey> {
        self.mentions().map(|(object, _)| object).collect()
    }

    /// Returns the objects that this pod refers to and cannot start without.
    #[must_use]
    pub fn needs(&self) -> BTreeSet<&ObjectKey> {
        self.mentions().filter(|(_, optional)| !optional).map(|(object, _)| object).collect()
    }

    /// Returns the object of every reference, and whether the reference is optional.
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

            /// Returns the text.
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
