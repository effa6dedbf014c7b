//! The example configurations, unchanged. Paths, names and sockets of the test node come from environment variables.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{Backend, Node, node::NODE_NAME, pods, tools, view::View};

stanchion_tests::on_each_runtime! {
    the_example_runs_pods_as_it_stands,
}

fn the_example_runs_pods_as_it_stands(on: Backend) -> Result<()> {
    let mut node = Node::builder().on(on).without_agent()?;
    let example = match on {
        Backend::Containerd | Backend::K3s => "stanchion.toml",
        Backend::Docker => "docker.toml",
    };
    start(&mut node, example)?;
    node.write("pod.yaml", idle(&node, "pod")?)?;
    node.await_running("pod")?;
    node.await_said(&["backends"], &[on.name(), "Ready"])?;
    node.remove("pod.yaml")?;
    node.await_nothing_left()
}

#[test]
fn the_example_of_a_mixed_node_runs_pods_as_it_stands() -> Result<()> {
    let mut node = Node::builder().mixed().without_agent()?;
    start(&mut node, "mixed.toml")?;
    let plain = idle(&node, "plain")?;
    node.await_said(&["get", "backends"], &["containerd   Ready", "docker       Ready"])?;
    let asking = idle(&node, "asking")?;
    node.write("plain.yaml", plain)?;
    node.write("asking.yaml", format!("{asking}  runtimeClassName: docker\n"))?;
    // "auto" takes the first backend table of the file.
    for (pod, backend) in [("plain", "containerd"), ("asking", "docker")] {
        node.until(&format!("pod {pod} to run on {backend}"), || {
            let shown = node.said(&["get", "pods", pods::on_node(pod).as_str(), "-o", "wide"])?;
            ensure!(shown.contains("Running") && shown.contains(backend), "{shown}");
            let running =
                node.views().iter().map(|view| view.of_pod(&pods::on_node(pod))).collect::<Result<Vec<_>>>()?;
            let [docker, containerd] = &running[..] else { anyhow::bail!("two runtimes: {running:?}") };
            let (here, there) = if backend == "docker" { (docker, containerd) } else { (containerd, docker) };
            ensure!(here.len() == 1 && there.is_empty(), "{running:?}");
            Ok(())
        })?;
    }
    node.remove("plain.yaml")?;
    node.remove("asking.yaml")?;
    node.await_nothing_left()
}

/// Starts the agent with an example, and with the test node's settings in the environment.
fn start(node: &mut Node, example: &str) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(example);
    fs::create_dir_all(node.path("example/conf.d"))?;
    let config = node.path("example").join(example);
    fs::copy(&source, &config).with_context(|| format!("copying {}", source.display()))?;
    // The environment cannot set a list.
    let manifests = format!("[[source]]\npath = {:?}\n", node.path("manifests"));
    fs::write(node.path("example/conf.d/source.toml"), manifests)?;
    let environment = environment(node)?;
    node.agent.configure(&config, environment);
    node.agent.start()
}

/// Returns a pod whose image names the node's registry by address, because the example has no mirror.
fn idle(node: &Node, pod: &str) -> Result<String> {
    let image = format!("image: {}", node.in_registry("busybox")?);
    Ok(pods::idle(pod, "1").replace("image: busybox", &image))
}

fn environment(node: &Node) -> Result<Vec<(String, String)>> {
    let path = |sub: &str| node.path(sub).display().to_string();
    let names = node.names();
    let mut settings = vec![
        ("agent.node_name".to_owned(), NODE_NAME.to_owned()),
        ("agent.state_dir".to_owned(), path("state")),
        ("agent.run_dir".to_owned(), path("run")),
        ("agent.log_dir".to_owned(), path("logs")),
        ("agent.plugin_dir".to_owned(), tools::target_dir()?.join("debug").display().to_string()),
        ("images.preload".to_owned(), path("preload")),
    ];
    let docker = node.docker.as_ref().map(|docker| (Backend::Docker, docker.socket()));
    let runs_pods = node.views().iter().any(|view| matches!(view, View::Containerd(_)));
    let containerd = runs_pods.then(|| (Backend::Containerd, node.containerd.socket()));
    for (runtime, socket) in docker.into_iter().chain(containerd) {
        let table = format!("backend.{}", runtime.name());
        settings.push((format!("{table}.socket"), socket.display().to_string()));
        settings.push((format!("{table}.namespace"), names.namespace.clone()));
        settings.push((format!("{table}.cgroup_root"), names.cgroup_root.clone()));
        if runtime == Backend::Containerd {
            settings.push((format!("{table}.network.bridge"), names.bridge.clone()));
            settings.push((format!("{table}.network.subnet"), names.subnet()));
        }
    }
    let variable = |key: String| format!("STANCHION_{}", key.to_uppercase().replace('.', "__"));
    Ok(settings.into_iter().map(|(key, value)| (variable(key), value)).collect())
}
