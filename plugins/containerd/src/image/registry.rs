//! Registries: which hosts are asked for an image, and a client for each, made once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oci_client::{
    Client,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use stanchion_sdk::runtime::RegistryAuth as Credentials;

use super::RegistryConfig;

/// A host to pull from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub host: String,
    pub plain: bool,
}

/// The hosts that are asked for an image of `host`: its mirrors in order, then itself.
pub(super) fn endpoints(host: &str, config: &RegistryConfig) -> Vec<Endpoint> {
    let mirror = |mirror: &String| match mirror.split_once("://") {
        Some((scheme, host)) => Endpoint { host: host.trim_end_matches('/').to_owned(), plain: scheme == "http" },
        None => Endpoint { host: mirror.clone(), plain: is_loopback(mirror) },
    };
    let own = Endpoint { host: host.to_owned(), plain: config.plain_http || is_loopback(host) };
    config.mirrors.iter().map(mirror).chain([own]).collect()
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
    Client::new(ClientConfig {
        protocol,
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(Duration::from_secs(60)),
        ..ClientConfig::default()
    })
}
