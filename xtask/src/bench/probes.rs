//! Cost of probes for the agent: many pods, each with three probes that run every second.

use anyhow::{Context as _, Result};
use stanchion_tests::Node;

use super::Idle;
use crate::say;

/// Number of pods.
const PODS: usize = 50;
/// Budgets of the agent: per cent of a core, and MiB.
const CPU: f64 = 2.0;
const MEMORY: f64 = 20.0;

/// Starts the pods, watches the agent for `seconds`, prints its CPU and memory, and removes the pods.
pub fn measure(node: &Node, seconds: u64) -> Result<()> {
    for index in 0..PODS {
        node.write(&file(index), manifest(index))?;
    }
    for index in 0..PODS {
        node.await_running(&name(index))?;
    }
    say(format!("{PODS} pods with three probes each, for {seconds} s"));
    let agent = node.agent.id().context("the agent runs")?;
    let used = Idle::watch(agent, seconds)?;
    println!(
        "{PODS} pods with three probes each at 1 s: {:.2} % of a core (budget {CPU}), {} (budget {MEMORY} MiB)\n",
        used.cpu,
        used.memory()
    );
    for index in 0..PODS {
        node.remove(&file(index))?;
    }
    for index in 0..PODS {
        node.await_gone(&name(index))?;
    }
    Ok(())
}

fn name(index: usize) -> String {
    format!("probed-{index}")
}

fn file(index: usize) -> String {
    format!("probed-{index}.yaml")
}

/// Returns a pod with three probes. The third belongs to a second container and asks the first one's server, because
/// a startup probe would end with its success.
fn manifest(index: usize) -> String {
    let name = name(index);
    let idle = serde_json::Value::from(stanchion_tests::pods::IDLE);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 5\n  containers:\n  - \
         name: main\n    image: busybox\n    command: [sh, -c, \"mkdir -p /www; echo ok > /www/health; exec httpd -f -p 8080 -h \
         /www\"]\n    livenessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}\n    readinessProbe: {{tcpSocket: \
         {{port: 8080}}, periodSeconds: 1}}\n  - name: side\n    image: busybox\n    command: [sh, -c, {idle}]\n    readinessProbe: \
         {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}\n"
    )
}
