//! Objects that pods refer to: ConfigMaps, Secrets and PersistentVolumeClaims. On a lone node they are documents in the
//! same sources as the pods.

mod decode;
mod registry;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub(crate) use decode::decode;
pub use registry::{Credential, credentials_in};

use crate::validate::quoted;

/// Objects of a node, by key.
pub type Objects = BTreeMap<ObjectKey, Arc<Object>>;

/// Kinds of objects that a pod can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum ObjectKind {
    ConfigMap,
    Secret,
    PersistentVolumeClaim,
}

impl ObjectKind {
    /// Returns the kind of that name, if it is one of these.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::ConfigMap, Self::Secret, Self::PersistentVolumeClaim].into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the `kind` that a document has.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
        }
    }
}

/// Kind, namespace and name of an object; unique on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Namespace of the object: pods refer only to objects of their own.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    /// Writes the key as Kubernetes names it in errors: `configmap "settings"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name().to_lowercase(), quoted(&self.name))
    }
}

/// Object that pods can refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// Plain data.
    ConfigMap(ConfigMap),
    /// Data that only the pods that refer to it may see.
    Secret(Secret),
    /// Storage that outlives pods: a directory of the agent.
    PersistentVolumeClaim,
}

impl Object {
    /// Returns the content of a key, text or binary, for files.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        match self {
            Self::ConfigMap(map) => {
                map.data.get(key).map(String::as_bytes).or_else(|| map.binary_data.get(key).map(Vec::as_slice))
            }
            Self::Secret(secret) => secret.data.get(key).map(Vec::as_slice),
            Self::PersistentVolumeClaim => None,
        }
    }

    /// Returns the keys; those of a ConfigMap's `data` come before those of its `binaryData`.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Self::ConfigMap(map) => map.data.keys().chain(map.binary_data.keys()).map(String::as_str).collect(),
            Self::Secret(secret) => secret.data.keys().map(String::as_str).collect(),
            Self::PersistentVolumeClaim => Vec::new(),
        }
    }

    /// Returns the content that environment variables can be made of: a ConfigMap's text, a Secret's data.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (text, secret) = match self {
            Self::ConfigMap(map) => (Some(&map.data), None),
            Self::Secret(secret) => (None, Some(&secret.data)),
            Self::PersistentVolumeClaim => (None, None),
        };
        let text = text.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
        let secret = secret.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_slice()));
        text.chain(secret)
    }
}

/// Plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Text by key.
    pub data: BTreeMap<String, String>,
    /// Bytes by key; no key is in both.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

/// Data that only the pods that refer to it may see. `Debug` shows its keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// `type`, e.g. `Opaque`.
    pub kind: String,
    /// Bytes by key, `stringData` included.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("Secret").field("kind", &self.kind).field("keys", &keys).finish_non_exhaustive()
    }
}
