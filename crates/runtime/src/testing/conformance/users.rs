//! Cases: pods with a user namespace.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{
    environment,
    kit::{Kit, SERVER, ensure},
    sharing,
    transcript::{Outcome, Stop},
};
use crate::{IdRange, Mount, Runtime, SandboxConfig};

/// Range of IDs that nothing else on the node uses.
const RANGE: IdRange = IdRange { first: 0x7000_0000, length: 0x1_0000 };

/// Returns a pod with a user namespace, if the backend supports it.
async fn pod<R: Runtime>(kit: &Kit<'_, R>) -> Outcome<SandboxConfig> {
    match kit.runtime.version().await?.capabilities.user_namespaces {
        true => Ok(SandboxConfig { user_namespace: Some(RANGE), ..kit.pod() }),
        false => Err(Stop::Unsupported),
    }
}

/// Checks that a container's IDs are mapped to the range, that its root is root inside, and that an exec has the same
/// mapping (R-SEC-14).
pub(super) async fn own<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.create_sandbox(pod(kit).await?).await?.id;
    let id = kit.started(kit.container(&sandbox, SERVER)).await?;
    let expected = ["0".to_owned(), RANGE.first.to_string(), RANGE.length.to_string()];
    for path in ["/proc/1/uid_map", "/proc/self/uid_map", "/proc/self/gid_map"] {
        let output = kit.exec(&id, &["cat", path]).await?;
        ensure!(output.stdout.split_whitespace().eq(expected.iter()), "{path} is {output:?}");
    }
    let output = kit.exec(&id, &["cat", "/proc/self/status"]).await?;
    ensure!(output.stdout.contains("Uid:\t0\t0\t0\t0\n"), "it is not root: {output:?}");
    Ok(())
}

/// Checks that root in the container owns the root-owned files of image and mounts, and that files it writes to a mount
/// belong to root on the node (R-SEC-14).
pub(super) async fn files<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let dir = kit.options.dir.join(format!("{}-mount", kit.uid));
    tokio::fs::create_dir(&dir).await?;
    let secret = dir.join("secret");
    tokio::fs::write(&secret, "node\n").await?;
    tokio::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).await?;
    let sandbox = kit.create_sandbox(pod(kit).await?).await?.id;
    let mut config = kit.container(&sandbox, SERVER);
    config.mounts = vec![Mount::new(&dir, "/dir"), Mount::new(&secret, "/one/secret")];
    let id = kit.started(config).await?;
    for path in ["/dir/secret", "/one/secret"] {
        let output = kit.exec(&id, &["cat", path]).await?;
        ensure!(output.stdout == "node\n", "`cat {path}` says {output:?}");
    }
    for path in ["/dir/written", "/written", "/bin/written"] {
        let output = kit.exec(&id, &["sh", "-c", &format!("echo container > {path}")]).await?;
        ensure!(output.code == 0, "writing {path} says {output:?}");
    }
    let written = tokio::fs::metadata(dir.join("written")).await?;
    ensure!(written.uid() == 0 && written.gid() == 0, "on the node it belongs to {}:{}", written.uid(), written.gid());
    kit.runtime.remove_sandbox(sandbox).await?;
    Ok(tokio::fs::remove_dir_all(&dir).await?)
}

/// Checks that images are mounted as in any other pod (R-VOL-11).
pub(super) async fn image_mount<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    environment::image_mount_of(kit, pod(kit).await?).await
}

/// Checks that sysctls are set as in any other pod (R-SEC-12).
pub(super) async fn sysctls<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    sharing::sysctls_of(kit, pod(kit).await?).await
}

/// Checks that containers can share a PID namespace as in any other pod (R-SEC-13).
pub(super) async fn processes_of_pod<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    sharing::processes_of(kit, pod(kit).await?).await
}
