//! Registries: hosts to ask for an image, and the state that is kept from one pull to the next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use regex::Regex;
use reqwest::Client;
use stanchion_runtime::{RegistryAuth, Result};

use super::{config::RegistryConfig, reference::Reference, repository::Repository, sign_in::SignIn, tls::Tls};

/// The registries of the settings, and what all pulls from them share.
#[derive(Clone, Debug)]
pub struct Registries {
    configs: Arc<BTreeMap<String, RegistryConfig>>,
    /// Name of a registry's settings in messages, with `{host}` for the host.
    settings: Arc<str>,
    clients: Clients,
}

impl Registries {
    /// Returns the registries with these settings, by host; `settings` names those of a `{host}` in messages.
    #[must_use]
    pub fn new(configs: BTreeMap<String, RegistryConfig>, settings: &str) -> Self {
        Self { configs: Arc::new(configs), settings: settings.into(), clients: Clients::default() }
    }

    /// Returns the hosts to ask for an image: the mirrors of its registry in order, then the registry.
    #[must_use]
    pub fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        endpoints(reference.registry(), &self.configs)
    }

    /// Returns the repository of an image at an endpoint. `auth` replaces the credentials that the settings have for
    /// the image's own registry.
    ///
    /// # Errors
    /// `Invalid`: the certificates of the settings cannot be used, or the host is not a valid name.
    pub async fn repository(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Repository> {
        // Credentials go to their own host, and not to its mirrors.
        let auth = match self.configs.get(&endpoint.host).and_then(RegistryConfig::credentials) {
            _ if endpoint.host == reference.registry() && auth.is_some() => auth.cloned(),
            configured => configured,
        };
        let settings = self.settings.replace("{host}", &endpoint.host);
        let client = self.clients.of(endpoint, auth).await;
        let client = client.map_err(|error| error.context(format!("the certificates that {settings} names")))?;
        Repository::new(endpoint, reference.repository(), settings, client)
    }
}

/// Host to pull from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address, with the port.
    pub host: String,
    pub(super) plain: bool,
    pub(super) tls: Tls,
    /// Path prefix of its repositories.
    prefix: String,
    /// Rewrites of repository names: patterns and replacements.
    rewrite: Vec<(String, String)>,
}

impl Endpoint {
    fn of(host: &str, plain: bool, registries: &BTreeMap<String, RegistryConfig>) -> Self {
        let config = registries.get(host).cloned().unwrap_or_default();
        let RegistryConfig { ca_file, cert_file, key_file, insecure_skip_verify: insecure, .. } = config;
        let tls = Tls { ca_file, cert_file, key_file, insecure };
        Self { host: host.to_owned(), plain, tls, prefix: String::new(), rewrite: Vec::new() }
    }

    /// Returns the name of a repository on this host.
    pub(super) fn repository(&self, name: &str) -> String {
        let renamed = self.rewrite.iter().find_map(|(pattern, name_there)| {
            // The settings' check has compiled it before.
            let there = Regex::new(pattern).ok()?.replace_all(name, name_there.as_str()).into_owned();
            (there != name).then_some(there)
        });
        format!("{}{}", self.prefix, renamed.as_deref().unwrap_or(name))
    }
}

/// Returns the hosts to ask for an image of `host`: its mirrors in order, then itself.
pub(super) fn endpoints(host: &str, registries: &BTreeMap<String, RegistryConfig>) -> Vec<Endpoint> {
    let config = registries.get(host).or_else(|| registries.get("*")).cloned().unwrap_or_default();
    let mirror = |mirror: &String| {
        let (scheme, rest) = mirror.split_once("://").unwrap_or(("", mirror));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = scheme == "http" || (scheme.is_empty() && is_plain(host, registries));
        let path = path.trim_matches('/');
        let below = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path });
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        let rewrite = config.rewrite.clone().into_iter().collect();
        Endpoint { prefix, rewrite, ..Endpoint::of(host, plain, registries) }
    };
    let plain = is_plain(host, registries);
    config.mirrors.iter().map(mirror).chain([Endpoint::of(host, plain, registries)]).collect()
}

