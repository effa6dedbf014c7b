//! Cases: the environment of a container's process.

use super::{
    kit::{Kit, SERVER, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{EnvVar, ErrorKind, ImageMount, Mount, Runtime, SandboxConfig};

/// Checks that the arguments follow the command (R-ENV-3).
pub(super) async fn command_and_args<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, "");
    config.command = Some(vec!["sh".to_owned()]);
    config.args = Some(vec!["-c".to_owned(), "exit 12".to_owned()]);
    let id = kit.started(config).await?;
    let code = kit.exit_of(&id).await?;
    ensure!(code == Some(12), "command `sh` with arguments `-c`, `exit 12` ended with {code:?}");
    Ok(())
}

/// Checks that environment variables arrive unchanged.
pub(super) async fn variables<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, "echo \"$WORDS\" > /words; sleep 1000");
    config.env = vec![EnvVar { name: "WORDS".to_owned(), value: "a  b=c 'ä' $HOME".to_owned() }];
    let id = kit.started(config).await?;
    let output = loop {
        let output = kit.exec(&id, &["cat", "/words"]).await?;
        if !output.stdout.is_empty() {
            break output;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    ensure!(output.stdout == "a  b=c 'ä' $HOME\n", "the variable came as {:?}", output.stdout);
    Ok(())
}

/// Checks that the working directory replaces the image's.
pub(super) async fn working_dir<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.working_dir = Some("/proc".to_owned());
    let id = kit.started(config).await?;
    let output = kit.exec(&id, &["pwd"]).await?;
    ensure!(output.stdout == "/proc\n", "in /proc, `pwd` says {output:?}");
    Ok(())
}

/// Checks that the host name is the pod's (R-HOST-1).
pub(super) async fn hostname<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let output = kit.exec(&id, &["hostname"]).await?;
    ensure!(output.stdout == "conformance-host\n", "`hostname` says {output:?}");
    Ok(())
}

/// Checks that the standard streams are a terminal if `tty` is set, and only then (R-MNT-9).
pub(super) async fn terminal<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    for (name, tty, expected) in [("plain", false, 6), ("terminal", true, 5)] {
        let mut config = kit.container(&sandbox, "test -t 1 && exit 5; exit 6");
        config.name = name.to_owned();
        config.tty = tty;
        let id = kit.started(config).await?;
        let code = kit.exit_of(&id).await?;
        ensure!(code == Some(expected), "with tty {tty}, `test -t 1` ended with {code:?}");
    }
    Ok(())
}

/// Checks that standard input is at its end, unless `stdin` keeps it open (R-MNT-9).
pub(super) async fn input<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, "cat; exit 5");
    config.name = "open".to_owned();
    config.stdin = true;
    let open = kit.started(config).await?;
    let closed = kit.started(kit.container(&sandbox, "cat; exit 5")).await?;
    let code = kit.exit_of(&closed).await?;
    ensure!(code == Some(5), "without input, `cat` ended with {code:?}");
    let state = kit.find(&open).await?.state;
    ensure!(matches!(state, crate::ContainerState::Running { .. }), "with its input open, `cat` is {state:?}");
    Ok(())
}

/// Checks that a container can read and write mounted directories and files of the node.
pub(super) async fn mounts<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let dir = kit.options.dir.join(format!("{}-mount", kit.uid));
    tokio::fs::create_dir(&dir).await?;
    tokio::fs::write(dir.join("from-node"), "node\n").await?;
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.mounts = vec![mount(&dir, "/dir", false), mount(&dir.join("from-node"), "/one/file", true)];
    let id = kit.started(config).await?;
    for path in ["/dir/from-node", "/one/file"] {
        let output = kit.exec(&id, &["cat", path]).await?;
        ensure!(output.stdout == "node\n", "`cat {path}` says {output:?}");
    }
    let output = kit.exec(&id, &["sh", "-c", "echo container > /dir/from-container"]).await?;
    ensure!(output.code == 0, "writing to a mount says {output:?}");
    let written = tokio::fs::read_to_string(dir.join("from-container")).await?;
    ensure!(written == "container\n", "on the node the file says {written:?}");
    kit.runtime.remove_sandbox(sandbox).await?;
    let kept = tokio::fs::read_to_string(dir.join("from-node")).await?;
    ensure!(kept == "node\n", "after the container's removal the node's file says {kept:?}");
    Ok(tokio::fs::remove_dir_all(&dir).await?)
}

