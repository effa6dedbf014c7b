//! Settings of `[backend.containerd]`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use stanchion_network::NetworkConfig;
use stanchion_registry::RegistryConfig;
use stanchion_sdk::{
    runtime::Result,
    settings::{self, wrong},
};

/// Settings of the backend; all have defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// containerd's socket.
    pub socket: PathBuf,
    /// The containerd namespace that holds all of Stanchion's objects.
    pub namespace: String,
    /// The snapshotter of the containers' root file systems.
    pub snapshotter: String,
    /// The containerd runtime.
    pub runtime: String,
    /// Program of the OCI runtime, by name or path; default is the containerd runtime's own, `runc`.
    pub runtime_binary: Option<String>,
    /// State directory of that program; default is the containerd runtime's own, `/run/containerd/runc`.
    pub runtime_root: Option<PathBuf>,
    /// Root of the containers' cgroups, absolute in every hierarchy.
    pub cgroup_root: String,
    /// Whether systemd creates the containers' cgroups, as slices and scopes; else the OCI runtime does. Same as
    /// containerd's own `SystemdCgroup` on this node.
    pub systemd_cgroup: bool,
    /// The program that writes container output; default `stanchion-logger` beside the agent.
    pub logger: Option<PathBuf>,
    /// Maximum size of a log file, bytes: it is rotated before it grows larger.
    pub log_max_size: u64,
    /// Number of log files kept per container, the current one included.
    pub log_max_files: u32,
    /// Registry settings, by host.
    pub registry: BTreeMap<String, RegistryConfig>,
    /// Name of the registry settings in error messages, with `{host}` for the host: users learn where to add a setting.
    #[serde(skip)]
    pub registry_settings: String,
    /// The pods' network.
    pub network: NetworkConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/containerd/containerd.sock".into(),
            namespace: settings::NAMESPACE.to_owned(),
            snapshotter: "overlayfs".to_owned(),
            runtime: "io.containerd.runc.v2".to_owned(),
            runtime_binary: None,
            runtime_root: None,
            cgroup_root: settings::CGROUP_ROOT.to_owned(),
            systemd_cgroup: false,
            logger: None,
            log_max_size: settings::LOG_MAX_SIZE,
            log_max_files: settings::LOG_MAX_FILES,
            registry: BTreeMap::new(),
            registry_settings: "[backend.containerd.registry.\"{host}\"]".to_owned(),
            network: NetworkConfig::default(),
        }
    }
}

impl Config {
    /// Checks the settings, so that the start reports a mistake and not the first pod that fails.
    pub(crate) fn validate(&self) -> Result<()> {
        settings::socket(&self.socket, "containerd")?;
        settings::namespace(&self.namespace)?;
        for (key, value) in [("snapshotter", &self.snapshotter), ("runtime", &self.runtime)] {
            if value.is_empty() {
                return wrong(key, value, "a name");
            }
        }
        settings::cgroup_root(&self.cgroup_root)?;
        if let Some(root) = self.runtime_root.as_ref().filter(|root| !root.is_absolute()) {
            return wrong("runtime_root", root, "the absolute path of a directory");
        }
        if let Some(logger) = self.logger.as_ref().filter(|logger| !logger.is_absolute()) {
            return wrong("logger", logger, "the absolute path of a program");
        }
        self.registry.iter().try_for_each(|(host, registry)| registry.check(host))?;
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
        assert!(refused(|it| it.socket = "containerd.sock".into()).starts_with("socket"));
        assert!(refused(|it| it.cgroup_root.clear()).starts_with("cgroup_root"));
        assert!(refused(|it| it.namespace.clear()).starts_with("namespace"));
        assert!(refused(|it| it.snapshotter.clear()).starts_with("snapshotter"));
        assert!(refused(|it| it.runtime_root = Some("runc".into())).starts_with("runtime_root"));
        assert!(refused(|it| it.logger = Some("logger".into())).starts_with("logger"));
        assert!(refused(|it| it.log_max_size = 0).starts_with("log_max_size"));
        assert!(refused(|it| it.log_max_files = 0).starts_with("log_max_files"));
        for (table, said) in [
            (r#"{"rewrite": {"(": ""}}"#, "registry.\"h\".rewrite = \"(\""),
            (r#"{"cert_file": "/c.pem"}"#, "registry.\"h\".cert_file = \"/c.pem\": expected a key_file"),
            (r#"{"key_file": "/k.pem"}"#, "registry.\"h\".key_file = \"/k.pem\": expected a cert_file"),
            (r#"{"identity_token": ""}"#, "registry.\"h\".identity_token"),
            (r#"{"identity_token": "t", "password": "p"}"#, "registry.\"h\" has a password and an identity_token"),
        ] {
            let registry = serde_json::from_str(table).expect("right");
            let found = refused(|it| drop(it.registry.insert("h".to_owned(), registry)));
            assert!(found.starts_with(said), "{found}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let wrong = serde_json::from_str::<Config>(r#"{"sockt": "/run/x.sock"}"#).expect_err("unknown");
        assert!(wrong.to_string().contains("sockt"), "{wrong}");
    }
}
