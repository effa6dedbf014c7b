//! Host names, host aliases and DNS settings.

use k8s_openapi::api::core::v1 as wire;

use crate::{Dns, HostAlias};

/// Longest host name without its domain, characters.
const MAX_LABEL: usize = 63;

/// Returns the host name, and its domain if it has one (R-HOST-1, R-HOST-2).
pub(super) fn names(pod: &wire::Pod, spec: &wire::PodSpec) -> (String, Option<String>) {
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), None);
    }
    let name = spec.hostname.as_deref().or(pod.metadata.name.as_deref()).unwrap_or_default();
    let short: String = name.chars().take(MAX_LABEL).collect();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    // Without a cluster domain nothing follows the last dot, as with a kubelet.
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{namespace}.svc."));
    (short.trim_end_matches(['-', '.']).to_owned(), domain)
}

pub(super) fn aliases(spec: &wire::PodSpec) -> Vec<HostAlias> {
    let alias =
        |it: &wire::HostAlias| HostAlias { address: it.ip.clone(), names: it.hostnames.clone().unwrap_or_default() };
    spec.host_aliases.iter().flatten().map(alias).collect()
}

pub(super) fn dns(spec: &wire::PodSpec) -> Dns {
    let config = spec.dns_config.clone().unwrap_or_default();
    let option = |it: wire::PodDNSConfigOption| Some((it.name?, it.value));
    Dns {
        is_nodes: spec.dns_policy.as_deref() != Some("None"),
        servers: config.nameservers.unwrap_or_default(),
        searches: config.searches.unwrap_or_default(),
        options: config.options.into_iter().flatten().filter_map(option).collect(),
    }
}