/// Returns whether a host is reached over plain HTTP: loopback is, unless certificates are set for it.
fn is_plain(host: &str, registries: &BTreeMap<String, RegistryConfig>) -> bool {
    let config = registries.get(host);
    let has_certificates = config.is_some_and(|it| it.ca_file.is_some() || it.cert_file.is_some());
    config.is_some_and(|it| it.plain_http) || (is_loopback(host) && !has_certificates)
}

fn is_loopback(host: &str) -> bool {
    let port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let name = port.map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// HTTP clients and sign-ins, shared by all pulls.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Clients, each with the fingerprint of its certificate files. Making one reads all root certificates of the node,
    /// so hosts with the same settings share it.
    clients: HashMap<Tls, ([u8; 32], Client)>,
    sign_ins: HashMap<Account, Arc<SignIn>>,
}

/// Host, whether it is reached over plain HTTP, and the credentials for it.
type Account = (String, bool, Option<RegistryAuth>);

impl Clients {
    /// Returns the client for a host, and the state of signing in there.
    ///
    /// # Errors
    /// `Invalid`: its certificates cannot be used.
    pub async fn of(&self, endpoint: &Endpoint, auth: Option<RegistryAuth>) -> Result<(Client, Arc<SignIn>)> {
        let files = endpoint.tls.read().await?;
        let fingerprint = files.fingerprint();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match known.clients.get(&endpoint.tls) {
            Some((made_of, client)) if *made_of == fingerprint => client.clone(),
            _ => {
                let client = endpoint.tls.client(&files)?;
                known.clients.insert(endpoint.tls.clone(), (fingerprint, client.clone()));
                client
            }
        };
        let account = (endpoint.host.clone(), endpoint.plain, auth.clone());
        if let Some(sign_in) = known.sign_ins.get(&account) {
            return Ok((client, Arc::clone(sign_in)));
        }
        // Passwords that are renewed every few hours must not pile up.
        known.sign_ins.retain(|_, sign_in| Arc::strong_count(sign_in) > 1 || sign_in.has_tokens());
        let sign_in = Arc::new(SignIn::new(auth));
        known.sign_ins.insert(account, Arc::clone(&sign_in));
        Ok((client, sign_in))
    }
}

// Omits passwords and tokens (I10).
impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{RegistryConfig, endpoints};

    #[test]
    fn mirrors_have_paths_and_names_of_their_own_and_trust_as_their_host_says() {
        let text = r#"{
            "*": {"mirrors": ["https://all:5000"]},
            "docker.io": {"mirrors": ["https://mirror/v2/hub", "http://plain/v2"], "rewrite": {"^library/(.*)": "official/$1"}},
            "mirror": {"insecure_skip_verify": true},
            "127.0.0.1:5001": {"ca_file": "/ca.pem", "mirrors": ["localhost:5002", "127.0.0.1:5003"]},
            "127.0.0.1:5003": {"cert_file": "/c.pem", "key_file": "/k.pem"}
        }"#;
        let registries: BTreeMap<String, RegistryConfig> = serde_json::from_str(text).expect("right");
        let asked = |host: &str, name: &str| -> Vec<_> {
            let show =
                |it: super::Endpoint| format!("{}/{} {} {}", it.host, it.repository(name), it.plain, it.tls.insecure);
            endpoints(host, &registries).into_iter().map(show).collect()
        };
        assert_eq!(
            asked("docker.io", "library/redis"),
            [
                "mirror/hub/official/redis false true",
                "plain/official/redis true false",
                "docker.io/library/redis false false"
            ]
        );
        assert_eq!(asked("quay.io", "a/b"), ["all:5000/a/b false false", "quay.io/a/b false false"]);
        for loopback in ["[::1]", "[::1]:5000", "localhost"] {
            assert_eq!(asked(loopback, "a")[1], format!("{loopback}/a true false"));
        }
        let secured = ["localhost:5002/a true false", "127.0.0.1:5003/a false false", "127.0.0.1:5001/a false false"];
        assert_eq!(asked("127.0.0.1:5001", "a"), secured);
    }
}
