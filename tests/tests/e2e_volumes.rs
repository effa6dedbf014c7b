//! Volumes on real runtimes: nested mounts, volumes that images declare, access from the node. Also stop signals of
//! images.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node, fixtures,
    image::{Image, PackedLayer, Run},
    layer::Layer,
    pods::{IDLE, shell},
};

stanchion_tests::on_each_runtime! {
    volumes_are_mounted_below_those_that_the_agent_writes,
    a_volume_that_an_image_declares_can_be_written_and_goes_with_its_container,
    a_container_is_stopped_by_the_signal_that_its_image_names,
}

fn run(node: &Node, script: &str) -> Result<String> {
    node.said(&["exec", "pod-node-1", "--", "sh", "-c", script])
}

/// Returns the subdirectories that users other than root can access, with their modes.
fn reachable(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let about = entry.metadata()?;
        // `k3s` is an exception: users of pods with `hostUsers: false` pass through it to their files.
        if about.is_dir() && about.permissions().mode() & 0o077 != 0 && entry.file_name() != "k3s" {
            found.push(format!("{} {:o}", entry.path().display(), about.permissions().mode()));
        }
    }
    Ok(found)
}

/// Writes a manifest with mode 0600, which Secrets require.
fn write_secret(node: &Node, text: &str) -> Result<()> {
    let draft = node.path("draft.yaml");
    fs::write(&draft, text).context("a draft")?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).context("a draft for root")?;
    fs::rename(draft, node.manifest("objects.yaml")).context("the manifest can be put in place")
}

// R-VOL-8.
fn volumes_are_mounted_below_those_that_the_agent_writes(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let objects = |value: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{key: '{value}'}}\n---\n\
                 apiVersion: v1\nkind: Secret\nmetadata: {{name: secret}}\nstringData: {{key: '{value}', file: mine}}\n---\n"
            )
        };
        let extra = "    volumeMounts:\n\
             \x20   - {name: settings, mountPath: /etc/settings}\n\
             \x20   - {name: secret, mountPath: /etc/settings/secret}\n\
             \x20   - {name: scratch, mountPath: /etc/settings/secret/deep/scratch}\n\
             \x20   - {name: secret, mountPath: /etc/settings/dir/one, subPath: file}\n\
             \x20   - {name: labels, mountPath: /labels}\n\
             \x20   - {name: scratch, mountPath: /labels/scratch}\n\
             \x20   - {name: all, mountPath: /all}\n\
             \x20   - {name: scratch, mountPath: /all/scratch}\n\
             \x20 volumes:\n\
             \x20 - {name: settings, configMap: {name: settings, items: [{key: key, path: dir/key}]}}\n\
             \x20 - {name: secret, secret: {secretName: secret}}\n\
             \x20 - {name: scratch, emptyDir: {}}\n\
             \x20 - {name: labels, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}\n\
             \x20 - {name: all, projected: {sources: [{configMap: {name: settings}}]}}\n";
        let pod = shell("pod", IDLE, extra);
        write_secret(node, &objects("before"))?;
        node.write("pod.yaml", &pod)?;
        let before = node.await_running("pod")?[0].identity();
        let check = |value: &str| {
            let script = "cat /etc/settings/dir/key /etc/settings/secret/key /all/key; cat /etc/settings/dir/one; cat /labels/name";
            let said = run(node, script)?;
            let expected = format!("{value}{value}{value}minepod-node-1");
            ensure!(said == expected, "the files are {said:?}, expected {expected:?}");
            let said = run(node, "cat /all/scratch/x /labels/scratch/x /etc/settings/secret/deep/scratch/x")?;
            ensure!(said == "x\nx\nx\n", "the volume that can be written has {said:?}");
            Ok(())
        };
        run(node, "echo x > /etc/settings/secret/deep/scratch/x")?;
        check("before")?;
        println!("the files change, and what is mounted among them stays");
        write_secret(node, &objects("after"))?;
        node.until("the new files", || check("after"))?;
        ensure!(node.container("pod")?.identity() == before, "it was restarted");
        println!("nobody but root reaches a pod's files and its shared memory by their paths on the node");
        for directory in ["run", "state"] {
            let found = reachable(&node.path(directory))?;
            ensure!(found.is_empty(), "others can reach {found:?}");
        }
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

