//! Names that a pod's containers know.

/// An address with names of its own in `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAlias {
    /// The address.
    pub address: String,
    /// Its names.
    pub names: Vec<String>,
}

/// How names are resolved (R-DNS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Whether the node's resolver is asked: every policy but `None`, as there is no cluster's.
    pub is_nodes: bool,
    /// Further servers.
    pub servers: Vec<String>,
    /// Further domains to search.
    pub searches: Vec<String>,
    /// Options by name, with their values; they win over the node's.
    pub options: Vec<(String, Option<String>)>,
}
