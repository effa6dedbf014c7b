//! Manifests for tests, and pods as the agent shows them.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::node::NODE_NAME;

/// The example manifest that the project began with, verbatim.
pub const REDIS: &str = include_str!("../fixtures/manifests/redis-static-pod.yaml");

/// Returns the name of a manifest's pod on the test node.
#[must_use]
pub fn on_node(name: &str) -> String {
    format!("{name}-{NODE_NAME}")
}

/// Returns a pod of one busybox container named `main` that runs `script` in a shell and stops fast. `extra` is added
/// to the pod's spec, indented by two spaces.
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

/// Script that waits for SIGTERM and then ends at once, as a well-behaved server does.
pub const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/// Returns a pod that does nothing until it is stopped; manifests with different `revision`s differ.
#[must_use]
pub fn idle(name: &str, revision: &str) -> String {
    shell(name, IDLE, &format!("    env:\n    - name: REVISION\n      value: {revision:?}\n"))
}

/// Pod as `get pods NAME -o json` shows it.
#[derive(Clone, Debug)]
pub struct Pod(pub Value);

impl Pod {
    /// Wraps the printed pod.
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

    /// Returns `status.phase`, or an empty string.
    #[must_use]
    pub fn phase(&self) -> &str {
        self.status("phase").as_str().unwrap_or_default()
    }

    /// Returns the number of containers in its spec.
    #[must_use]
    pub fn containers(&self) -> usize {
        self.0["spec"]["containers"].as_array().map_or(0, Vec::len)
    }

    /// Returns whether every container is ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.statuses().len() == self.containers() && self.statuses().iter().all(|status| status["ready"] == true)
    }

    /// Returns the status of one container; null if it has none.
    #[must_use]
    pub fn container(&self, name: &str) -> &Value {
        self.statuses().iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
    }

    /// Returns the sum of the containers' `restartCount`.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.statuses().iter().filter_map(|status| status["restartCount"].as_u64()).sum()
    }

    /// Returns `status.podIP`.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> Result<IpAddr> {
        let text = self.status("podIP").as_str().with_context(|| format!("no address: {}", self.summary()))?;
        text.parse().with_context(|| format!("status.podIP is {text:?}"))
    }

    /// Returns the status in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        self.0["status"].to_string()
    }
}
