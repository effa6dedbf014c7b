//! Cases: namespaces that a pod's containers share with each other, and with the node.

use super::{
    kit::{Kit, SERVER, ensure},
    transcript::{Outcome, Stop},
};
use crate::{ContainerId, IpcMode, PidMode, Runtime, SandboxConfig, Sysctl};

/// Creates a pod with two containers.
async fn two<R: Runtime>(kit: &Kit<'_, R>, pod: SandboxConfig) -> Outcome<[ContainerId; 2]> {
    let sandbox = kit.create_sandbox(pod).await?.id;
    let first = kit.started(kit.container(&sandbox, SERVER)).await?;
    let mut second = kit.container(&sandbox, SERVER);
    second.name = "second".to_owned();
    Ok([first, kit.started(second).await?])
}

/// Returns the link target of a container's namespace, which holds its number.
async fn namespace<R: Runtime>(kit: &Kit<'_, R>, id: &ContainerId, kind: &str) -> Outcome<String> {
    let output = kit.exec(id, &["readlink", &format!("/proc/self/ns/{kind}")]).await?;
    let namespace = output.stdout.trim().to_owned();
    ensure!(!namespace.is_empty(), "`readlink /proc/self/ns/{kind}` says {output:?}");
    Ok(namespace)
}

/// Returns the link target of the node's namespace. Suite and runtime are on the same node.
fn of_node(kind: &str) -> Outcome<String> {
    Ok(std::fs::read_link(format!("/proc/self/ns/{kind}"))?.to_string_lossy().into_owned())
}

/// Checks that containers have separate PID namespaces (R-SEC-13).
pub(super) async fn processes_apart<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let [first, second] = two(kit, kit.pod()).await?;
    let (first, second) = (namespace(kit, &first, "pid").await?, namespace(kit, &second, "pid").await?);
    ensure!(first != second, "two containers share {first}");
    Ok(())
}

/// Checks that the containers of a pod share a PID namespace if the pod asks for it, and that one's end leaves the
/// other alone (R-SEC-13).
pub(super) async fn processes_of_pod<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    processes_of(kit, kit.pod()).await
}

/// Does the same in a given pod.
pub(super) async fn processes_of<R: Runtime>(kit: &Kit<'_, R>, pod: SandboxConfig) -> Outcome {
    if !kit.runtime.version().await?.capabilities.shared_pid_namespace {
        return Err(Stop::Unsupported);
    }
    let ids = two(kit, SandboxConfig { pid: PidMode::Pod, ..pod }).await?;
    let (first, second) = (namespace(kit, &ids[0], "pid").await?, namespace(kit, &ids[1], "pid").await?);
    ensure!(first == second, "one container has {first} and the other {second}");
    ensure!(first != of_node("pid")?, "it is the node's");
    // The end of one leaves the other alone.
    kit.runtime.stop_container(ids[0].clone(), std::time::Duration::ZERO).await?;
    ensure!(namespace(kit, &ids[1], "pid").await? == first, "with the other's end it has another namespace");
    Ok(())
}

/// Checks that a pod can use the node's PID namespace, and that stopping one container leaves the other alone
/// (R-SEC-13).
pub(super) async fn processes_of_node<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let [first, second] = two(kit, SandboxConfig { pid: PidMode::Host, ..kit.pod() }).await?;
    let found = namespace(kit, &first, "pid").await?;
    ensure!(found == of_node("pid")?, "it is {found}");
    kit.runtime.stop_container(first, std::time::Duration::ZERO).await?;
    namespace(kit, &second, "pid").await?;
    Ok(())
}

/// Checks that all containers of a pod share an IPC namespace, which is not the node's (R-SEC-13, R-MNT-8).
pub(super) async fn ipc_of_pod<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let [first, second] = two(kit, kit.pod()).await?;
    let (first, second) = (namespace(kit, &first, "ipc").await?, namespace(kit, &second, "ipc").await?);
    ensure!(first == second, "one container has {first} and the other {second}");
    ensure!(first != of_node("ipc")?, "it is the node's");
    Ok(())
}

/// Checks that a pod can use the node's IPC namespace (R-SEC-13).
pub(super) async fn ipc_of_node<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let [first, _] = two(kit, SandboxConfig { ipc: IpcMode::Host, ..kit.pod() }).await?;
    let found = namespace(kit, &first, "ipc").await?;
    ensure!(found == of_node("ipc")?, "it is {found}");
    Ok(())
}

/// Checks that sysctls of the pod's network and IPC namespaces are set (R-SEC-12).
pub(super) async fn sysctls<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    sysctls_of(kit, kit.pod()).await
}

/// Does the same in a given pod.
pub(super) async fn sysctls_of<R: Runtime>(kit: &Kit<'_, R>, pod: SandboxConfig) -> Outcome {
    let wanted = [
        ("net.ipv4.ip_local_port_range", "20000 30000", "20000\t30000\n"),
        ("net/ipv4/tcp_syncookies", "0", "0\n"),
        ("kernel.shm_rmid_forced", "1", "1\n"),
    ];
    let sysctls = wanted.map(|(name, value, _)| Sysctl { name: name.to_owned(), value: value.to_owned() });
    let [first, second] = two(kit, SandboxConfig { sysctls: sysctls.to_vec(), ..pod }).await?;
    for id in [first, second] {
        for (sysctl, (name, _, expected)) in sysctls.iter().zip(&wanted) {
            let path = sysctl.path().ok_or_else(|| Stop::Failed(format!("{name} is no path")))?;
            let output = kit.exec(&id, &["cat", &format!("/proc/sys/{path}")]).await?;
            ensure!(output.stdout == *expected, "{name} is {output:?}");
        }
    }
    Ok(())
}
