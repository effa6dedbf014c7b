//! Tests of the harness itself: it serves and runs images and leaves nothing behind.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    containerd::Containerd,
    fixtures::Fixtures,
    k3s::K3s,
    proc,
    process::Process,
    registry::Registry,
    remains,
    slot::{Kind, Slot},
    until,
};

#[test]
fn a_fixture_image_is_pulled_from_the_registry_and_runs() -> Result<()> {
    let slot = Slot::take(Kind::Test)?;
    let dir = &slot.names().dir;
    let registry = Registry::start(dir, &Fixtures::prepare()?.registry())?;
    let containerd = Containerd::start(&dir.join("containerd"))?;
    let ctr = containerd.ctr(&slot.names().namespace);
    let image = format!("{}/library/redis:7", registry.address());
    ctr.run(&["images", "pull", "--plain-http", &image])?;
    ctr.run(&["run", "--detach", &image, "one"])?;
    let answer = until("redis to answer", Duration::from_secs(10), || {
        ctr.run(&["tasks", "exec", "--exec-id", "ping", "one", "redis-cli", "ping"])
    })?;
    ensure!(answer.trim() == "PONG", "redis answered {answer:?}");
    ctr.run(&["tasks", "kill", "--signal", "SIGTERM", "one"])?;
    until("redis to end", Duration::from_secs(10), || ctr.run(&["tasks", "delete", "one"]))?;
    Ok(())
}

#[test]
fn archives_are_what_containerd_imports() -> Result<()> {
    let slot = Slot::take(Kind::Test)?;
    let containerd = Containerd::start(&slot.names().dir.join("containerd"))?;
    let ctr = containerd.ctr(&slot.names().namespace);
    let fixtures = Fixtures::prepare()?;
    for archive in [fixtures.docker_archive(), fixtures.oci_archive()] {
        ctr.run(&["images", "import", &archive.to_string_lossy()])?;
    }
    let mut images = ctr.images()?;
    images.sort();
    ensure!(images == ["docker.io/preloaded/busybox:docker", "docker.io/preloaded/busybox:oci"], "{images:?}");
    Ok(())
}

#[test]
fn a_slot_given_back_leaves_no_process_and_no_file() -> Result<()> {
    let slot = Slot::take(Kind::Test)?;
    let names = slot.names().clone();
    let marker = names.dir.join("marker");
    fs::write(&marker, "")?;
    let mut command = Command::new("tail");
    let mut tail = Process::start("tail", command.arg("-f").arg(&marker), &names.dir.join("log"))?;
    // The command line of K3s does not name the slot's directory.
    let mut k3s = K3s::build(&names.dir.join("k3s"))?;
    k3s.start_process()?;
    let agent = k3s.id().context("K3s runs")?;
    // The kernel shows the command line a moment after the program has started.
    until("the processes to be found", Duration::from_secs(5), || {
        let found = remains::processes(&names)?;
        ensure!([tail.id(), agent].iter().all(|pid| found.iter().any(|seen| seen.pid == *pid)), "found are {found:?}");
        Ok(())
    })?;
    drop(slot);
    tail.wait(Duration::ZERO)?;
    ensure!(!proc::alive(agent), "K3s is still there");
    ensure!(!names.dir.exists(), "{} is still there", names.dir.display());
    Ok(())
}
