//! Calls that the agent gives up midway: their results can be listed and removed.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    kit::{Kit, SERVER, ensure},
    transcript::Outcome,
};
use crate::{ContainerState, ErrorKind, Runtime, SandboxState};

/// Delays before the agent gives up; each finds the backend at a different point of its work.
const GIVEN_UP_AFTER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(80),
];

/// Checks that a sandbox whose creation was abandoned can be removed, and created again.
pub(super) async fn create_sandbox<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    for wait in GIVEN_UP_AFTER {
        // Both outcomes are fine, and the next `list` tells which it was.
        timeout(wait, kit.create_sandbox(kit.pod())).await.ok();
        let made = made_after_all(kit).await?;
        let state = kit.find_sandbox(&made).await?.state;
        ensure!(state == SandboxState::Ready, "made after one was abandoned, a sandbox is {state:?}");
        kit.runtime.remove_sandbox(made).await?;
        kit.nothing_left().await?;
    }
    Ok(())
}

/// Checks that a container whose creation, start or stop was abandoned is removed with its sandbox.
pub(super) async fn container<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    for wait in GIVEN_UP_AFTER {
        let sandbox = made_after_all(kit).await?;
        let create = async {
            let id = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await?;
            kit.runtime.start_container(id.clone()).await?;
            kit.runtime.stop_container(id, Duration::ZERO).await
        };
        timeout(wait, create).await.ok();
        let listed = kit.list().await?.containers;
        ensure!(listed.len() <= 1, "one container was abandoned, {} are listed", listed.len());
        let unknown = listed.iter().find(|container| container.state == ContainerState::Unknown);
        ensure!(unknown.is_none(), "abandoned, a container is {unknown:?}");
        remove_all(kit).await?;
    }
    Ok(())
}

/// Creates a sandbox after removing all leftovers. An abandoned call may still be under way for a while, hence the
/// retries.
async fn made_after_all<R: Runtime>(kit: &Kit<'_, R>) -> Outcome<crate::SandboxId> {
    loop {
        remove_all(kit).await?;
        match kit.create_sandbox(kit.pod()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => sleep(Duration::from_millis(20)).await,
            made => return Ok(made?.id),
        }
    }
}

async fn remove_all<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    for sandbox in kit.list().await?.sandboxes {
        kit.runtime.remove_sandbox(sandbox.id).await?;
    }
    Ok(())
}
