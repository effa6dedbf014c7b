//! Manifests to write, and pods as they are shown.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::node::NODE_NAME;

/// The manifest of the founding story, to the letter.
pub const REDIS: &str = include_str!("../fixtures/manifests/redis-static-pod.yaml");

/// The name that a manifest's pod has on the test node.
#[must_use]
pub fn on_node(name: &str) -> String {
    format!("{name}-{NODE_NAME}")
}

/// A pod of one busybox container named `main` that runs `script` in a shell and stops fast; `extra` is added to the pod's
/// spec, two spaces deep.
#[must_use]
pub fn shell(name: &str, script: &str, extra: &str) -> String {
    let script = Value::from(script);
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  terminationGracePeriodSeconds: 5\n  containers:\n  \
         - name: main\n    image: busybox\n    command: [sh, -c, {script}]\n"
    );
    text.push_str(extra);
    text
}

/// A script that waits for SIGTERM and then ends at once, as a well-behaved server does.
pub const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/// A pod that does nothing until it is told to stop; `revision` makes it differ.
#[must_use]
pub fn idle(name: &str, revision: &str) -> String {
    shell(name, IDLE, &format!("    env:\n    - name: REVISION\n      value: {revision:?}\n"))
}

/// A pod as `get pods NAME -o json` shows it.
#[derive(Clone, Debug)]
pub struct Pod(pub Value);

impl Pod {
    /// Wraps what was printed.
    #[must_use]
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    fn status(&self, key: &str) -> &Value {
        &self.0["status"][key]
    }

    fn statuses(&self) -> &[Value] {
        self.status("containerStatuses").as_array().map_or(&[], Vec::as_slice)
    }

    /// `status.phase`.
    #[must_use]
    pub fn phase(&self) -> &str {
        self.status("phase").as_str().unwrap_or_default()
    }

    /// How many containers its spec has.
    #[must_use]
    pub fn containers(&self) -> usize {
        self.0["spec"]["containers"].as_array().map_or(0, Vec::len)
    }

    /// Whether every container is ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.statuses().len() == self.containers() && self.statuses().iter().all(|status| status["ready"] == true)
    }

    /// The status of one container; null when there is none.
    #[must_use]
    pub fn container(&self, name: &str) -> &Value {
        self.statuses().iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
    }

    /// Restarts of all containers.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.statuses().iter().filter_map(|status| status["restartCount"].as_u64()).sum()
    }

    /// `status.podIP`.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> Result<IpAddr> {
        let text = self.status("podIP").as_str().with_context(|| format!("no address: {}", self.summary()))?;
        text.parse().with_context(|| format!("status.podIP is {text:?}"))
    }

    /// The status in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        self.0["status"].to_string()
    }
}
