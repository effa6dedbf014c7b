//! Cases: sandboxes.

use super::{
    kit::{Kit, SERVER, ensure, refused},
    transcript::Outcome,
};
use crate::{ContainerState, ErrorKind, NetworkMode, PodName, Runtime, SandboxState, labels};

/// Checks that a new sandbox is ready, has an address, and is listed as answered (R-SYNC-10).
pub(super) async fn create<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let config = kit.pod();
    let info = kit.create_sandbox(config.clone()).await?;
    ensure!(info.state == SandboxState::Ready, "a new sandbox is {:?}", info.state);
    ensure!(!info.addresses.is_empty(), "a sandbox with a network of its own has no address");
    ensure!(info.labels == config.labels, "the labels came back as {:?}", info.labels);
    let listed = kit.find_sandbox(&info.id).await?;
    ensure!(listed == info, "created as {info:?}, listed as {listed:?}");
    Ok(())
}

/// Checks that creating an existing sandbox again is refused and leaves the first alone.
pub(super) async fn create_twice<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let first = kit.create_sandbox(kit.pod()).await?;
    let second = kit.create_sandbox(kit.pod()).await;
    refused(second, &[ErrorKind::AlreadyExists], "creating a sandbox of the same uid and attempt")?;
    let listed = kit.list().await?.sandboxes;
    ensure!(listed == [first], "after the second try these are listed: {listed:?}");
    Ok(())
}

/// Checks that a pod may have a second sandbox when the first is stopped.
pub(super) async fn next_attempt<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let first = kit.sandbox().await?;
    kit.runtime.stop_sandbox(first).await?;
    let mut next = kit.pod();
    next.attempt = 1;
    let info = kit.create_sandbox(next).await?;
    ensure!(info.attempt == 1, "attempt 1 came back as {}", info.attempt);
    let listed = kit.find_sandbox(&info.id).await?;
    ensure!(listed.attempt == 1 && listed.state == SandboxState::Ready, "listed as {listed:?}");
    Ok(())
}

/// Checks that two pods have different addresses.
pub(super) async fn addresses_differ<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let one = kit.create_sandbox(kit.pod()).await?;
    let mut other = kit.pod();
    other.uid.push('b');
    other.name.push('b');
    other.cgroup.push('b');
    let two = kit.create_sandbox(other).await?;
    let shared = one.addresses.iter().find(|address| two.addresses.contains(address));
    ensure!(shared.is_none(), "two sandboxes both have {shared:?}");
    Ok(())
}

/// Checks that `list_pod` gives all incarnations of a pod as `list` does, and nothing of another pod.
pub(super) async fn list_pod<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (first, container) = kit.running(SERVER).await?;
    kit.runtime.stop_sandbox(first).await?;
    let mut again = kit.pod();
    again.attempt = 1;
    let next = kit.create_sandbox(again).await?.id;
    let mut other = kit.pod();
    other.uid.push('b');
    other.name.push('b');
    other.cgroup.push('b');
    other.labels.insert(labels::POD_NAME.to_owned(), other.name.clone());
    kit.create_sandbox(other).await?;
    let pod = PodName { namespace: kit.pod().namespace, name: kit.pod().name };
    let mut listed = kit.runtime.list_pod(pod.clone()).await?;
    let mut all = kit.runtime.list().await?.of_pod(&pod);
    for inventory in [&mut listed, &mut all] {
        inventory.sandboxes.sort_by(|one, other| one.id.cmp(&other.id));
        inventory.containers.sort_by(|one, other| one.id.cmp(&other.id));
    }
    ensure!(listed == all, "the pod is listed as {listed:?}, and in the whole list as {all:?}");
    ensure!(listed.sandboxes.iter().any(|it| it.id == next) && listed.sandboxes.len() == 2, "{:?}", listed.sandboxes);
    ensure!(listed.containers.iter().any(|it| it.id == container), "its container is missing: {:?}", listed.containers);
    Ok(())
}

/// Checks that a pod on the node's network has no address of its own, and that its containers run (R-SEC-13).
pub(super) async fn host_network<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let mut config = kit.pod();
    config.network = NetworkMode::Host;
    config.hostname = String::new();
    let info = kit.create_sandbox(config).await?;
    ensure!(info.addresses.is_empty(), "on the node's network a sandbox has {:?}", info.addresses);
    let id = kit.started(kit.container(&info.id, "exit 3")).await?;
    let code = kit.exit_of(&id).await?;
    ensure!(code == Some(3), "`exit 3` ended with {code:?}");
    Ok(())
}

/// Checks that stopping kills the containers, keeps the records, and may be repeated.
pub(super) async fn stop<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, id) = kit.running(SERVER).await?;
    kit.runtime.stop_sandbox(sandbox.clone()).await?;
    let state = kit.find_sandbox(&sandbox).await?.state;
    ensure!(matches!(state, SandboxState::NotReady { .. }), "a stopped sandbox is {state:?}");
    let state = kit.find(&id).await?.state;
    ensure!(matches!(state, ContainerState::Exited { .. }), "in a stopped sandbox a container is {state:?}");
    kit.runtime.stop_sandbox(sandbox).await?;
    Ok(())
}

/// Checks that stopping and removing an absent sandbox succeed.
pub(super) async fn stop_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    kit.runtime.remove_sandbox(sandbox.clone()).await?;
    kit.runtime.stop_sandbox(sandbox.clone()).await?;
    kit.runtime.remove_sandbox(sandbox).await?;
    Ok(())
}

/// Checks that removing a sandbox removes its containers in every state.
pub(super) async fn remove<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, _) = kit.running(SERVER).await?;
    let mut exited = kit.container(&sandbox, "exit 0");
    exited.name = "exited".to_owned();
    let exited = kit.started(exited).await?;
    kit.exit_of(&exited).await?;
    let mut created = kit.container(&sandbox, "exit 0");
    created.name = "created".to_owned();
    kit.runtime.create_container(created).await?;
    kit.runtime.remove_sandbox(sandbox).await?;
    kit.nothing_left().await
}

/// Checks that removing a sandbox leaves another pod alone.
pub(super) async fn remove_leaves_others<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let mut other = kit.pod();
    other.uid.push('b');
    other.name.push('b');
    other.cgroup.push('b');
    let other = kit.create_sandbox(other).await?.id;
    kit.runtime.remove_sandbox(other).await?;
    let state = kit.find(&id).await?.state;
    ensure!(matches!(state, ContainerState::Running { .. }), "another pod's container is {state:?}");
    Ok(())
}

/// Checks that a removed sandbox can be created again under the same identity.
pub(super) async fn identity_is_free_after_remove<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (first, _) = kit.running(SERVER).await?;
    kit.runtime.remove_sandbox(first).await?;
    let (_, id) = kit.running("exit 4").await?;
    let code = kit.exit_of(&id).await?;
    ensure!(code == Some(4), "`exit 4` ended with {code:?}");
    Ok(())
}
