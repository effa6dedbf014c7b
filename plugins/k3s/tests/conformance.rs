//! The contract's own suite, on the containerd of a K3s, and on the one that K3s ships while K3s's is away.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stanchion_k3s::K3s;
use stanchion_runtime::{
    NodePaths, Runtime as _,
    testing::conformance::{self, Options},
};
use stanchion_tests::{
    containerd::Containerd,
    fixtures::Fixtures,
    k3s, proc,
    registry::Registry,
    remains,
    slot::{Kind, Slot},
    tools,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn k3s_keeps_the_contract() -> Result<()> {
    keeps_the_contract(true, json!({})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_containerd_that_k3s_ships_keeps_the_contract() -> Result<()> {
    keeps_the_contract(false, json!({"when_socket_absent": "own", "own_after": "0s"})).await
}

async fn keeps_the_contract(is_up: bool, mut table: Value) -> Result<()> {
    let slot = Slot::take(Kind::Test)?;
    let names = slot.names();
    let registry = Registry::start(&names.dir, &Fixtures::prepare()?.registry())?;
    let layout = k3s::K3s::build(&names.dir.join("k3s"))?;
    let _containerd = if is_up { Some(Containerd::of_k3s(&layout)?) } else { None };
    std::fs::create_dir(names.dir.join("logs")).context("making the directory of the logs")?;
    for (key, value) in [
        ("data_dir", json!(layout.data())),
        ("socket", json!(layout.socket())),
        ("namespace", json!(names.namespace)),
        ("cgroup_root", json!(names.cgroup)),
        ("logger", json!(tools::target_dir()?.join("debug/stanchion-logger"))),
        ("network", json!({"bridge": names.bridge, "subnet": names.subnet()})),
    ] {
        table[key] = value;
    }
    let paths = NodePaths {
        node_name: "node".to_owned(),
        state_dir: names.dir.join("state"),
        run_dir: names.dir.join("run"),
        log_dir: names.dir.join("logs"),
        libexec_dir: names.dir.join("libexec"),
    };
    let said = |error: stanchion_runtime::Error| anyhow::anyhow!("{:?}: {}", error.kind(), error.chain());
    let backend = K3s::new(serde_json::from_value(table)?, &paths).map_err(said)?;
    let state = if is_up { "k3s-up" } else { "k3s-stopped" };
    ensure!(backend.health().await.map_err(said)?.state == state, "the state is another: {:?}", backend.health().await);

    let image = format!("{}/library/busybox:latest", registry.address());
    let mut options = Options::pulling(&image, names.dir.join("logs"));
    options.only = std::env::var("CONFORMANCE_ONLY").ok();
    let transcript = conformance::run(&backend, &options).await;
    println!("{transcript}");
    ensure!(!transcript.cases.is_empty(), "no case ran");
    ensure!(transcript.failures().is_empty(), "rules of the contract are broken:\n{transcript}");
    // Standard input without a terminal: containerd's shim has none beside a logger.
    ensure!(transcript.unsupported() == ["environment.input"], "not supported: {:?}", transcript.unsupported());

    ensure!(backend.list().await.map_err(said)? == stanchion_runtime::Inventory::default(), "something is left");
    let cgroups = proc::cgroups(&names.cgroup)?;
    ensure!(!cgroups.iter().any(|path| path.to_string_lossy().contains("/pod")), "cgroups are left: {cgroups:?}");
    ensure!(remains::links(names, false)?.is_empty(), "links are left");
    Ok(())
}
