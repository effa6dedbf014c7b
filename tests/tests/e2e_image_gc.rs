//! Image garbage collection: the agent removes unused images that it pulled itself, and no others.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::{fs::statvfs, process::Signal};
use serde_json::Value;
use stanchion_tests::{
    Backend, Node,
    node::NodeBuilder,
    pods::{self, IDLE},
    view::View,
    wait::pause,
};

stanchion_tests::on_each_runtime! {
    a_disk_that_fills_is_relieved_of_what_has_been_unused_for_longest,
    what_others_brought_or_use_stays,
    neither_a_killed_agent_nor_a_runtime_that_goes_loses_anything,
    a_user_has_what_is_unused_removed,
}

const REDIS: &str = "docker.io/library/redis:7";
const BUSYBOX: &str = "docker.io/library/busybox:1";
const OTHERS: &str = "docker.io/preloaded/busybox:oci";
/// Thresholds with which every unused image is removed at once.
const ALWAYS: &str =
    "gc_high_threshold_percent = 1\ngc_low_threshold_percent = 0\nminimum_gc_age = \"0s\"\ngc_period = \"1s\"\n";
const NEVER: &str = "gc_high_threshold_percent = 100\n";

fn of(name: &str, image: &str) -> String {
    pods::shell(name, IDLE, "    imagePullPolicy: IfNotPresent\n").replace("image: busybox", &format!("image: {image}"))
}

fn node(on: Backend, images: &str) -> NodeBuilder {
    Node::builder().on(on).images(images)
}

/// Starts pods (name, image) one after the other.
fn run(node: &Node, pods: &[(&str, &str)]) -> Result<()> {
    for (name, image) in pods {
        node.write(&format!("{name}.yaml"), of(name, image))?;
        node.await_running(name)?;
    }
    Ok(())
}

fn end(node: &Node, pods: &[&str]) -> Result<()> {
    pods.iter().try_for_each(|name| node.remove(&format!("{name}.yaml")))?;
    pods.iter().try_for_each(|name| node.await_gone(name))
}

fn is_here(node: &Node, image: &str) -> Result<bool> {
    Ok(node.view().images()?.iter().any(|name| name == image))
}

fn await_removed(node: &Node, image: &str) -> Result<()> {
    node.until(&format!("{image} to be removed"), || {
        ensure!(!is_here(node, image)?, "it is still there");
        Ok(())
    })
}

/// Checks that the images are still there after several rounds of garbage collection.
fn ensure_kept(node: &Node, images: &[&str]) -> Result<()> {
    pause(Duration::from_secs(4));
    for image in images {
        ensure!(is_here(node, image)?, "{image} was removed; there is {:?}", node.view().images()?);
    }
    Ok(())
}

/// Returns how much of the runtime's disk is used: per cent, and bytes.
fn used(node: &Node) -> Result<(u64, u64)> {
    let found = statvfs(node.path(node.runtime().name()))?;
    Ok((100 - found.f_bavail * 100 / found.f_blocks, (found.f_blocks - found.f_bavail) * found.f_frsize))
}

// R-IMG-11
fn a_disk_that_fills_is_relieved_of_what_has_been_unused_for_longest(on: Backend) -> Result<()> {
    node(on, NEVER).disk("100m").run(|node| {
        run(node, &[("redis", REDIS), ("busybox", BUSYBOX)])?;
        end(node, &["redis", "busybox"])?;
        let (percent, full) = used(node)?;
        node.agent.stop()?;

        println!("{percent} % are used, which is too much");
        let config = node.path("stanchion.toml");
        let (high, low) = (percent - 1, percent - 2);
        let wanted = format!(
            "gc_high_threshold_percent = {high}\ngc_low_threshold_percent = {low}\nminimum_gc_age = \"0s\"\ngc_period = \"1s\"\n"
        );
        fs::write(&config, fs::read_to_string(&config)?.replace(NEVER, &wanted))?;
        node.agent.start()?;
        await_removed(node, REDIS)?;
        node.await_said(&["get", "events"], &["ImageRemoved", REDIS, "% of the file system"])?;
        ensure_kept(node, &[BUSYBOX])?;
        let (_, left) = used(node)?;
        ensure!(left + (1 << 20) < full, "of {full} bytes {left} are still used");

        println!("it is had again when it is wanted");
        run(node, &[("redis", REDIS)])
    })
}

