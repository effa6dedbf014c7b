//! Answers of the local API. Both ends of the socket use these types.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stanchion_pod::{Problem, k8s_openapi::api::core::v1 as wire};
use stanchion_runtime::{Capabilities, Health, PullProgress};

/// Annotation with the time of a pod's removal, for clients that read only the pod.
pub const REMOVED_AT: &str = "stanchion.dev/removed-at";

/// A pod, as of the latest observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// The pod with its status, as `kubectl get -o yaml` shows one.
    pub pod: wire::Pod,
    /// Backend that it runs on, or waits for.
    #[serde(default)]
    pub backend: String,
    /// Manifest file or URL that it comes from; empty once that is gone and the pod is being stopped.
    #[serde(default)]
    pub manifest: String,
    /// Data of each container for which Kubernetes' status has no field.
    #[serde(default)]
    pub containers: Vec<ContainerView>,
}

impl PodView {
    /// Returns the statuses of init containers and containers.
    pub fn statuses(&self) -> impl Iterator<Item = &wire::ContainerStatus> {
        let status = self.pod.status.iter();
        let lists = status.flat_map(|status| [&status.init_container_statuses, &status.container_statuses]);
        lists.flatten().flatten()
    }
}

/// A removed pod in its last state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedView {
    /// Its name, its containers with their images, and its last status; neither environment nor arguments nor volumes.
    pub pod: wire::Pod,
    /// Backend that it ran on.
    #[serde(default)]
    pub backend: String,
    /// Manifest file or URL that it came from.
    #[serde(default)]
    pub manifest: String,
    /// Time from which nothing of it was left.
    pub removed_at: Timestamp,
}

impl From<RemovedView> for PodView {
    fn from(RemovedView { pod, backend, manifest, .. }: RemovedView) -> Self {
        Self { pod, backend, manifest, containers: Vec::new() }
    }
}

/// Data of a container for which Kubernetes' container status has no field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Name in the pod.
    pub name: String,
    /// Time of the agent's next action for it, if it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// Progress of the pull of its image, while it is being pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullProgress>,
}

/// One source of manifests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// The directory, file or URL.
    pub location: String,
    /// Reason why it cannot be read now; meanwhile its pods keep running unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Remark on how it is read, e.g. that the kernel does not report its changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Time since which it cannot be read, or can.
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
    /// Pods in force from it, as `namespace/name-node`; with problems these are the last good ones.
    #[serde(default)]
    pub pods: Vec<String>,
    /// Objects in force from it, as `ConfigMap namespace/name`: their names, never their content.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Reasons why its present content is not in force.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Doubtful settings that are accepted.
    #[serde(default)]
    pub warnings: Vec<Problem>,
}

/// Images of a backend that were removed as unused, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneView {
    /// Name of the backend.
    pub backend: String,
    /// Reason why nothing can be removed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The unused images, the longest unused first.
    #[serde(default)]
    pub images: Vec<PrunedImageView>,
    /// Space that was freed on their file system, bytes.
    #[serde(default)]
    pub freed: u64,
}

/// An image that nothing uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedImageView {
    /// Names of the image.
    pub names: Vec<String>,
    /// Digest of its content.
    pub digest: String,
    /// Reason why it was not removed after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// One configured backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Name in the configuration.
    pub name: String,
    /// Library that the backend was loaded from.
    #[serde(default)]
    pub library: PathBuf,
    /// Version of the library, as its author states it.
    #[serde(default)]
    pub version: String,
    /// Version of the plugin ABI that it was built for, e.g. `1.0`.
    #[serde(default)]
    pub abi: String,
    /// Name of the runtime behind it; empty until it has answered.
    #[serde(default)]
    pub runtime: String,
    /// Version of that runtime.
    #[serde(default)]
    pub runtime_version: String,
    /// Reason why it cannot be used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Health that it reports.
    #[serde(default)]
    pub health: Health,
    /// Time since which it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Pods placed on it.
    #[serde(default)]
    pub pods: usize,
    /// Capabilities that it reports.
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
    /// Time of the agent's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Kernel release, architecture and the like, by name.
    #[serde(default)]
    pub info: BTreeMap<String, String>,
    /// Root of the container logs.
    #[serde(default)]
    pub log_dir: PathBuf,
    /// Resources of the node for the requests of all pods together, as in a Node's `status.capacity`.
    #[serde(default)]
    pub capacity: BTreeMap<String, String>,
}

/// Event of a pod, a manifest or a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Number of the event since the agent's start, rising.
    pub id: u64,
    /// Time of its first occurrence.
    pub first: Timestamp,
    /// Time of its last occurrence.
    pub last: Timestamp,
    /// Number of occurrences.
    pub count: u32,
    /// Kubernetes' type of the event.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The reason in one word, e.g. `Pulled`.
    pub reason: String,
    /// Its object: `Pod/namespace/name`, `Manifest/path`, `Backend/name`.
    pub object: String,
    /// The part of the object, e.g. `spec.containers{redis}`; empty for the whole.
    #[serde(default)]
    pub field: String,
    /// The message, for people.
    pub message: String,
}

/// Kubernetes' two types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// Something ordinary.
    Normal,
    /// Something that a person should look at.
    Warning,
}
