//! Cases: creating and removing containers.

use super::{
    kit::{Kit, SERVER, ensure, refused},
    transcript::Outcome,
};
use crate::{ContainerState, ErrorKind, Runtime, SandboxState};

/// Checks that a new container is listed with its configuration, and does not run (R-SYNC-10).
pub(super) async fn create<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.attempt = 5;
    let id = kit.runtime.create_container(config.clone()).await?;
    let info = kit.find(&id).await?;
    ensure!(info.state == ContainerState::Created, "a new container is {:?}", info.state);
    ensure!(info.sandbox == sandbox, "it is listed in sandbox {}", info.sandbox);
    ensure!((&info.name, info.attempt) == (&config.name, 5), "it is listed as {} attempt {}", info.name, info.attempt);
    ensure!(info.image == config.image, "it is listed with image {}", info.image);
    ensure!(info.labels == config.labels, "its labels came back as {:?}", info.labels);
    Ok(())
}

/// Checks that creating an existing container again is refused and leaves the first alone.
pub(super) async fn create_twice<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, id) = kit.running(SERVER).await?;
    let again = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await;
    refused(again, &[ErrorKind::AlreadyExists], "creating a container of the same name and attempt")?;
    let listed = kit.list().await?.containers;
    ensure!(listed.len() == 1, "after the second try {} containers are listed", listed.len());
    let state = kit.find(&id).await?.state;
    ensure!(matches!(state, ContainerState::Running { .. }), "after the second try the first is {state:?}");
    Ok(())
}

/// Checks that an exited container keeps its identity and its exit code.
pub(super) async fn create_twice_after_exit<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, id) = kit.running("exit 6").await?;
    kit.exit_of(&id).await?;
    let again = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await;
    refused(again, &[ErrorKind::AlreadyExists], "creating a container of the same name and attempt")?;
    let code = kit.exit_of(&id).await?;
    ensure!(code == Some(6), "after the second try the first has exit code {code:?}");
    Ok(())
}

/// Checks that a container needs a present image.
pub(super) async fn create_without_image<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.image = "registry.invalid/no-such-image:none".to_owned();
    let answer = kit.runtime.create_container(config).await;
    refused(answer, &[ErrorKind::NotFound], "creating a container whose image is absent")?;
    let left = kit.list().await?.containers;
    ensure!(left.is_empty(), "the container that could not be created is listed: {left:?}");
    Ok(())
}

/// Checks that a container needs an existing sandbox.
pub(super) async fn create_in_absent_sandbox<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    kit.runtime.remove_sandbox(sandbox.clone()).await?;
    let answer = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await;
    refused(answer, &[ErrorKind::NotFound], "creating a container in a sandbox that is gone")?;
    kit.nothing_left().await
}

/// Checks that a container needs a running sandbox.
pub(super) async fn create_in_stopped_sandbox<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    kit.runtime.stop_sandbox(sandbox.clone()).await?;
    let answer = kit.runtime.create_container(kit.container(&sandbox, SERVER)).await;
    refused(answer, &[ErrorKind::Conflict], "creating a container in a stopped sandbox")
}

/// Checks that a restart is a new container beside the old one's record (R-SYNC-13).
pub(super) async fn next_attempt<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, first) = kit.running("exit 1").await?;
    kit.exit_of(&first).await?;
    let mut next = kit.container(&sandbox, SERVER);
    next.attempt = 1;
    next.log_path = kit.log_path(1);
    let second = kit.started(next).await?;
    ensure!(first != second, "two attempts have the same id {first}");
    let (old, new) = (kit.find(&first).await?, kit.find(&second).await?);
    ensure!(matches!(old.state, ContainerState::Exited { code: Some(1), .. }), "the old one is {:?}", old.state);
    ensure!(matches!(new.state, ContainerState::Running { .. }), "the new one is {:?}", new.state);
    ensure!((old.attempt, new.attempt) == (0, 1), "attempts are {} and {}", old.attempt, new.attempt);
    Ok(())
}

/// Checks that containers can be removed in every state, and that the sandbox stays ready.
pub(super) async fn remove<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, running) = kit.running(SERVER).await?;
    let mut exited = kit.container(&sandbox, "exit 0");
    exited.name = "exited".to_owned();
    let exited = kit.started(exited).await?;
    kit.exit_of(&exited).await?;
    let mut created = kit.container(&sandbox, "exit 0");
    created.name = "created".to_owned();
    let created = kit.runtime.create_container(created).await?;
    for id in [running, exited, created] {
        kit.runtime.remove_container(id.clone()).await?;
        let listed = kit.list().await?.containers;
        ensure!(listed.iter().all(|container| container.id != id), "{id} is listed after its removal");
    }
    let state = kit.find_sandbox(&sandbox).await?.state;
    ensure!(state == SandboxState::Ready, "without its containers the sandbox is {state:?}");
    Ok(())
}

/// Checks that removing an absent container succeeds.
pub(super) async fn remove_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, id) = kit.running("exit 0").await?;
    kit.runtime.remove_container(id.clone()).await?;
    kit.runtime.remove_container(id.clone()).await?;
    kit.runtime.remove_sandbox(sandbox).await?;
    kit.runtime.remove_container(id).await?;
    Ok(())
}
