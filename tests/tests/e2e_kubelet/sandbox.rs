//! Loss of a pod's sandbox.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stanchion_tests::{Node, proc, process, tools, view::View};

/// Destroys a pod's sandbox: kills its process on Docker, unmounts its network namespace on containerd.
pub fn lose(node: &Node, pod: &str) -> Result<()> {
    match node.view() {
        View::Docker(engine) => {
            let all = engine.all()?;
            let label = |one: &Value, name: &str| one["Labels"][format!("io.kubernetes.{name}.name")] == pod;
            let sandbox =
                all.iter().find(|one| label(one, "pod") && one["Labels"]["io.kubernetes.container.name"].is_null());
            let sandbox = sandbox.with_context(|| format!("pod {pod} has no sandbox"))?;
            let id = sandbox["Id"].as_str().unwrap_or_default();
            let about = engine.get(&format!("/containers/{id}/json"))?;
            let pid = about["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            process::kill(pid.context("the sandbox does not run")?)
        }
        View::Containerd(_) => {
            let mounts = proc::mounts_below(&node.names().dir)?;
            let own = format!("/{pod}-");
            let network = mounts.iter().find(|path| path.ends_with("net") && path.to_string_lossy().contains(&own));
            let network = network.context("nothing holds the network of the sandbox")?;
            process::text(tools::command("umount")?.arg(network))?;
            // The runtime sends no event for this; the next periodic relist finds it.
            node.until("the loss to be noticed", || {
                let shown = node.agent.json(&["get", "pods", pod])?;
                let conditions = shown["status"]["conditions"].as_array();
                let is_gone = |it: &Value| it["type"] == "PodReadyToStartContainers" && it["status"] == "False";
                let restarted = shown["status"]["containerStatuses"][0]["restartCount"] != 0;
                ensure!(restarted || conditions.is_some_and(|all| all.iter().any(is_gone)), "it is not");
                Ok(())
            })
        }
    }
}
