//! Settings of `[backend.k3s]`: where K3s is and what happens without it, beside the settings of the containerd
//! backend.

use std::{path::PathBuf, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use stanchion_containerd::Config as Containerd;
use stanchion_sdk::{
    runtime::{OnReturn, Result},
    settings::wrong,
};

use crate::layout::Layout;

/// Settings of the backend; all have defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where K3s is, and what happens without it.
    pub k3s: Settings,
    /// Settings of the containerd backend, whichever containerd runs the pods. Its socket is K3s's.
    pub containerd: Containerd,
}

/// Keys that the containerd backend does not have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// K3s's or RKE2's `--data-dir`; default is `/var/lib/rancher/k3s` or `/var/lib/rancher/rke2`, whichever exists.
    pub data_dir: Option<PathBuf>,
    /// K3s's registries.yaml; default is K3s's own path for it. For a host that `registry` names, `registry` counts.
    pub registries: Option<PathBuf>,
    /// Handling of pods while K3s's containerd does not answer.
    pub when_socket_absent: Absent,
    /// Place of pods that were started elsewhere meanwhile, when it answers again.
    pub on_return: Return,
    /// Time without an answer before a containerd of our own is started, e.g. `15s`. A restart of K3s takes less.
    pub own_after: String,
}

/// Values of `when_socket_absent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Pods wait.
    Wait,
    /// Another configured backend runs the pods.
    Fallback,
    /// The containerd that K3s ships runs the pods, started by us, on data of our own.
    Own,
}

/// Values of `on_return`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Return {
    /// Pods stay where they are, until they are restarted for another reason.
    Stay,
    /// Pods move to K3s's containerd: each is stopped, and started there.
    Migrate,
}

impl From<Return> for OnReturn {
    fn from(choice: Return) -> Self {
        match choice {
            Return::Stay => Self::Stay,
            Return::Migrate => Self::Migrate,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: None,
            registries: None,
            when_socket_absent: Absent::Wait,
            on_return: Return::Stay,
            own_after: "15s".to_owned(),
        }
    }
}

impl Settings {
    /// Returns [`registries`](Self::registries), or its default.
    pub(crate) fn registries(&self, layout: &Layout) -> PathBuf {
        let name = if layout.data().ends_with("rke2") { "rke2" } else { "k3s" };
        self.registries.clone().unwrap_or_else(|| format!("/etc/rancher/{name}/registries.yaml").into())
    }

    /// Returns [`own_after`](Self::own_after) as a duration.
    ///
    /// # Errors
    /// The setting is not a duration such as `15s`.
    pub fn patience(&self) -> Result<Duration> {
        let parsed = self.own_after.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
        let Some(time) = parsed else {
            return wrong("own_after", &self.own_after, "a time such as \"15s\" or \"2m\"").map(|()| Duration::ZERO);
        };
        Ok(time)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.patience()?;
        match &self.data_dir {
            Some(path) if !path.is_absolute() => {
                wrong("data_dir", path, "the absolute path of K3s's data directory, e.g. /var/lib/rancher/k3s")
            }
            _ => Ok(()),
        }
    }
}

/// Keys of [`Settings`].
const KEYS: [&str; 5] = ["data_dir", "registries", "when_socket_absent", "on_return", "own_after"];

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(table: D) -> std::result::Result<Self, D::Error> {
        let (k3s, mut rest): (Map<_, _>, Map<_, _>) =
            Map::deserialize(table)?.into_iter().partition(|(key, _)| KEYS.contains(&key.as_str()));
        // These defaults differ from those of the containerd backend. The cgroups: pods that run on another backend
        // meanwhile have the same names.
        for (key, value) in [("socket", crate::layout::SOCKET), ("cgroup_root", "/stanchion-k3s")] {
            rest.entry(key).or_insert_with(|| Value::from(value));
        }
        let of_k3s = |error: serde_json::Error| de::Error::custom(error);
        let of_containerd = |error: serde_json::Error| {
            let is_unknown = error.to_string().starts_with("unknown field");
            let more = if is_unknown { format!(", or of K3s: `{}`", KEYS.join("`, `")) } else { String::new() };
            de::Error::custom(format!("{error}{more}"))
        };
        Ok(Self {
            k3s: serde_json::from_value(Value::Object(k3s)).map_err(of_k3s)?,
            containerd: serde_json::from_value(Value::Object(rest)).map_err(of_containerd)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Absent, Config, Return};

    fn read(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_of_k3s_and_of_containerd_share_the_table() {
        let config =
            read(r#"{"when_socket_absent": "own", "on_return": "migrate", "namespace": "ours"}"#).expect("fine");
        assert_eq!((config.k3s.when_socket_absent, config.k3s.on_return), (Absent::Own, Return::Migrate));
        assert_eq!(config.containerd.namespace, "ours");
        let default = read("{}").expect("fine");
        assert_eq!(default.containerd.socket.to_str(), Some("/run/k3s/containerd/containerd.sock"));
        assert_eq!(default.containerd.cgroup_root, "/stanchion-k3s");
        assert_eq!((default.k3s.when_socket_absent, default.k3s.on_return), (Absent::Wait, Return::Stay));
    }

    #[test]
    fn mistakes_name_the_key_or_what_is_expected() {
        let unknown = read(r#"{"on_retrun": "stay"}"#).expect_err("a typo");
        assert!(
            unknown.contains("on_retrun") && unknown.contains("on_return") && unknown.contains("socket"),
            "{unknown}"
        );
        let wrong = read(r#"{"when_socket_absent": "never"}"#).expect_err("no such way");
        assert!(wrong.contains("never") && wrong.contains("`fallback`"), "{wrong}");
        let never = read(r#"{"own_after": "soon"}"#).expect("read").k3s.validate().expect_err("no time");
        assert!(never.message().starts_with("own_after = \"soon\": expected a time"), "{}", never.message());
        let relative = read(r#"{"data_dir": "k3s"}"#).expect("read").k3s.validate().expect_err("relative");
        assert!(relative.message().starts_with("data_dir = \"k3s\": expected"), "{}", relative.message());
    }
}
