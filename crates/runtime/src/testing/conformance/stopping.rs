//! Cases: stopping containers.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    kit::{Kit, SERVER, STUBBORN, ensure},
    transcript::Outcome,
};
use crate::{ContainerState, Runtime};

/// Grace period that no machine uses up by being slow.
const LONG: Duration = Duration::from_secs(30);

/// Checks that the stop signal comes first, and that stopping waits no longer than the container needs (R-TERM-1).
pub(super) async fn signal<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.serving(SERVER).await?;
    let start = Instant::now();
    kit.runtime.stop_container(id.clone(), LONG).await?;
    let took = start.elapsed();
    let state = kit.find(&id).await?.state;
    let heeded = matches!(state, ContainerState::Exited { code: Some(7), .. });
    ensure!(heeded, "it exits with 7 on SIGTERM, but after its stop it is {state:?}");
    ensure!(took < LONG / 2, "it exits at once on SIGTERM, but its stop took {took:?}");
    Ok(())
}

/// Checks that a container that ignores the signal is killed when the grace period ends, not before (R-TERM-1).
pub(super) async fn grace<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let grace = Duration::from_millis(1500);
    let (_, id) = kit.serving(STUBBORN).await?;
    let start = Instant::now();
    kit.runtime.stop_container(id.clone(), grace).await?;
    let took = start.elapsed();
    let state = kit.find(&id).await?.state;
    let killed = matches!(state, ContainerState::Exited { code: Some(137), .. });
    ensure!(killed, "it ignores SIGTERM, and after its stop it is {state:?}");
    ensure!(took >= grace, "it was killed after {took:?} of a grace of {grace:?}");
    ensure!(took < grace + LONG / 2, "with a grace of {grace:?} its stop took {took:?}");
    Ok(())
}

/// Checks that a zero grace period kills without a stop signal.
pub(super) async fn at_once<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.serving(SERVER).await?;
    kit.runtime.stop_container(id.clone(), Duration::ZERO).await?;
    let state = kit.find(&id).await?.state;
    let killed = matches!(state, ContainerState::Exited { code: Some(137), .. });
    ensure!(killed, "stopped without grace it is {state:?}");
    Ok(())
}

/// Checks that stopping a created container succeeds.
pub(super) async fn created<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let id = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await?;
    kit.runtime.stop_container(id.clone(), LONG).await?;
    let state = kit.find(&id).await?.state;
    ensure!(!matches!(state, ContainerState::Running { .. }), "stopped before its start it is {state:?}");
    Ok(())
}

/// Checks that stopping an exited container succeeds and changes nothing.
pub(super) async fn exited<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 3").await?;
    kit.exit_of(&id).await?;
    let before = kit.find(&id).await?;
    for grace in [LONG, Duration::ZERO] {
        kit.runtime.stop_container(id.clone(), grace).await?;
    }
    let after = kit.find(&id).await?;
    ensure!(before == after, "stopped again it went from {before:?} to {after:?}");
    Ok(())
}

/// Checks that stopping an absent container succeeds.
pub(super) async fn absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 0").await?;
    kit.runtime.remove_container(id.clone()).await?;
    kit.runtime.stop_container(id.clone(), LONG).await?;
    kit.runtime.stop_container(id, Duration::ZERO).await?;
    Ok(())
}
