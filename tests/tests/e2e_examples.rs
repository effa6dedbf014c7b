//! The example configurations, byte for byte. What is of the machine comes from the environment: places, names, sockets.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use stanchion_tests::{Backend, Node, node::NODE_NAME, pods, tools};

stanchion_tests::on_each_runtime! {
    the_example_runs_pods_as_it_stands,
}

fn the_example_runs_pods_as_it_stands(on: Backend) -> Result<()> {
    let mut node = Node::builder().on(on).without_agent()?;
    let example = match on {
        Backend::Containerd | Backend::K3s => "stanchion.toml",
        Backend::Docker => "docker.toml",
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(example);
    fs::create_dir_all(node.path("example/conf.d"))?;
    let config = node.path("example").join(example);
    fs::copy(&source, &config).with_context(|| format!("copying {}", source.display()))?;
    // A list cannot come from the environment.
    let manifests = format!("[[source]]\npath = {:?}\n", node.path("manifests"));
    fs::write(node.path("example/conf.d/source.toml"), manifests)?;
    let environment = environment(&node)?;
    node.agent.configure(&config, environment);
    node.agent.start()?;
    let image = format!("image: {}", node.in_registry("busybox")?);
    node.write("pod.yaml", pods::idle("pod", "1").replace("image: busybox", &image))?;
    node.await_running("pod")?;
    node.await_said(&["backends"], &[on.name(), "Ready"])?;
    node.remove("pod.yaml")?;
    node.await_nothing_left()
}

fn environment(node: &Node) -> Result<Vec<(String, String)>> {
    let path = |sub: &str| node.path(sub).display().to_string();
    let runtime = node.runtime().name();
    let socket = match &node.docker {
        Some(docker) => docker.socket(),
        None => node.containerd.socket(),
    };
    let names = node.names();
    let mut settings = vec![
        ("agent.node_name".to_owned(), NODE_NAME.to_owned()),
        ("agent.state_dir".to_owned(), path("state")),
        ("agent.run_dir".to_owned(), path("run")),
        ("agent.log_dir".to_owned(), path("logs")),
        ("agent.plugin_dir".to_owned(), tools::target_dir()?.join("debug").display().to_string()),
        ("images.preload".to_owned(), path("preload")),
        (format!("backend.{runtime}.socket"), socket.display().to_string()),
        (format!("backend.{runtime}.namespace"), names.namespace.clone()),
        (format!("backend.{runtime}.cgroup_root"), names.cgroup.clone()),
    ];
    if node.runtime() == Backend::Containerd {
        settings.push(("backend.containerd.network.bridge".to_owned(), names.bridge.clone()));
        settings.push(("backend.containerd.network.subnet".to_owned(), names.subnet()));
    }
    let variable = |key: String| format!("STANCHION_{}", key.to_uppercase().replace('.', "__"));
    Ok(settings.into_iter().map(|(key, value)| (variable(key), value)).collect())
}