/// Checks that a container cannot write to a read-only mount (R-MNT-1).
pub(super) async fn read_only_mount<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let dir = kit.options.dir.join(format!("{}-mount", kit.uid));
    tokio::fs::create_dir(&dir).await?;
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.mounts = vec![mount(&dir, "/dir", true)];
    let id = kit.started(config).await?;
    let output = kit.exec(&id, &["sh", "-c", "echo container > /dir/file"]).await?;
    ensure!(output.code != 0, "writing to a read-only mount says {output:?}");
    ensure!(!dir.join("file").exists(), "a file was written through a read-only mount");
    kit.runtime.remove_sandbox(sandbox).await?;
    Ok(tokio::fs::remove_dir_all(&dir).await?)
}

/// Checks that a container can read an image mount, whole or in part, and can neither write to it nor execute its files
/// (R-VOL-11).
pub(super) async fn image_mount<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    image_mount_of(kit, kit.pod()).await
}

/// Does the same in a given pod.
pub(super) async fn image_mount_of<R: Runtime>(kit: &Kit<'_, R>, pod: SandboxConfig) -> Outcome {
    can_mount_images(kit).await?;
    let sandbox = kit.create_sandbox(pod).await?.id;
    let mut config = kit.container(&sandbox, SERVER);
    config.mounts =
        vec![image(kit, "", "/image"), image(kit, "bin", "/image-part/dir"), image(kit, "bin/sh", "/one/sh")];
    let id = kit.started(config).await?;
    for path in ["/image/bin/true", "/image-part/dir/true", "/one/sh"] {
        let output = kit.exec(&id, &["sh", "-c", &format!("cat {path} > /copy")]).await?;
        ensure!(output.code == 0, "reading {path} says {output:?}");
    }
    for path in ["/image/file", "/image-part/dir/file", "/one/sh"] {
        let output = kit.exec(&id, &["sh", "-c", &format!("echo container > {path}")]).await?;
        ensure!(output.code != 0, "writing to {path} says {output:?}");
    }
    for path in ["/image/bin/true", "/image-part/dir/true"] {
        let output = kit.exec(&id, &["sh", "-c", path]).await?;
        ensure!(output.code != 0, "running {path} says {output:?}");
    }
    Ok(())
}

/// Checks that neither a missing path of an image nor an absent image can be mounted (R-VOL-11).
pub(super) async fn image_mount_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    can_mount_images(kit).await?;
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.mounts = vec![image(kit, "bin/no-such-file", "/image")];
    let answer = kit.runtime.create_container(config.clone()).await;
    refused(answer, &[ErrorKind::Invalid], "mounting what the image does not have")?;
    let absent = ImageMount { reference: "registry.invalid/no-such-image:none".to_owned(), ..ImageMount::default() };
    config.mounts = vec![Mount::of_image(absent, "/image")];
    let answer = kit.runtime.create_container(config).await;
    refused(answer, &[ErrorKind::NotFound], "mounting an image that is absent")
}

async fn can_mount_images<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    match kit.runtime.version().await?.capabilities.image_mounts {
        true => Ok(()),
        false => Err(Stop::Unsupported),
    }
}

/// Returns a mount of the suite's own image.
fn image<R: Runtime>(kit: &Kit<'_, R>, sub_path: &str, destination: &str) -> Mount {
    Mount::of_image(ImageMount { reference: kit.options.image.clone(), sub_path: sub_path.into() }, destination)
}

/// Checks that a restarted container has the image's files, not its predecessor's.
pub(super) async fn fresh_files<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (sandbox, first) = kit.running(SERVER).await?;
    let output = kit.exec(&first, &["sh", "-c", "echo left > /left"]).await?;
    ensure!(output.code == 0, "writing to the container's own files says {output:?}");
    kit.runtime.stop_container(first, std::time::Duration::ZERO).await?;
    let mut next = kit.container(&sandbox, SERVER);
    next.attempt = 1;
    let second = kit.started(next).await?;
    let output = kit.exec(&second, &["cat", "/left"]).await?;
    ensure!(output.code != 0, "the next attempt sees the file of the first: {output:?}");
    Ok(())
}

fn mount(source: &std::path::Path, destination: &str, read_only: bool) -> Mount {
    let propagation = Default::default();
    Mount { read_only, propagation, ..Mount::new(source, destination) }
}
