//! Settings of registries.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Deserialize;
use stanchion_runtime::{RegistryAuth, Result};
use stanchion_sdk::settings::{self, wrong};

/// Settings of one registry, such as `[backend.containerd.registry."host"]`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Hosts to ask instead, in order, e.g. `http://127.0.0.1:5000`, or with a path, `https://mirror/v2/docker.io`.
    pub mirrors: Vec<String>,
    /// Rewrites of repository names for the mirrors: regular expressions and their replacements. The first that changes
    /// the name counts.
    pub rewrite: BTreeMap<String, String>,
    /// Use plain HTTP. Loopback addresses do anyway, unless certificates are set for them.
    pub plain_http: bool,
    /// PEM file with certificate authorities to trust in addition to the node's.
    pub ca_file: Option<PathBuf>,
    /// Accept any server certificate.
    pub insecure_skip_verify: bool,
    /// Client certificate, PEM, with the intermediate certificates up to its authority.
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`, PEM, without a passphrase.
    pub key_file: Option<PathBuf>,
    /// User name for this registry, not for its mirrors: those have tables of their own.
    pub username: Option<String>,
    /// Password or token for this registry.
    pub password: Option<String>,
    /// Replaces user name and password: the token server gives tokens for it. `identitytoken` of Docker's config.json.
    pub identity_token: Option<String>,
}

// Omits password and token (I10).
impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mirrors, rewrite, plain_http, ca_file, insecure_skip_verify, cert_file, key_file, username, .. } =
            self;
        let mut shown = f.debug_struct("RegistryConfig");
        shown.field("mirrors", mirrors).field("rewrite", rewrite).field("plain_http", plain_http);
        shown.field("ca_file", ca_file).field("insecure_skip_verify", insecure_skip_verify);
        shown.field("cert_file", cert_file).field("key_file", key_file).field("username", username);
        shown.finish_non_exhaustive()
    }
}

impl RegistryConfig {
    /// Returns a pattern of `rewrite` that is no regular expression, and the reason.
    #[must_use]
    pub fn wrong_rewrite(&self) -> Option<(&str, String)> {
        self.rewrite.keys().find_map(|key| Some((key.as_str(), regex::Regex::new(key).err()?.to_string())))
    }

    /// Checks the settings of `host`, so that the start reports a mistake and not the first pull.
    ///
    /// # Errors
    /// `Invalid`, naming the key: a rewrite is no regular expression, a certificate lacks its key or a key its
    /// certificate, or there is a password beside an identity token.
    pub fn check(&self, host: &str) -> Result<()> {
        let key = |name: &str| format!("registry.{host:?}.{name}");
        if let Some((pattern, error)) = self.wrong_rewrite() {
            return wrong(&key("rewrite"), &pattern, &format!("a regular expression ({error})"));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(cert), None) => return wrong(&key("cert_file"), cert, "a key_file with its private key beside it"),
            (None, Some(path)) => return wrong(&key("key_file"), path, "a cert_file with its certificate beside it"),
            _ => {}
        }
        settings::identity_token(host, self.identity_token.as_deref(), self.password.is_some())
    }

    pub(super) fn credentials(&self) -> Option<RegistryAuth> {
        let Self { username, password, identity_token, .. } = self;
        RegistryAuth::of(username.as_deref(), password.as_deref(), identity_token.as_deref())
    }
}
