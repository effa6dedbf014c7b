//! Settings of `[backend.docker]`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Deserialize;
use stanchion_sdk::{
    runtime::{RegistryAuth, Result},
    settings::{self, wrong},
};

/// Settings of the backend; all have defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Docker's socket.
    pub socket: PathBuf,
    /// Value of the label that marks all our objects: two agents on one Docker need two.
    pub namespace: String,
    /// Docker network for pods with a network of their own.
    pub network: String,
    /// Root of the containers' cgroups: a path in every hierarchy, or, with systemd as Docker's driver, a slice.
    pub cgroup_root: String,
    /// Maximum size of a log file, bytes: it is rotated before it grows larger.
    pub log_max_size: u64,
    /// Number of log files kept per container, the current one included.
    pub log_max_files: u32,
    /// Credentials for registries, by host.
    pub registry: BTreeMap<String, RegistryConfig>,
}

/// Settings of `[backend.docker.registry."host"]`. Mirrors and plain HTTP are settings of Docker's own (`daemon.json`).
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// User name.
    pub username: Option<String>,
    /// Password or token.
    pub password: Option<String>,
    /// Replaces user name and password: the token server gives tokens for it. `identitytoken` of Docker's config.json.
    pub identity_token: Option<String>,
}

// Omits password and token (I10).
impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

impl RegistryConfig {
    pub(crate) fn credentials(&self) -> Option<RegistryAuth> {
        let Self { username, password, identity_token, .. } = self;
        RegistryAuth::of(username.as_deref(), password.as_deref(), identity_token.as_deref())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/var/run/docker.sock".into(),
            namespace: settings::NAMESPACE.to_owned(),
            network: "bridge".to_owned(),
            cgroup_root: settings::CGROUP_ROOT.to_owned(),
            log_max_size: settings::LOG_MAX_SIZE,
            log_max_files: settings::LOG_MAX_FILES,
            registry: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Checks the settings, so that the start reports a mistake and not the first pod that fails.
    pub(crate) fn validate(&self) -> Result<()> {
        settings::socket(&self.socket, "Docker")?;
        settings::namespace(&self.namespace)?;
        // Pods need a network of their own, which these modes do not give.
        if self.network.is_empty() || ["host", "none"].contains(&&*self.network) || self.network.contains(':') {
            return wrong("network", &self.network, "the name of a network of Docker that containers are connected to");
        }
        settings::cgroup_root(&self.cgroup_root)?;
        for (host, registry) in &self.registry {
            settings::identity_token(host, registry.identity_token.as_deref(), registry.password.is_some())?;
        }
        settings::log_limits(self.log_max_size, self.log_max_files)
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().expect_err("it is wrong").message().to_owned()
    }

    #[test]
    fn every_mistake_names_its_key() {
        Config::default().validate().expect("the defaults are right");
        assert!(refused(|it| it.socket = "docker.sock".into()).starts_with("socket"));
        assert!(refused(|it| it.namespace.clear()).starts_with("namespace"));
        for network in ["", "host", "none", "container:1"] {
            assert!(refused(|it| it.network = network.to_owned()).starts_with("network"));
        }
        assert!(refused(|it| it.cgroup_root.clear()).starts_with("cgroup_root"));
        assert!(refused(|it| it.log_max_size = 0).starts_with("log_max_size"));
        assert!(refused(|it| it.log_max_files = 0).starts_with("log_max_files"));
    }

    #[test]
    fn keys_of_other_backends_are_refused_and_passwords_not_shown() {
        let wrong = serde_json::from_str::<Config>(r#"{"snapshotter": "overlayfs"}"#).expect_err("unknown");
        assert!(wrong.to_string().contains("snapshotter"), "{wrong}");
        let text =
            r#"{"registry": {"a": {"username": "me", "password": "secret"}, "b": {"identity_token": "secret"}}}"#;
        let config: Config = serde_json::from_str(text).expect("right");
        config.validate().expect("right");
        assert!(!format!("{config:?}").contains("secret"), "I10");
    }

    /// Checks that `config/docker.toml` is complete.
    #[test]
    fn the_example_explains_every_key() {
        let example = include_str!("../../../config/docker.toml");
        let known = serde_json::from_str::<Config>(r#"{"?": 0}"#).expect_err("unknown").to_string();
        let keys = known.split('`').skip(3).step_by(2).collect::<Vec<_>>();
        assert!(keys.contains(&"socket") && keys.contains(&"registry"), "{known}");
        for key in keys {
            let is_it = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
            let table = format!("[backend.docker.{key}.");
            let mut lines = example.lines().map(|line| line.trim_start_matches("# "));
            assert!(lines.any(|line| is_it(line) || line.starts_with(&table)), "{key} is not in config/docker.toml");
        }
    }
}
