//! ConfigMaps, Secrets, pod fields and volumes as containers see them, on a real runtime.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{Backend, Node, proc};

const VALUES: &str = include_str!("../manifests/values.yaml");
const KEYS: &str = include_str!("../manifests/keys.yaml");

/// Writes the Secret's manifest with mode 0600.
fn write_keys(node: &Node, content: &str) -> Result<()> {
    let draft = node.path("keys");
    fs::write(&draft, content)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(draft, node.manifest("keys.yaml")).context("the file can be put in place")
}

/// Reads a file in the container of pod `values`.
fn read(node: &Node, path: &str) -> Result<String> {
    let running = node.container("values")?;
    let path = format!("/proc/{}/root{path}", running.pid);
    fs::read_to_string(Path::new(&path)).with_context(|| format!("reading {path}"))
}

fn everything(node: &mut Node) -> Result<()> {
    println!("without its secret the pod waits, and says why");
    node.write("values.yaml", VALUES)?;
    node.await_said(&["describe", "pod", "values-node-1"], &["FailedMount", "secret \"keys\" not found"])?;
    write_keys(node, KEYS)?;
    let running = node.await_running("values")?;
    let environment = proc::environment(running[0].pid)?;
    for expected in
        ["SET_COLOR=blue", "POD=values-node-1", "LIMIT=64", "TOKEN=hunter2", "GREETING=values-node-1 is blue"]
    {
        ensure!(environment.iter().any(|pair| pair == expected), "{expected} is not in {environment:?}");
    }
    let address = node.pod("values")?.address()?;
    ensure!(environment.contains(&format!("IP={address}")), "{environment:?}");

    for (path, expected) in [
        ("/settings/COLOR", "blue"),
        ("/etc/app.conf", "level = info\n"),
        ("/keys/token", "hunter2"),
        ("/all/color", "blue"),
        ("/all/token", "hunter2"),
        ("/all/labels", "app=\"values\""),
        ("/etc/resolv.conf", "search svc.example\nnameserver 198.51.100.10\noptions ndots:3\n"),
        ("/etc/hostname", "web-0\n"),
    ] {
        let found = read(node, path)?;
        ensure!(found == expected, "{path} has {found:?}");
    }
    let hosts = read(node, "/etc/hosts")?;
    for line in [format!("{address}\tweb-0.web.default.svc.\tweb-0"), "10.1.2.3\tdb\tdb.internal".to_owned()] {
        ensure!(hosts.lines().any(|found| found == line), "{line:?} is not in {hosts:?}");
    }

    println!("a change is followed without a restart");
    node.write("values.yaml", VALUES.replace("COLOR: blue", "COLOR: red"))?;
    node.until("the new color", || {
        let found = read(node, "/settings/COLOR")?;
        ensure!(found == "red", "it has {found:?}");
        Ok(())
    })?;
    ensure!(node.container("values")?.pid == running[0].pid, "it was restarted");
    let said = node.said(&["get", "pods", "-o", "yaml"])?
        + &node.said(&["get", "events"])?
        + &node.said(&["describe", "pod", "values-node-1"])?;
    ensure!(!said.contains("hunter2"), "a secret is shown");

    println!("what a claim stands for outlives the pod, nothing else does");
    let data = format!("/proc/{}/root/data/kept", running[0].pid);
    fs::write(data, "kept")?;
    node.remove("values.yaml")?;
    node.remove("keys.yaml")?;
    node.await_nothing_left()?;
    write_keys(node, KEYS)?;
    node.write("values.yaml", VALUES)?;
    node.await_running("values")?;
    ensure!(read(node, "/data/kept")? == "kept", "the claim is empty");
    node.remove("values.yaml")?;
    node.await_nothing_left()
}

// R-GAP-14, R-ENV-4, R-ENV-5, R-VOL-8, R-HOST-2, R-HOST-5, R-HOST-6, R-HOST-8, R-DNS-7.
#[test]
fn objects_fields_and_volumes_are_what_they_say_on_containerd() -> Result<()> {
    Node::builder().on(Backend::Containerd).run(everything)
}

// R-GAP-14, R-ENV-4, R-ENV-5, R-VOL-8, R-HOST-2, R-HOST-5, R-HOST-6, R-HOST-8, R-DNS-7.
#[test]
fn objects_fields_and_volumes_are_what_they_say_on_docker() -> Result<()> {
    Node::builder().on(Backend::Docker).run(everything)
}

/// Checks that a `subPath` cannot leave its volume through a symbolic link, which a container could plant (R-MNT-4).
#[test]
fn a_part_of_a_volume_behind_a_link_to_etc_is_refused_by_name() -> Result<()> {
    Node::builder().run(|node| {
        let host = node.path("shared");
        fs::create_dir(&host)?;
        std::os::unix::fs::symlink("/etc", host.join("way-out"))?;
        let extra = format!(
            "    volumeMounts: [{{name: v, mountPath: /v, subPath: way-out}}]\n  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n",
            host.display()
        );
        node.write("pod.yaml", stanchion_tests::pods::shell("pod", stanchion_tests::pods::IDLE, &extra))?;
        node.write("other.yaml", stanchion_tests::pods::idle("other", "1"))?;
        node.await_said(
            &["describe", "pod", "pod-node-1"],
            &["failed to prepare subPath for volumeMount \"v\" of container \"main\"", "leads out of the volume"],
        )?;
        node.await_running("other")?;
        node.write("pod.yaml", stanchion_tests::pods::shell("pod", stanchion_tests::pods::IDLE, &extra.replace("way-out", "in")))?;
        node.await_running("pod").map(drop)
    })
}
