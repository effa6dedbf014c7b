//! Bad manifests on the real agent: it reports each file with its problem and touches nothing else.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use stanchion_tests::{
    Node,
    pods::{self, shell},
};

/// Patience per command: long enough to read a file, short enough that a run with many failures ends.
const SOON: Duration = Duration::from_secs(10);

/// Returns file name, content, and the words that the message must contain besides the path.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let text = |text: &str| text.as_bytes().to_vec();
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec:\n{spec}").into_bytes();
    let one = "  containers:\n  - name: main\n    image: busybox\n";
    let with = |more: &str| pod(&format!("{one}{more}"));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let long = "n".repeat(254);
    vec![
        ("not-utf8.yaml", b"apiVersion: v1\nkind: Pod\nmetadata: {name: \xff\xfe}\n".to_vec(), &["UTF-8", "line 3"]),
        ("not-yaml.yaml", text("apiVersion: v1\nkind: [Pod\n"), &["line"]),
        ("bomb.yaml", text(&bomb), &["alias"]),
        ("large.yaml", vec![b'#'; 11 << 20], &["10 MiB"]),
        ("duplicate.yaml", with("    image: redis\n"), &["line 9", "image", "duplicate"]),
        (
            "unknown.yaml",
            with("    imagePulPolicy: Never\n"),
            &["line 9", "imagePulPolicy", "did you mean \"imagePullPolicy\""],
        ),
        ("type.yaml", with("    ports: 80\n"), &["line 9", "spec.containers[0].ports"]),
        ("empty.yaml", text(""), &["empty"]),
        (
            "deployment.yaml",
            text("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: bad\n"),
            &["Deployment", "Pod"],
        ),
        ("long.yaml", text(&shell(&long, "true", "")), &["metadata.name", "253"]),
        (
            "label.yaml",
            text(&shell("bad", "true", "").replace("spec:", "  labels: {tier: not good}\nspec:")),
            &["metadata.labels", "not good"],
        ),
        ("twins.yaml", with("  - name: main\n    image: redis\n"), &["spec.containers[1].name", "main"]),
        (
            "volume.yaml",
            with("    volumeMounts:\n    - {name: data, mountPath: /data}\n"),
            &["volumeMounts[0].name", "data"],
        ),
        (
            "later.yaml",
            with("  volumes:\n  - name: data\n    nfs: {server: 192.0.2.1, path: /export}\n"),
            &["spec.volumes[0].nfs", "not supported yet"],
        ),
    ]
}

// R-FILE-11, R-FILE-12, R-FILE-14, R-DEC-3, R-DEC-4, R-GAP-6.
#[test]
fn every_bad_manifest_is_named_and_touches_nothing_else() -> Result<()> {
    Node::builder().run(|node| {
        node.write("good.yaml", pods::idle("good", "1"))?;
        node.await_running("good")?;
        let before = (node.container("good")?.identity(), node.agent.id());
        let mut complaints = Vec::new();
        for (file, content, words) in cases() {
            let path = node.manifest(file).display().to_string();
            node.write(file, content)?;
            let words = [&[path.as_str()], words].concat();
            for command in [&["get", "pods"][..], &["validate", &path]] {
                if let Err(error) = node.await_said_within(SOON, command, &words) {
                    complaints.push(format!("{file}: {error:#}"));
                }
            }
            let validation = node.agent.cli(&["validate", &path])?;
            if validation.status.success() {
                complaints.push(format!("{file}: validate accepts it"));
            }
        }
        ensure!(complaints.is_empty(), "\n{}", complaints.join("\n"));
        ensure!(node.pod_names()? == ["good-node-1"], "a bad manifest became a pod: {:?}", node.pod_names()?);
        let after = (node.container("good")?.identity(), node.agent.id());
        ensure!(after == before, "{before:?} became {after:?}");

        println!("a bad file that is mended becomes a pod; one that is removed is forgotten");
        node.write("type.yaml", pods::idle("mended", "1"))?;
        node.await_running("mended")?;
        for (file, ..) in cases() {
            node.remove(file)?;
        }
        node.await_gone("mended")?;
        node.until("the bad files to be forgotten", || {
            let said = node.said(&["get", "pods"])?;
            ensure!(!said.contains(".yaml"), "{said}");
            Ok(())
        })
    })
}

// R-MRG-2.
#[test]
fn two_files_that_name_one_pod_are_a_visible_conflict() -> Result<()> {
    Node::builder().run(|node| {
        node.write("first.yaml", pods::idle("same", "first"))?;
        node.await_running("same")?;
        let before = node.container("same")?.identity();
        node.write("second.yaml", pods::idle("same", "second"))?;
        let paths = ["first.yaml", "second.yaml"].map(|file| node.manifest(file).display().to_string());
        node.await_said(&["get", "pods"], &[&paths[0], &paths[1]])?;
        let now = node.container("same")?.identity();
        ensure!(now == before, "the pod was touched: {now:?}");

        println!("the winner goes: the other takes over");
        node.remove("first.yaml")?;
        node.until("the second file's pod to run", || {
            let environment = stanchion_tests::proc::environment(node.container("same")?.pid)?;
            ensure!(environment.contains(&"REVISION=second".to_owned()), "{environment:?}");
            Ok(())
        })
    })
}

// R-FILE-3, R-FILE-4.
#[test]
fn leftovers_of_editors_and_hidden_files_are_no_manifests() -> Result<()> {
    Node::builder().run(|node| {
        for file in [".hidden.yaml", "pod.yaml~", "pod.yaml.swp", ".#pod.yaml"] {
            fs::write(node.manifest(file), pods::idle("ghost", "1"))?;
        }
        node.write("real.yaml", pods::idle("real", "1"))?;
        node.await_running("real")?;
        ensure!(node.pod_names()? == ["real-node-1"], "pods: {:?}", node.pod_names()?);
        Ok(())
    })
}

// R-INOT-5.
#[test]
fn a_manifest_written_in_pieces_starts_one_pod() -> Result<()> {
    Node::builder().run(|node| {
        let text = pods::idle("slow", "1");
        let path = node.manifest("slow.yaml");
        for end in (0..text.len()).step_by(20).chain([text.len()]) {
            fs::write(&path, &text[..end])?;
            stanchion_tests::wait::pause(Duration::from_millis(10));
        }
        node.await_running("slow")?;
        ensure!(
            node.ctr().containers()?.iter().filter(|id| id.contains("main")).count() <= 1,
            "more than one container"
        );
        ensure!(node.pod("slow")?.restarts() == 0, "it was restarted");
        Ok(())
    })
}
