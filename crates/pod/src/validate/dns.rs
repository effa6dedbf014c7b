//! Validates DNS settings and host names as the API server does.

use k8s_openapi::api::core::v1::PodSpec;

use super::{
    format::{dns_subdomain, ip, search_domain},
    path::Path,
    problems::Problems,
};

/// Limits of a resolver (R-VAL-90).
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;
/// Longest host name that Linux accepts.
const HOST_NAME: usize = 64;

pub(super) fn config(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let own_only = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if own_only {
            problems.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if own_only && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return problems.required(&path.field("nameservers"), detail);
    }
    let field = path.field("nameservers");
    if servers.len() > SERVERS {
        problems.invalid(&field, servers, format_args!("must not have more than {SERVERS} nameservers"));
    }
    for (index, server) in servers.iter().enumerate() {
        problems.format(&field.index(index), server, ip(server));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let field = path.field("searches");
    if searches.len() > SEARCHES {
        problems.invalid(&field, searches, format_args!("must not have more than {SEARCHES} search paths"));
    }
    if searches.join(" ").len() > SEARCH_CHARACTERS {
        let detail = format_args!(
            "must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        problems.invalid(&field, searches, detail);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        problems.format(&field.index(index), search, search_domain(search));
    }
    let field = path.field("options");
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.is_none() {
            problems.required(&field.index(index), "must not be empty");
        }
    }
}

pub(super) fn host_aliases(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.index(index);
        problems.format(&path.field("ip"), &alias.ip, ip(&alias.ip));
        let path = path.field("hostnames");
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            problems.format(&path.index(index), name, dns_subdomain(name));
        }
    }
}

pub(super) fn hostname_override(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let Some(name) = &spec.hostname_override else { return };
    if spec.set_hostname_as_fqdn == Some(true) {
        problems.forbidden(path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        problems.forbidden(path, "may not be specified when hostNetwork is true");
    }
    problems.format(path, name, dns_subdomain(name));
    if name.len() > HOST_NAME {
        problems.too_long(path, HOST_NAME);
    }
}
