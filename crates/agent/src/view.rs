//! What the agent shows: the answers of the local API, the same types on both ends of the socket.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stanchion_pod::{Problem, k8s_openapi::api::core::v1 as wire};
use stanchion_runtime::{Capabilities, Health, PullProgress};

/// A pod as it was at the latest look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// The pod with its status, as `kubectl get -o yaml` shows one.
    pub pod: wire::Pod,
    /// The backend it runs on, or waits for.
    #[serde(default)]
    pub backend: String,
    /// The manifest file or URL it comes from; empty once that is gone and the pod is being stopped.
    #[serde(default)]
    pub manifest: String,
    /// What Kubernetes' status has no place for, per container.
    #[serde(default)]
    pub containers: Vec<ContainerView>,
}

impl PodView {
    /// The statuses of its containers of both kinds.
    pub fn statuses(&self) -> impl Iterator<Item = &wire::ContainerStatus> {
        let status = self.pod.status.iter();
        let lists = status.flat_map(|status| [&status.init_container_statuses, &status.container_statuses]);
        lists.flatten().flatten()
    }
}

/// A pod that was removed, as it was last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedView {
    /// Its name, its containers with their images, and its last status: not what its manifest gave the containers.
    pub pod: wire::Pod,
    /// The backend that it ran on.
    #[serde(default)]
    pub backend: String,
    /// The manifest file or URL that it came from.
    #[serde(default)]
    pub manifest: String,
    /// When nothing of it was left.
    pub removed_at: Timestamp,
}

impl From<RemovedView> for PodView {
    fn from(RemovedView { pod, backend, manifest, .. }: RemovedView) -> Self {
        Self { pod, backend, manifest, containers: Vec::new() }
    }
}

/// What Kubernetes' container status has no place for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Name in the pod.
    pub name: String,
    /// When the agent acts on it next, if it is waiting for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// How far the pull of its image has come, while it is being pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullProgress>,
}

/// One source of manifests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// The directory, file or URL.
    pub location: String,
    /// Why it cannot be read now; while it cannot, its pods run on as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What else is to be known of how it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Since when that is so, or since when it is readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Its manifests, by path.
    #[serde(default)]
    pub manifests: Vec<ManifestView>,
}

/// One manifest file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestView {
    /// Path of the file, or its URL.
    pub path: String,
    /// The pods in force from it, as `namespace/name-node`; with problems these are the last good ones.
    #[serde(default)]
    pub pods: Vec<String>,
    /// The objects in force from it, as `ConfigMap namespace/name`: their names, never their content.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Why its present content is not in force.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// What is accepted but doubtful.
    #[serde(default)]
    pub warnings: Vec<Problem>,
}

/// What was removed of a backend's images, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneView {
    /// Name of the backend.
    pub backend: String,
    /// Why nothing can be removed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The images that nothing uses, the one that has not been used for longest first.
    #[serde(default)]
    pub images: Vec<PrunedImageView>,
    /// How much more of their file system is free afterwards, bytes.
    #[serde(default)]
    pub freed: u64,
}

/// An image that nothing uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedImageView {
    /// Its names.
    pub names: Vec<String>,
    /// Its content address.
    pub digest: String,
    /// Why it was not removed after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// One configured backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Name in the configuration.
    pub name: String,
    /// The library it was loaded from.
    #[serde(default)]
    pub library: PathBuf,
    /// Version of the library, as its author states it.
    #[serde(default)]
    pub version: String,
    /// Version of the boundary it was built for, e.g. `1.0`.
    #[serde(default)]
    pub abi: String,
    /// Name of the runtime behind it; empty while it has never answered.
    #[serde(default)]
    pub runtime: String,
    /// Version of that runtime.
    #[serde(default)]
    pub runtime_version: String,
    /// Why it cannot be used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it says of its state.
    #[serde(default)]
    pub health: Health,
    /// Since when it is as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Pods placed on it.
    #[serde(default)]
    pub pods: usize,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// The node and the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Name of the node.
    pub name: String,
    /// Version of the agent.
    pub version: String,
    /// When the agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Kernel release, architecture and the like, by name.
    #[serde(default)]
    pub info: BTreeMap<String, String>,
    /// Root of the container logs.
    #[serde(default)]
    pub log_dir: PathBuf,
    /// What the node has for pods, all of which they may ask for together, as Kubernetes names and writes it.
    #[serde(default)]
    pub capacity: BTreeMap<String, String>,
}

/// Something that happened to a pod or a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Number of the event in this agent's life, rising.
    pub id: u64,
    /// When it happened first.
    pub first: Timestamp,
    /// When it happened last.
    pub last: Timestamp,
    /// How often.
    pub count: u32,
    /// Ordinary or worth attention.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// One word, e.g. `Pulled`.
    pub reason: String,
    /// `Pod/namespace/name`, `Manifest/path`, `Backend/name`.
    pub object: String,
    /// The part of the object, e.g. `spec.containers{redis}`; empty for the whole.
    #[serde(default)]
    pub field: String,
    /// The sentence.
    pub message: String,
}

/// Kubernetes' two kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}
