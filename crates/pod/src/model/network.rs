//! Host aliases and DNS settings of a pod.

/// Address with further names in `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAlias {
    /// IP address.
    pub address: String,
    /// Names of the address.
    pub names: Vec<String>,
}

/// DNS settings (R-DNS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// `true` if the node's resolver is used: with every `dnsPolicy` but `None`, as there is no cluster DNS.
    pub is_nodes: bool,
    /// `dnsConfig.nameservers`.
    pub servers: Vec<String>,
    /// `dnsConfig.searches`.
    pub searches: Vec<String>,
    /// `dnsConfig.options`: names and values; they override the node's.
    pub options: Vec<(String, Option<String>)>,
}
