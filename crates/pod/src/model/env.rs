//! Environment variables as in the manifest; their values are made when the container starts.

use crate::ObjectKey;

/// One item of `env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name of the variable.
    pub name: String,
    /// Source of its value.
    pub value: Value,
}

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `value` in the manifest; `$(NAME)` in it is expanded.
    Text(String),
    /// Text of a field of the manifest; not expanded.
    Literal(String),
    /// Field of the pod's status, known when the pod runs.
    Status(StatusField),
    /// Limit that the manifest does not set: the node's capacity.
    NodeLimit(NodeLimit),
    /// Key of a ConfigMap or Secret.
    Key {
        /// ConfigMap or Secret.
        object: ObjectKey,
        /// Key in the object.
        key: String,
        /// `optional`: the object or key may be missing; the variable is then not set.
        optional: bool,
    },
    /// Variable in a file of a volume: `fileKeyRef` (R-ENV-6).
    File {
        /// Name of the volume, an emptyDir.
        volume: String,
        /// Path of the file, relative to the volume.
        path: String,
        /// Name of the variable in the file.
        key: String,
        /// `optional`: the file or variable may be missing; the variable is then not set.
        optional: bool,
    },
}

/// Fields of a pod's status that a variable can refer to (R-ENV-4).
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

/// Node's capacity of a resource, in units of a divisor (R-ENV-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimit {
    /// Resource.
    pub resource: NodeResource,
    /// Divisor: thousandths of a CPU, or bytes. Not zero.
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

/// Resources that the node has for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU, thousandths.
    pub cpu: u64,
    /// Memory, bytes.
    pub memory: u64,
    /// Ephemeral storage, bytes.
    pub ephemeral_storage: u64,
}

impl NodeLimit {
    /// Returns the value on a node with that capacity, rounded up.
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

/// One item of `envFrom`: every key of an object becomes a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFrom {
    /// Prefix of each variable's name.
    pub prefix: String,
    /// ConfigMap or Secret.
    pub object: ObjectKey,
    /// `optional`: the object may be missing.
    pub optional: bool,
}
