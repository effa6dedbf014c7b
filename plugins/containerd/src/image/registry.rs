//! Registries: which hosts are asked for an image, and a client for each, made once.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oci_client::{
    Client,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use regex::Regex;
use stanchion_sdk::runtime::RegistryAuth as Credentials;

use super::RegistryConfig;

/// A host to pull from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub host: String,
    pub plain: bool,
    /// Its repositories are below this path.
    prefix: String,
    /// What images are called there, in place of their names.
    rewrite: Vec<(String, String)>,
    ca_file: Option<PathBuf>,
    insecure: bool,
}

impl Endpoint {
    fn of(host: &str, plain: bool, registries: &BTreeMap<String, RegistryConfig>) -> Self {
        let config = registries.get(host).cloned().unwrap_or_default();
        let (ca_file, insecure) = (config.ca_file, config.insecure_skip_verify);
        Self { host: host.to_owned(), plain, prefix: String::new(), rewrite: Vec::new(), ca_file, insecure }
    }

    /// What a repository is called there.
    pub fn repository(&self, name: &str) -> String {
        let renamed = self.rewrite.iter().find_map(|(pattern, name_there)| {
            // Checked when the settings were read.
            let there = Regex::new(pattern).ok()?.replace_all(name, name_there.as_str()).into_owned();
            (there != name).then_some(there)
        });
        format!("{}{}", self.prefix, renamed.as_deref().unwrap_or(name))
    }
}

/// The hosts that are asked for an image of `host`: its mirrors in order, then itself.
pub(super) fn endpoints(host: &str, registries: &BTreeMap<String, RegistryConfig>) -> Vec<Endpoint> {
    let config = registries.get(host).or_else(|| registries.get("*")).cloned().unwrap_or_default();
    let mirror = |mirror: &String| {
        let (scheme, rest) = mirror.split_once("://").unwrap_or(("", mirror));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = scheme == "http" || (scheme.is_empty() && is_loopback(host));
        let path = path.trim_matches('/');
        let below = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path });
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        let rewrite = config.rewrite.clone().into_iter().collect();
        Endpoint { prefix, rewrite, ..Endpoint::of(host, plain, registries) }
    };
    let plain = registries.get(host).is_some_and(|config| config.plain_http) || is_loopback(host);
    config.mirrors.iter().map(mirror).chain([Endpoint::of(host, plain, registries)]).collect()
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Clients by host and credentials: making one reads all root certificates, and its tokens serve the next pull too.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<HashMap<Account, Client>>>);

/// A host, and the user name and password for it.
type Account = (Endpoint, Option<(String, String)>);

impl Clients {
    /// The client for a host, and how it signs in.
    pub fn of(&self, endpoint: &Endpoint, auth: Option<Credentials>) -> (Client, RegistryAuth) {
        let credentials = auth.map(|Credentials { username, password }| (username, password));
        let sign_in = match &credentials {
            Some((username, password)) => RegistryAuth::Basic(username.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry((endpoint.clone(), credentials)).or_insert_with(|| connect(endpoint));
        (client.clone(), sign_in)
    }
}

// Without what it holds: passwords and tokens (I10).
impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

fn connect(endpoint: &Endpoint) -> Client {
    let protocol = match endpoint.plain {
        true => ClientProtocol::HttpsExcept(vec![endpoint.host.clone()]),
        false => ClientProtocol::Https,
    };
    let ca = endpoint.ca_file.as_ref().and_then(|path| match std::fs::read(path) {
        Ok(data) => Some(Certificate { encoding: CertificateEncoding::Pem, data }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the certificates of a registry cannot be read");
            None
        }
    });
    Client::new(ClientConfig {
        protocol,
        extra_root_certificates: ca.into_iter().collect(),
        accept_invalid_certificates: endpoint.insecure,
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(Duration::from_secs(60)),
        ..ClientConfig::default()
    })
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
            "mirror": {"insecure_skip_verify": true}
        }"#;
        let registries: BTreeMap<String, RegistryConfig> = serde_json::from_str(text).expect("right");
        let asked = |host: &str, name: &str| -> Vec<_> {
            let show =
                |it: super::Endpoint| format!("{}/{} {} {}", it.host, it.repository(name), it.plain, it.insecure);
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
    }
}