/// Creates a container that does not belong to the agent, and returns its ID.
fn others_container(node: &Node, image: &str) -> Result<String> {
    match node.view() {
        View::Containerd(ctr) => {
            ctr.run(&["containers", "create", image, "others", "sh"])?;
            Ok("others".to_owned())
        }
        View::Docker(engine) => engine.run("others", image, &["true"], &Value::Null),
    }
}

// R-IMG-11
fn what_others_brought_or_use_stays(on: Backend) -> Result<()> {
    let mut node = node(on, ALWAYS).without_agent()?;
    let archive = node.fixtures.as_ref().context("the node has fixtures")?.oci_archive();
    match node.view() {
        View::Containerd(ctr) => drop(ctr.run(&["images", "import", &archive.to_string_lossy()])?),
        View::Docker(engine) => {
            // Docker loads OCI archives only with the containerd image store.
            engine.load(&node.fixtures.as_ref().context("the node has fixtures")?.docker_archive())?;
            engine.post("/images/preloaded/busybox:docker/tag?repo=preloaded/busybox&tag=oci", &Value::Null)?;
        }
    }
    node.agent.start()?;
    run(&node, &[("redis", REDIS), ("busybox", BUSYBOX), ("others", OTHERS)])?;
    let container = others_container(&node, BUSYBOX)?;
    end(&node, &["redis", "busybox", "others"])?;
    await_removed(&node, REDIS)?;
    ensure_kept(&node, &[BUSYBOX, OTHERS])?;
    node.await_said(&["get", "events"], &["FreeDiskSpaceFailed", "something else"])?;

    println!("nobody's any more");
    match node.view() {
        View::Containerd(ctr) => drop(ctr.run(&["containers", "rm", &container])?),
        View::Docker(engine) => engine.remove(&container)?,
    }
    await_removed(&node, BUSYBOX)?;
    ensure_kept(&node, &[OTHERS])
}

// R-IMG-11
fn neither_a_killed_agent_nor_a_runtime_that_goes_loses_anything(on: Backend) -> Result<()> {
    node(on, ALWAYS).run(|node| {
        run(node, &[("redis", REDIS), ("busybox", BUSYBOX)])?;
        let before = node.container("busybox")?.identity();
        for round in 0..3 {
            node.remove("redis.yaml")?;
            pause(Duration::from_millis(900 + 350 * round));
            node.agent.kill()?;
            node.agent.start()?;
            await_removed(node, REDIS)?;
            run(node, &[("redis", REDIS)])?;
        }
        ensure!(node.container("busybox")?.identity() == before, "another pod was touched");
        end(node, &["redis"])?;
        println!("the runtime goes");
        node.end_runtime(Signal::TERM)?;
        pause(Duration::from_secs(3));
        node.resume_runtime()?;
        await_removed(node, REDIS)?;
        run(node, &[("redis", REDIS)])?;
        node.await_running("busybox").map(drop)
    })
}

// R-IMG-11
fn a_user_has_what_is_unused_removed(on: Backend) -> Result<()> {
    // On its own disk, no other process changes the free space.
    node(on, NEVER).disk("300m").run(|node| {
        run(node, &[("redis", REDIS), ("busybox", BUSYBOX)])?;
        end(node, &["redis"])?;
        let would = node.agent.text(&["images", "prune", "--dry-run"])?;
        ensure!(would.contains(REDIS) && would.contains("would be removed") && !would.contains(BUSYBOX), "{would}");
        ensure!(is_here(node, REDIS)?, "it was only asked");
        let pruned = node.agent.json(&["images", "prune"])?;
        let first = &pruned["items"][0];
        ensure!(first["backend"] == on.name() && first["freed"].as_u64() > Some(1 << 20), "{pruned}");
        ensure!(first["images"][0]["names"].to_string().contains(REDIS), "{pruned}");
        ensure!(!is_here(node, REDIS)? && is_here(node, BUSYBOX)?, "there is {:?}", node.view().images()?);
        let nothing = node.agent.text(&["images", "prune"])?;
        ensure!(nothing.contains("No unused images"), "{nothing}");
        node.end_runtime(Signal::KILL)?;
        node.until("that the runtime is away to be said", || {
            let said = node.agent.cli(&["images", "prune"])?;
            ensure!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains(on.name()), "{said:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        node.resume_runtime()
    })
}

// R-IMG-11
#[test]
fn k3s_has_what_is_unused_removed() -> Result<()> {
    a_user_has_what_is_unused_removed(Backend::K3s)
}
