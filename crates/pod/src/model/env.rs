//! Environment variables as a manifest asks for them; their values are made when the container starts.

use crate::ObjectKey;

/// One item of `env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub value: Value,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The manifest says it; `$(NAME)` in it is expanded.
    Text(String),
    /// A field of the manifest, taken literally.
    Literal(String),
    /// Something about the pod that is known when it runs.
    Status(StatusField),
    /// A limit that the manifest does not set: what the node has.
    NodeLimit(NodeLimit),
    /// A key of a ConfigMap or Secret.
    Key {
        /// The object.
        object: ObjectKey,
        /// The key in it.
        key: String,
        /// Whether it may be missing; the variable is then not set.
        optional: bool,
    },
    /// A variable in a file of a volume (R-ENV-6).
    File {
        /// The volume, an emptyDir.
        volume: String,
        /// The file, relative to it.
        path: String,
        /// The variable's name in the file.
        key: String,
        /// Whether it may be missing; the variable is then not set.
        optional: bool,
    },
}

/// Fields of a pod's status that a variable can have (R-ENV-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusField {
    /// `status.hostIP`
    HostIp,
    /// `status.hostIPs`, separated by commas.
    HostIps,
    /// `status.podIP`
    PodIp,
    /// `status.podIPs`, separated by commas.
    PodIps,
}

/// What the node has of a resource, in units of a divisor (R-ENV-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimit {
    /// Of what.
    pub resource: NodeResource,
    /// The unit: thousandths of a CPU, or bytes. Not zero.
    pub divisor: u64,
}

/// Resources of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum NodeResource {
    Cpu,
    Memory,
    EphemeralStorage,
}

/// What the node has for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub ephemeral_storage: u64,
}

impl NodeLimit {
    /// The value on a node with that capacity, rounded up.
    #[must_use]
    pub fn on(&self, capacity: &Capacity) -> String {
        let amount = match self.resource {
            NodeResource::Cpu => capacity.cpu,
            NodeResource::Memory => capacity.memory,
            NodeResource::EphemeralStorage => capacity.ephemeral_storage,
        };
        amount.div_ceil(self.divisor.max(1)).to_string()
    }
}

/// One item of `envFrom`: every key of an object is a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFrom {
    /// Stands before each key.
    pub prefix: String,
    /// The ConfigMap or Secret.
    pub object: ObjectKey,
    /// Whether it may be missing.
    pub optional: bool,
}
