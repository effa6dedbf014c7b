//! `image` volumes on real runtimes.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    image::{Image, PackedLayer, Run},
    layer::Layer,
    pods::{self, IDLE},
    proc,
    wait::pause,
};

/// `mountPath` and `subPath` of each mount of the image.
const MOUNTS: [(&str, &str); 5] =
    [("/all", ""), ("/part", "model/sub"), ("/linked", "current"), ("/out", "way-out"), ("/one", "model/weights")];

/// Returns a pod with all [`MOUNTS`] of the image `reference`.
fn manifest(reference: &str) -> String {
    let mounts: String = MOUNTS
        .iter()
        .map(|(path, part)| format!("    - {{name: data, mountPath: {path}, subPath: {part:?}}}\n"))
        .collect();
    let extra =
        format!("    volumeMounts:\n{mounts}  volumes:\n  - name: data\n    image: {{reference: {reference:?}}}\n");
    pods::shell("pod", IDLE, &extra)
}

/// Puts the image `docker.io/data/model:<tag>` into the preload directory. With two layers, the upper hides a file of
/// the lower; with one, containerd needs no overlay.
fn publish(node: &Node, tag: &str, layers: usize) -> Result<()> {
    let mut lower = Layer::default();
    lower.file("/model/weights", 0o644, b"below\n")?;
    lower.file("/model/late", 0o644, b"late\n")?;
    lower.dir("/model/sub", 0o755)?;
    lower.link("/current", "/model/sub")?;
    lower.link("/way-out", "../../../../../../etc")?;
    let mut upper = Layer::default();
    let top = if layers == 1 { &mut lower } else { &mut upper };
    top.file("/model/sub/note", 0o644, format!("note {tag}\n").as_bytes())?;
    top.file("/model/run.sh", 0o755, b"#!/bin/sh\necho it ran\n")?;
    top.file("/etc/hostname", 0o644, b"of the image\n")?;
    if layers > 1 {
        upper.file("/model/weights", 0o644, b"above\n")?;
    }
    let all = [lower, upper].into_iter().take(layers);
    let all = all.map(|layer| PackedLayer::new(layer.finish()?)).collect::<Result<Vec<_>>>()?;
    let draft = node.path(&format!("model-{tag}.tar"));
    let image = Image::new("data/model", tag, &Run::default(), &all);
    image.docker_archive(&draft, &format!("docker.io/data/model:{tag}"))?;
    fs::rename(&draft, node.path(&format!("preload/model-{tag}.tar"))).context("the archive can be put in place")
}

/// Runs a script in the pod's container and returns its output.
fn run(node: &Node, script: &str) -> Result<String> {
    node.said(&["exec", "pod-node-1", "--", "sh", "-c", script])
}

/// Checks that the image's files are mounted read-only and not executable.
fn check(node: &Node, tag: &str, weights: &str) -> Result<()> {
    let note = format!("note {tag}\n");
    for (path, expected) in [
        ("/all/model/weights", weights),
        ("/all/model/sub/note", &note),
        ("/part/note", &note),
        ("/linked/note", &note),
        ("/out/hostname", "of the image\n"),
        ("/one", weights),
    ] {
        let found = run(node, &format!("cat {path}"))?;
        ensure!(found == expected, "{path} has {found:?}");
    }
    for path in ["/all/new", "/all/model/weights", "/part/new", "/out/new", "/one"] {
        let said = run(node, &format!("echo x > {path}"))?;
        ensure!(said.contains("Read-only file system"), "writing to {path} says {said:?}");
    }
    let said = run(node, "/all/model/run.sh")?;
    ensure!(said.contains("Permission denied") && !said.contains("it ran"), "running a program says {said:?}");
    let table = run(node, "cat /proc/mounts")?;
    for (path, _) in MOUNTS {
        let line = table.lines().find(|line| line.split(' ').nth(1) == Some(path)).context("it is mounted")?;
        let options = line.split(' ').nth(3).unwrap_or_default();
        let has = |wanted: &str| options.split(',').any(|option| option == wanted);
        ensure!(["ro", "nosuid", "nodev", "noexec"].iter().all(|it| has(it)), "{line}");
    }
    for images in ["run/images", "run/docker-images"] {
        let on_node = proc::mounts_below(&node.path(images))?;
        ensure!(on_node.is_empty(), "on the node are mounted {on_node:?}");
    }
    Ok(())
}

/// Waits until the pod runs in another container than `before`.
fn await_another(node: &Node, before: &(String, u32, u64)) -> Result<()> {
    node.until("another container", || {
        let now = node.container("pod")?;
        ensure!(now.identity() != *before, "still {before:?}");
        Ok(())
    })?;
    node.await_running("pod").map(drop)
}

