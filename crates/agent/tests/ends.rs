//! Every accepted manifest settles: its pod runs, ends, or waits for a reason that its status shows. From then on the
//! agent makes few calls, and a removed pod leaves nothing behind.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use stanchion_pod::{Manifest, decode};
use stanchion_runtime::testing::Program;

use node::Node;

#[path = "agent/node.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
#[allow(clippy::disallowed_methods, reason = "a test measures")]
mod node;

/// Returns the recorded and example manifests that this node accepts and that touch nothing of the test machine.
fn manifests() -> Vec<(String, Vec<u8>, Manifest)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let folders =
        ["golden/apiserver-1.36/valid", "golden/apiserver-1.36/decode", "manifests", "manifests/control-plane"];
    let mut found = Vec::new();
    for entry in folders.iter().flat_map(|folder| fs::read_dir(tests.join(folder)).expect("it is there")) {
        let path = entry.expect("an entry").path();
        let content = path.extension().is_some_and(|it| it == "yaml").then(|| fs::read(&path).expect("a file"));
        let Some(content) = content.filter(|content| !String::from_utf8_lossy(content).contains("hostPath")) else {
            continue;
        };
        let Ok(manifest) = decode(&content, "node") else { continue };
        found.push((path.file_name().expect("it has one").to_string_lossy().into_owned(), content, manifest));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() > 80, "{} manifests are accepted", found.len());
    found
}

/// Returns one of six container behaviours, chosen by the container's name and the seed.
fn program(name: &str, seed: usize) -> Program {
    let second = Duration::from_secs(1);
    let choice = name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    match choice % 6 {
        0 => Program::server(),
        1 => Program::exits(second, 0),
        2 => Program::exits(7 * second, 1),
        3 => Program::exits(700 * second, 3),
        4 => Program::stubborn(),
        _ => Program::stops_in(20 * second, 0),
    }
}

async fn all_at_once(seed: usize) {
    let manifests = manifests();
    let mut node = Node::new();
    for (file, content, manifest) in &manifests {
        let containers = manifest.pods.iter().flat_map(|pod| pod.all_containers());
        for container in containers {
            node.fake().publish(&format!("docker.io/library/{}", container.image), 1000);
            node.fake().publish(&container.image, 1000);
            node.fake().program(&container.name, program(&container.name, seed));
        }
        // Some hold Secrets, which only root should be able to read.
        let path = node.manifests().join(file);
        fs::write(&path, content).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    }
    node.start();
    tokio::time::sleep(Duration::from_secs(300)).await;
    let before = node.fake().actions().len();
    tokio::time::sleep(Duration::from_secs(300)).await;
    let pods = node.handle().board.pods().len();
    let did = node.fake().actions().len() - before;
    // A crash loop or a failing probe makes a few calls a minute.
    assert!(did <= pods * 40, "{did} calls for {pods} pods in five minutes\n{node:?}");
    for view in node.handle().board.pods() {
        let status = view.pod.status.as_ref().expect("it has one");
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let mut waiting = statuses.filter_map(|it| it.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let phase = status.phase.as_deref().unwrap_or_default();
        let is_said = phase != "Pending" || waiting.next().is_some() || status.reason.is_some();
        assert!(is_said, "{:?} is {phase} and nobody knows why", view.pod.metadata.name);
    }
    for (file, ..) in &manifests {
        node.remove(file);
    }
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_accepted_comes_to_rest_and_goes() {
    all_at_once(1).await;
}
