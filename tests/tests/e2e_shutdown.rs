//! Node shutdown. A fake `systemctl` stands for systemd's state.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    pods::{IDLE, shell},
    tools,
};

stanchion_tests::on_each_runtime! {
    pods_end_in_order_when_the_node_does,
    a_stop_of_the_agent_is_no_end_of_the_node,
}

/// Makes `systemctl is-system-running` print `state` from now on.
fn systemd_is(node: &Node, state: &str) -> Result<()> {
    let systemctl = node.path("bin/systemctl");
    fs::create_dir_all(systemctl.parent().context("it is in a directory")?)?;
    fs::write(
        &systemctl,
        format!("#!/bin/sh\n[ $1 = is-system-running ] || exec /usr/bin/systemctl \"$@\"\necho {state}\nexit 1\n"),
    )?;
    Ok(fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?)
}

/// Runs a test on a node whose agent finds the fake `systemctl` in its `PATH`.
fn on_node(on: Backend, test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    Node::builder().on(on).run(|node| {
        systemd_is(node, "running")?;
        node.agent.stop()?;
        let path = tools::search_path_from(&node.path("bin"))?.into_string().ok().context("a search path of UTF-8")?;
        let config = node.path("stanchion.toml");
        node.agent.configure(&config, vec![("PATH".to_owned(), path)]);
        node.agent.start()?;
        test(node)
    })
}

/// Returns a pod that creates a file on the node, one second after SIGTERM.
fn noting(name: &str, dir: &Path, critical: &str) -> String {
    let script = format!("trap 'sleep 1; : > /notes/{name}; exit 0' TERM; while :; do sleep 3600 & wait $!; done");
    let volume = format!(
        "    volumeMounts: [{{name: notes, mountPath: /notes}}]\n  volumes:\n  - name: notes\n    hostPath: {{path: {}}}\n",
        dir.display()
    );
    shell(name, &script, &format!("{volume}{critical}"))
}

// R-SHD-1.
fn pods_end_in_order_when_the_node_does(on: Backend) -> Result<()> {
    on_node(on, |node| {
        let notes = node.path("notes");
        fs::create_dir(&notes)?;
        node.write("usual.yaml", noting("usual", &notes, ""))?;
        node.write("critical.yaml", noting("critical", &notes, "  priorityClassName: system-node-critical\n"))?;
        node.await_running("usual")?;
        node.await_running("critical")?;
        systemd_is(node, "stopping")?;
        let status = node.agent.stop()?;
        ensure!(status.success(), "it ended with {status}");
        let ended = |name: &str| -> Result<_> {
            let note = fs::metadata(notes.join(name)).with_context(|| format!("{name} did not end by itself"))?;
            Ok(note.modified()?)
        };
        let between = ended("critical")?.duration_since(ended("usual")?);
        let is_later = between.is_ok_and(|between| between >= Duration::from_secs(1));
        ensure!(is_later, "the critical pod was told to end before the other had");
        let left = node.view().running()?;
        ensure!(left.is_empty(), "there still runs {left:?}");

        println!("the next boot");
        systemd_is(node, "running")?;
        node.agent.start()?;
        node.await_running("usual")?;
        node.await_running("critical")?;
        node.remove("usual.yaml")?;
        node.remove("critical.yaml")?;
        node.await_nothing_left()
    })
}

fn a_stop_of_the_agent_is_no_end_of_the_node(on: Backend) -> Result<()> {
    on_node(on, |node| {
        node.write("pod.yaml", shell("pod", IDLE, ""))?;
        let before = node.await_running("pod")?[0].identity();
        node.agent.stop()?;
        node.agent.start()?;
        let after = node.await_running("pod")?[0].identity();
        ensure!(before == after, "{before:?} became {after:?}");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}
