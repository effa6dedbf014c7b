//! Images that cannot be pulled, and images imported from archives.

use std::{fs, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    pods::{self, IDLE},
    wait::pause,
};

stanchion_tests::on_each_runtime! {
    an_image_that_does_not_exist_is_named_and_tried_again,
    an_update_to_an_image_that_cannot_be_had_leaves_the_old_pod_running,
    a_registry_that_comes_back_is_used_again,
    a_full_disk_is_named_and_leaves_nothing_half_made,
    archives_dropped_into_the_preload_directory_are_imported_while_running,
    archives_that_are_there_at_the_start_are_imported,
    a_file_that_is_no_archive_is_named,
}

fn of_image(name: &str, image: &str, policy: &str) -> String {
    let pod = pods::shell(name, IDLE, &format!("    imagePullPolicy: {policy}\n"));
    pod.replace("image: busybox", &format!("image: {image}"))
}

// R-IMG-4, R-BCK-3.
fn an_image_that_does_not_exist_is_named_and_tried_again(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("good.yaml", pods::idle("good", "1"))?;
        node.await_running("good")?;
        let before = node.container("good")?.identity();
        node.write("bad.yaml", of_image("bad", &node.in_registry("redis:nosuchtag")?, "Always"))?;
        node.await_said(&["get", "pods"], &["ImagePullBackOff"])?;
        node.await_said(&["describe", "pod", "bad-node-1"], &["redis:nosuchtag", "not found"])?;
        node.await_nothing_half_made()?;
        ensure!(node.container("good")?.identity() == before, "another pod was touched");
        println!("the manifest is mended: the back-off does not hold it up");
        node.write("bad.yaml", pods::idle("bad", "1"))?;
        node.await_running("bad").map(drop)
    })
}

// R-WRK-8.
fn an_update_to_an_image_that_cannot_be_had_leaves_the_old_pod_running(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", of_image("pod", "redis:7", "IfNotPresent"))?;
        node.await_running("pod")?;
        let before = node.container("pod")?.identity();
        node.write("pod.yaml", of_image("pod", &node.in_registry("redis:nosuchtag")?, "IfNotPresent"))?;
        node.await_said(&["describe", "pod", "pod-node-1"], &["redis:nosuchtag"])?;
        ensure!(node.container("pod")?.identity() == before, "the old pod was touched");

        println!("an agent that comes meanwhile knows what runs: its crash is mended");
        node.agent.kill()?;
        node.agent.start()?;
        node.await_said(&["describe", "pod", "pod-node-1"], &["redis:nosuchtag"])?;
        ensure!(node.container("pod")?.identity() == before, "the old pod was touched by the new agent");
        node.container("pod")?.kill()?;
        node.until("the old image to run again", || {
            let now = node.container("pod")?;
            ensure!(now.identity() != before, "still {before:?}");
            ensure!(now.record.image == "docker.io/library/redis:7", "{} runs", now.record.image);
            Ok(())
        })?;
        node.write("pod.yaml", of_image("pod", "redis:8", "IfNotPresent"))?;
        node.until("the third image to run", || {
            let image = node.container("pod")?.record.image;
            ensure!(image == "docker.io/library/redis:8", "{image} runs");
            Ok(())
        })
    })
}

// R-IMG-4.
fn a_registry_that_comes_back_is_used_again(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let registry = node.registry.as_mut().context("the node has a registry")?;
        let address = registry.address().to_owned();
        registry.stop()?;
        // By address, not through the mirror: when a mirror fails, Docker asks the real registry.
        let image = format!("{address}/library/busybox");
        node.write("pod.yaml", of_image("pod", &image, "IfNotPresent"))?;
        node.await_said(&["describe", "pod", "pod-node-1"], &[&image, "onnection refused"])?;
        let storage = node.fixtures.as_ref().context("the node has fixtures")?.registry();
        let dir = node.names().dir.clone();
        node.registry = Some(stanchion_tests::registry::Registry::start_on(&dir, &storage, &address)?);
        node.await_running("pod").map(drop)
    })
}

fn a_full_disk_is_named_and_leaves_nothing_half_made(on: Backend) -> Result<()> {
    Node::builder().on(on).disk("14m").run(|node| {
        node.write("small.yaml", pods::idle("small", "1"))?;
        node.await_running("small")?;
        let before = node.container("small")?.identity();
        node.write("large.yaml", of_image("large", &node.in_registry("redis")?, "IfNotPresent"))?;
        node.await_said(&["describe", "pod", "large-node-1"], &["redis", "no space left on device"])?;
        node.await_nothing_half_made()?;
        ensure!(node.container("small")?.identity() == before, "another pod was touched");
        println!("there is room again");
        node.resize_disk("300m")?;
        node.await_running("large").map(drop)
    })
}

// R-IMG-2, R-IMG-13.
fn archives_dropped_into_the_preload_directory_are_imported_while_running(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let fixtures = node.fixtures.clone().context("the node has fixtures")?;
        node.write("docker.yaml", of_image("docker", "preloaded/busybox:docker", "Never"))?;
        node.write("oci.yaml", of_image("oci", "preloaded/busybox:oci", "IfNotPresent"))?;
        node.await_said(&["get", "pods"], &["ErrImageNeverPull"])?;

        println!("one is copied slowly, in place; the other is renamed in");
        let archive = fs::read(fixtures.docker_archive())?;
        let mut slow = fs::File::create(node.path("preload/docker.tar"))?;
        for piece in archive.chunks(archive.len() / 8 + 1) {
            slow.write_all(piece)?;
            slow.flush()?;
            pause(Duration::from_millis(300));
        }
        drop(slow);
        fs::copy(fixtures.oci_archive(), node.path("oci.tar"))?;
        fs::rename(node.path("oci.tar"), node.path("preload/oci.tar"))?;
        for pod in ["docker", "oci"] {
            node.await_running(pod)?;
        }
        let images = node.view().images()?;
        for image in ["docker.io/preloaded/busybox:docker", "docker.io/preloaded/busybox:oci"] {
            ensure!(images.iter().any(|name| name == image), "{image} is not among {images:?}");
        }
        node.await_nothing_half_made()
    })
}

// R-IMG-13.
fn archives_that_are_there_at_the_start_are_imported(on: Backend) -> Result<()> {
    let mut node = Node::builder().on(on).without_agent()?;
    let fixtures = node.fixtures.clone().context("the node has fixtures")?;
    fs::copy(fixtures.oci_archive(), node.path("preload/oci.tar"))?;
    node.write("pod.yaml", of_image("pod", "preloaded/busybox:oci", "Never"))?;
    node.agent.start()?;
    node.await_running("pod").map(drop)
}

fn a_file_that_is_no_archive_is_named(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let path = node.path("preload/notes.tar");
        fs::write(&path, "not an archive")?;
        node.await_said(&["get", "events"], &[&path.to_string_lossy()])?;
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod").map(drop)
    })
}