fn everything(node: &mut Node) -> Result<()> {
    println!("as long as the image cannot be had, the pod waits and says why");
    node.write("pod.yaml", manifest("data/model:1"))?;
    node.write("other.yaml", pods::idle("other", "1"))?;
    node.await_said(&["get", "pods"], &["ErrImagePull"])?;
    node.await_said(&["get", "pods"], &["ImagePullBackOff"])?;
    // When the mirror fails, Docker asks Docker Hub, which it cannot reach.
    let why = if node.docker.is_some() { "cannot be reached" } else { "not found" };
    node.await_said(&["describe", "pod", "pod-node-1"], &["Back-off pulling image \"data/model:1\"", why])?;
    node.await_running("other")?;
    publish(node, "1", 2)?;
    node.await_running("pod")?;
    check(node, "1", "above\n")?;

    println!("what is in use stays when the image's name goes");
    match &node.docker {
        Some(docker) => docker.engine().forget_image("data/model:1")?,
        None => drop(node.ctr().run(&["images", "rm", "--sync", "docker.io/data/model:1"])?),
    }
    let late = run(node, "cat /all/model/late /all/model/run.sh")?;
    ensure!(late.starts_with("late\n#!/bin/sh\n"), "{late:?}");
    if node.docker.is_none() {
        let views = node.ctr().working_snapshots()?.into_iter().filter(|key| key.contains("-image-")).count();
        ensure!(views == MOUNTS.len(), "{views} views are left");
    }

    println!("an agent that comes anew touches nothing");
    let before = node.container("pod")?.identity();
    node.agent.kill()?;
    node.agent.start()?;
    node.await_running("pod")?;
    check(node, "1", "above\n")?;

    println!("an edit waits for its image and replaces the pod");
    node.write("pod.yaml", manifest("data/model:2"))?;
    node.await_said(&["describe", "pod", "pod-node-1"], &["data/model:2"])?;
    ensure!(node.container("pod")?.identity() == before, "the old pod was touched");
    publish(node, "2", 1)?;
    await_another(node, &before)?;
    check(node, "2", "below\n")?;

    println!("a crash brings it back with its image");
    let before = node.container("pod")?;
    before.kill()?;
    await_another(node, &before.identity())?;
    check(node, "2", "below\n")?;

    println!("what the image does not have is named");
    node.write("pod.yaml", manifest("data/model:2").replace("model/weights", "model/none"))?;
    node.await_said(&["describe", "pod", "pod-node-1"], &["CreateContainerError", "looking for model/none in image"])?;

    node.remove("pod.yaml")?;
    node.remove("other.yaml")?;
    node.await_nothing_left()
}

// R-VOL-11.
#[test]
fn containers_have_the_files_of_images_on_containerd() -> Result<()> {
    Node::builder().on(Backend::Containerd).run(everything)
}

// R-VOL-11.
#[test]
fn containers_have_the_files_of_images_on_k3s() -> Result<()> {
    Node::builder().on(Backend::K3s).run(everything)
}

// R-VOL-11.
#[test]
fn containers_have_the_files_of_images_on_docker() -> Result<()> {
    Node::builder().on(Backend::Docker).run(everything)
}

// R-VOL-11.
#[test]
fn who_prunes_docker_s_images_under_a_pod_sees_it_come_back_with_them() -> Result<()> {
    Node::builder().on(Backend::Docker).run(|node| {
        publish(node, "1", 2)?;
        node.write("pod.yaml", manifest("data/model:1"))?;
        node.await_running("pod")?;
        let before = node.container("pod")?.identity();
        let engine = node.docker.as_ref().context("there is a Docker")?.engine();
        engine.prune()?;
        await_another(node, &before)?;
        check(node, "1", "above\n")?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

// R-VOL-11.
#[test]
fn an_image_of_a_registry_is_pulled_for_its_volume() -> Result<()> {
    Node::builder().run(|node| {
        let extra = "    volumeMounts: [{name: data, mountPath: /redis}]\n  volumes: [{name: data, image: {reference: redis}}]\n";
        node.write("pod.yaml", pods::shell("pod", IDLE, extra))?;
        node.await_running("pod")?;
        let said = run(node, "ls /redis/usr/local/bin")?;
        ensure!(said.contains("redis-server"), "{said:?}");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

/// Kills the agent eight times while it replaces a pod, each time a little later.
fn kill_it_in_the_middle(node: &mut Node) -> Result<()> {
    publish(node, "1", 2)?;
    node.write("pod.yaml", manifest("data/model:1"))?;
    node.await_running("pod")?;
    for round in 0..8_u64 {
        node.write("pod.yaml", manifest("data/model:1") + &format!("  hostname: round-{round}\n"))?;
        pause(Duration::from_millis(20 + 25 * round));
        node.agent.kill()?;
        node.agent.start()?;
    }
    node.until("the last revision", || {
        let said = run(node, "hostname")?;
        ensure!(said == "round-7\n", "it is {said:?}");
        Ok(())
    })?;
    check(node, "1", "above\n")
}

// R-VOL-11, I6.
#[test]
fn an_agent_killed_at_any_moment_leaves_nothing_mounted_on_docker() -> Result<()> {
    Node::builder().on(Backend::Docker).run(|node| {
        kill_it_in_the_middle(node)?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

// R-VOL-11, I6.
#[test]
fn an_agent_killed_at_any_moment_leaves_nothing_mounted() -> Result<()> {
    Node::builder().run(|node| {
        kill_it_in_the_middle(node)?;

        println!("what a start that was cut off has left is unmounted when the next agent comes");
        let record = node.container("pod")?.record;
        let sandbox = record.labels.get("stanchion.dev/sandbox").context("it has a sandbox")?.clone();
        node.agent.kill()?;
        for home in [format!("{sandbox}+{}", record.id), "gone+main-0".to_owned()] {
            let place = node.path("run/images").join(home).join("0");
            fs::create_dir_all(&place)?;
            rustix::mount::mount_bind(node.path("manifests"), &place)?;
        }
        node.agent.start()?;
        node.await_running("pod")?;
        node.until("the mounts to be gone", || {
            let left = proc::mounts_below(&node.path("run/images"))?;
            ensure!(left.is_empty(), "{left:?} is mounted");
            Ok(())
        })?;
        check(node, "1", "above\n")?;
        ensure!(node.manifest("pod.yaml").exists(), "something was deleted through a mount");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}
