//! Tests that containers of others do not exist for the backend, whatever it is asked for.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

mod support;

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::json;
use stanchion_runtime::{
    ContainerConfig, ContainerId, Descendants, ErrorKind, ExecId, ExecRequest, ExecStdio, Progress, PullImage, Runtime,
    SandboxConfig, SandboxId,
};
use support::{Bed, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_agents_pods_are_out_of_reach() -> Result<()> {
    let bed = Bed::new()?;
    let (ours, theirs) = (&bed.backend, bed.open(json!({ "namespace": "another" }))?);
    let request = PullImage { reference: bed.image.clone(), auth: None };
    ours.pull_image(request, Progress::ignored()).await.map_err(said)?;
    let sandbox = ours.create_sandbox(pod()).await.map_err(said)?.id;
    let config = ContainerConfig {
        sandbox: sandbox.clone(),
        name: "main".to_owned(),
        image: bed.image.clone(),
        command: Some(["sleep", "1000"].map(str::to_owned).to_vec()),
        ..ContainerConfig::default()
    };
    let container = ours.create_container(config.clone()).await.map_err(said)?;
    ours.start_container(container.clone()).await.map_err(said)?;
    let before = ours.list().await.map_err(said)?;

    ensure!(theirs.list().await.map_err(said)?.sandboxes.is_empty(), "another's sandbox is listed");
    ensure!(theirs.stats().await.map_err(said)?.containers.is_empty(), "what another's container uses is told");
    // These succeed, as for anything that is gone.
    theirs.stop_container(container.clone(), Duration::from_secs(5)).await.map_err(said)?;
    theirs.stop_container(container.clone(), Duration::ZERO).await.map_err(said)?;
    theirs.remove_container(container.clone()).await.map_err(said)?;
    theirs.stop_sandbox(sandbox.clone()).await.map_err(said)?;
    theirs.remove_sandbox(sandbox.clone()).await.map_err(said)?;
    // A container is no sandbox, nor the other way round: the backend knows which one it was asked for.
    theirs.remove_sandbox(SandboxId(container.0.clone())).await.map_err(said)?;
    theirs.remove_container(ContainerId(sandbox.0.clone())).await.map_err(said)?;
    let exec = ExecRequest {
        id: ExecId("exec".to_owned()),
        container: container.clone(),
        command: vec!["true".to_owned()],
        tty: false,
        size: None,
        descendants: Descendants::Stay,
    };
    for (what, kind) in [
        ("start", theirs.start_container(container.clone()).await.err()),
        ("exec", theirs.exec(exec, ExecStdio::default()).await.err()),
        ("logs", theirs.logs(container.clone(), std::fs::File::open("/dev/null")?.into()).await.err()),
        ("create", theirs.create_container(config).await.err()),
    ]
    .map(|(what, error)| (what, error.map(|error| error.kind())))
    {
        ensure!(kind == Some(ErrorKind::NotFound), "{what} on another's answers {kind:?}");
    }
    let after = ours.list().await.map_err(said)?;
    ensure!(before == after, "it went from {before:?} to {after:?}");
    ours.remove_sandbox(sandbox).await.map_err(said)?;
    bed.nothing_left()
}

/// Checks that nothing waits for the shim of a start during which dockerd was killed: such a shim waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_shim_of_a_start_that_dockerd_has_not_finished_is_in_nobodys_way() -> Result<()> {
    let bed = Bed::new()?;
    let request = PullImage { reference: bed.image.clone(), auth: None };
    bed.backend.pull_image(request, Progress::ignored()).await.map_err(said)?;
    let sandbox = bed.backend.create_sandbox(pod()).await.map_err(said)?.id;
    let config = |name: &str| ContainerConfig {
        sandbox: sandbox.clone(),
        name: name.to_owned(),
        image: bed.image.clone(),
        command: Some(["sleep", "1000"].map(str::to_owned).to_vec()),
        ..ContainerConfig::default()
    };
    let started = bed.backend.create_container(config("started")).await.map_err(said)?;
    let removed = bed.backend.create_container(config("removed")).await.map_err(said)?;
    let mut shims = [shim(&started)?, shim(&removed)?];
    // The next agent does not know whether anybody has tried to start them.
    let next = bed.open(json!({}))?;
    next.start_container(started).await.map_err(said)?;
    next.remove_container(removed).await.map_err(said)?;
    let left: Vec<_> = shims.iter_mut().map(|shim| Ok(shim.try_wait()?.is_none())).collect::<Result<_>>()?;
    for mut shim in shims {
        shim.kill()?;
        shim.wait()?;
    }
    ensure!(left == [false, false], "shims are left: {left:?}");
    next.remove_sandbox(sandbox).await.map_err(said)?;
    bed.nothing_left()
}

/// Starts a process that looks like a container's shim, until its input ends.
fn shim(container: &ContainerId) -> Result<Child> {
    let options = ["-namespace", "moby", "-id", container.as_str(), "-address", "/nowhere"];
    let mut command = Command::new("/bin/sh");
    command.arg0("containerd-shim-runc-v2").args(["-c", "read line", "sh"]).args(options).stdin(Stdio::piped());
    Ok(command.spawn()?)
}

fn pod() -> SandboxConfig {
    SandboxConfig {
        name: "pod-node".to_owned(),
        namespace: "default".to_owned(),
        uid: "uid".to_owned(),
        hostname: "pod".to_owned(),
        cgroup: "poduid".to_owned(),
        ..SandboxConfig::default()
    }
}
