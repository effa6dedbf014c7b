//! Cases: starting containers, and their exit.

use super::{
    kit::{Kit, SERVER, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{ContainerState, ErrorKind, LinuxResources, Runtime, testing::GROW};

/// Checks that a started container runs.
pub(super) async fn start<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let info = kit.find(&id).await?;
    let ContainerState::Running { started_at } = info.state else {
        return Err(Stop::Failed(format!("a started server is {:?}", info.state)));
    };
    if let Some(started_at) = started_at {
        ensure!(started_at >= info.created_at, "started at {started_at}, created at {}", info.created_at);
    }
    ensure!(info.image_digest.is_some(), "a running container has no image digest");
    Ok(())
}

/// Checks that starting a running container again, whatever the answer, changes nothing.
pub(super) async fn start_running<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let before = kit.find(&id).await?;
    if let Err(error) = kit.runtime.start_container(id.clone()).await {
        refused::<()>(Err(error), &[ErrorKind::Conflict], "starting a running container")?;
    }
    let after = kit.find(&id).await?;
    ensure!(before == after, "started again it went from {before:?} to {after:?}");
    Ok(())
}

/// Checks that a container starts only once.
pub(super) async fn start_exited<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 5").await?;
    kit.exit_of(&id).await?;
    let again = kit.runtime.start_container(id.clone()).await;
    refused(again, &[ErrorKind::Conflict], "starting an exited container")?;
    let code = kit.exit_of(&id).await?;
    ensure!(code == Some(5), "after the second start its exit code is {code:?}");
    Ok(())
}

/// Checks that an absent container cannot be started.
pub(super) async fn start_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let id = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await?;
    kit.runtime.remove_container(id.clone()).await?;
    refused(kit.runtime.start_container(id).await, &[ErrorKind::NotFound], "starting a container that is gone")
}

/// Checks that a missing program gives an error at creation or start, no running container, and no container that
/// cannot be removed (R-TERM-8).
pub(super) async fn start_impossible<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    // The same pod can run a program that exists.
    let (sandbox, works) = kit.running("exit 0").await?;
    // After this exit, a running container can only be the impossible one.
    kit.exit_of(&works).await?;
    let mut config = kit.container(&sandbox, "");
    config.name = "impossible".to_owned();
    config.command = Some(vec!["/nonexistent/program".to_owned()]);
    let answer = async {
        let id = kit.runtime.create_container(config).await?;
        kit.runtime.start_container(id).await
    };
    let kinds = [ErrorKind::Invalid, ErrorKind::NotFound, ErrorKind::Other];
    refused(answer.await, &kinds, "starting a missing program")?;
    for container in kit.list().await?.containers {
        let state = container.state;
        ensure!(!matches!(state, ContainerState::Running { .. }), "a program that does not exist is {state:?}");
        kit.runtime.remove_container(container.id).await?;
    }
    let left = kit.list().await?.containers;
    ensure!(left.is_empty(), "after its removal it is listed: {left:?}");
    Ok(())
}

/// Checks that exit codes and times are stored and stay the same (R-CS-8).
pub(super) async fn exit_code<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    for (attempt, code) in [(0, 0), (1, 7), (2, 255)] {
        let mut config = kit.container(&sandbox, &format!("exit {code}"));
        config.attempt = attempt;
        let id = kit.started(config).await?;
        kit.exit_of(&id).await?;
        let first = kit.find(&id).await?.state;
        let ContainerState::Exited { code: found, started_at, finished_at, oom_killed } = first else {
            return Err(Stop::Failed(format!("an exited container is {first:?}")));
        };
        ensure!(found == Some(code), "`exit {code}` ended with {found:?}");
        ensure!(!oom_killed, "`exit {code}` counts as killed for lack of memory");
        ensure!(finished_at.is_some(), "`exit {code}` has no time of its end");
        ensure!(started_at <= finished_at, "started at {started_at:?}, finished at {finished_at:?}");
        let second = kit.find(&id).await?.state;
        ensure!(first == second, "listed as {first:?}, then as {second:?}");
    }
    Ok(())
}

/// Checks that the memory limit holds, and that the OOM kill is reported (R-TERM-8, R-RES-14).
pub(super) async fn out_of_memory<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, GROW);
    config.resources = LinuxResources { memory_limit: Some(32 << 20), ..Default::default() };
    let id = kit.started(config).await?;
    let code = kit.exit_of(&id).await?;
    ensure!(code != Some(9), "64 MiB were had under a limit of 32 MiB");
    ensure!(code == Some(137), "killed for lack of memory it ended with {code:?}");
    let state = kit.find(&id).await?.state;
    let is_reported = matches!(state, ContainerState::Exited { oom_killed: true, .. });
    ensure!(is_reported, "killed for lack of memory it is listed as {state:?}");
    Ok(())
}

/// Checks that running containers have a stats entry, and exited ones have none.
pub(super) async fn stats<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, running) = kit.running(SERVER).await?;
    let mut exited = kit.container(&sandbox, "exit 0");
    exited.name = "exited".to_owned();
    let exited = kit.started(exited).await?;
    kit.exit_of(&exited).await?;
    let stats = kit.runtime.stats().await?.containers;
    let of: Vec<_> = stats.iter().filter(|stats| stats.id == running).collect();
    ensure!(of.len() == 1, "the running container has {} entries", of.len());
    ensure!(of[0].pids > 0, "the running container has no processes: {:?}", of[0]);
    ensure!(of[0].memory_usage > 0, "the running container uses no memory: {:?}", of[0]);
    ensure!(stats.iter().all(|stats| stats.id != exited), "an exited container has an entry");
    Ok(())
}

/// Checks that the disk usage of a container's root file system is reported until the container is removed (R-EVI-1).
pub(super) async fn disk_usage<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    const WRITTEN: u64 = 64 << 10;
    let sandbox = kit.sandbox().await?;
    let id = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await?;
    let of_created = kit.runtime.disk_usage(id.clone()).await?.writable_layer;
    ensure!(of_created < WRITTEN, "before its start a container has written {of_created} bytes");
    kit.runtime.start_container(id.clone()).await?;
    let before = kit.runtime.disk_usage(id.clone()).await?.writable_layer;
    let text = "x".repeat(usize::try_from(WRITTEN).unwrap_or_default());
    let output = kit.exec(&id, &["sh", "-c", &format!("echo {text} > /written")]).await?;
    ensure!(output.code == 0, "writing to the root file system: {}", output.stderr);
    let grown = kit.runtime.disk_usage(id.clone()).await?.writable_layer.saturating_sub(before);
    ensure!((WRITTEN..4 * WRITTEN).contains(&grown), "after writing {WRITTEN} bytes it has {grown} more");
    kit.runtime.remove_container(id.clone()).await?;
    refused(kit.runtime.disk_usage(id).await, &[ErrorKind::NotFound], "the disk usage of a container that is gone")
}