/// Puts an image with a shell into the preload directory.
fn publish(node: &Node, name: &str, run: &Run<'_>) -> Result<()> {
    let mut layer = Layer::default();
    fixtures::shell(&mut layer)?;
    layer.owned_dir("/data", 0o750, 1000)?;
    layer.owned_file("/data/seed", 0o640, 1000, b"seed\n")?;
    let image = Image::new(&format!("test/{name}"), "1", run, &[PackedLayer::new(layer.finish()?)?]);
    let draft = node.path(&format!("{name}.tar"));
    image.docker_archive(&draft, &format!("docker.io/test/{name}:1"))?;
    fs::rename(draft, node.path(&format!("preload/{name}.tar"))).context("the archive can be put in place")
}

fn a_volume_that_an_image_declares_can_be_written_and_goes_with_its_container(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        publish(node, "declares", &Run { volumes: &["/data", "/new/deep", "/replaced"], ..Run::default() })?;
        let extra = "    securityContext: {readOnlyRootFilesystem: true}\n    volumeMounts: [{name: v, mountPath: /replaced}]\n  \
                     volumes: [{name: v, emptyDir: {}}]\n";
        let manifest = shell("pod", IDLE, extra).replace("image: busybox", "image: test/declares:1");
        node.write("pod.yaml", &manifest)?;
        let before = node.await_running("pod")?[0].identity();
        let said = run(node, "echo x > /new/deep/x && echo x > /data/x && cat /data/seed /data/x; touch /root-is-read-only")?;
        ensure!(said.starts_with("seed\nx\n") && said.contains("Read-only file system"), "{said:?}");
        let said = run(node, "stat -c '%a %u %g %n' /data /data/seed")?;
        ensure!(said == "750 1000 1000 /data\n640 1000 1000 /data/seed\n", "owner and mode are {said:?}");
        println!("another life begins with what the image has");
        node.container("pod")?.kill()?;
        node.until("another container", || {
            let now = node.container("pod")?;
            ensure!(now.identity() != before, "still {before:?}");
            Ok(())
        })?;
        node.await_running("pod")?;
        let said = run(node, "ls /data /new/deep")?;
        ensure!(said == "/data:\nseed\n\n/new/deep:\n", "it has {said:?}");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

fn a_container_is_stopped_by_the_signal_that_its_image_names(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        for (name, signal, trapped) in [
            ("realtime", "SIGRTMIN+3", "37"),
            ("lower", "quit", "QUIT"),
            ("highest", "RTMAX-1", "63"),
            ("number", "12", "USR2"),
            ("unknown", "SIGNOTHING", "TERM"),
        ] {
            publish(node, name, &Run { stop_signal: signal, ..Run::default() })?;
            let script = format!("trap 'echo told > /state/{name}; exit 0' {trapped}; while :; do sleep 0.1; done");
            let extra = format!(
                "    volumeMounts: [{{name: v, mountPath: /state}}]\n  volumes: [{{name: v, hostPath: {{path: {:?}, type: \
                 DirectoryOrCreate}}}}]\n",
                node.path("told")
            );
            let pod = shell(name, &script, &extra).replace("image: busybox", &format!("image: test/{name}:1"));
            node.write("pod.yaml", pod)?;
            node.await_running(name)?;
            if trapped == "TERM" {
                node.await_said(&["get", "events"], &["UnknownStopSignal", "SIGNOTHING"])?;
            }
            node.remove("pod.yaml")?;
            node.await_gone(name)?;
            ensure!(node.path("told").join(name).exists(), "{signal} did not reach it");
        }
        node.await_nothing_left()
    })
}
