//! Pods with `hostUsers: false` on real runtimes.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    pods::{self, IDLE, on_node},
    proc,
    wait::pause,
};

/// Length of a pod's UID range, and first UID of the first pod's range.
const LENGTH: u32 = 65_536;

/// Runs a script in a container and returns its output.
fn run(node: &Node, pod: &str, container: &str, script: &str) -> Result<String> {
    node.said(&["exec", &on_node(pod), "-c", container, "--", "sh", "-c", script])
}

fn expect(node: &Node, container: &str, script: &str, expected: &str) -> Result<()> {
    let said = run(node, "users", container, script)?;
    ensure!(said == expected, "`{script}` in {container} says {said:?} and not {expected:?}");
    Ok(())
}

/// Returns the effective UID on the node of each container's first process.
fn users_on_node(node: &Node, pod: &str) -> Result<BTreeSet<(String, u32)>> {
    let running = node.view().of_pod(&on_node(pod))?;
    let user = |it: &stanchion_tests::ctr::Running| {
        let status = fs::read_to_string(format!("/proc/{}/status", it.pid))?;
        let line = status.lines().find(|line| line.starts_with("Uid:")).context("it has a user")?;
        Ok((it.record.container().to_owned(), line.split_whitespace().nth(2).context("effective")?.parse()?))
    };
    running.iter().map(user).collect()
}

/// Runs `tests/manifests/users.yaml` beside a pod with the node's users and a minimal pod with `hostUsers: false`
/// (R-SEC-14).
#[test]
fn root_in_the_pod_is_nobody_on_the_node_and_has_all_of_its_files() -> Result<()> {
    Node::builder().run(|node| {
        let on_host = node.path("shared");
        fs::create_dir(&on_host)?;
        fs::write(on_host.join("root-only"), "of root\n")?;
        fs::set_permissions(on_host.join("root-only"), PermissionsExt::from_mode(0o600))?;
        let manifest = include_str!("../manifests/users.yaml");
        let place = on_host.to_str().context("a plain path")?;
        node.write("users.yaml", manifest.replace("/tmp/stanchion-users", place))?;
        node.await_running("users")?;
        node.write("other.yaml", pods::shell("other", IDLE, "  hostUsers: false\n"))?;
        node.write("plain.yaml", pods::idle("plain", "1"))?;
        node.await_running("other")?;
        node.await_running("plain")?;

        println!("each pod has users of its own");
        let of = |container: &str, user: u32| (container.to_owned(), user);
        let expected = BTreeSet::from([of("root", LENGTH), of("user", LENGTH + 1000)]);
        ensure!(users_on_node(node, "users")? == expected, "{:?}", users_on_node(node, "users")?);
        ensure!(users_on_node(node, "other")? == BTreeSet::from([of("main", 2 * LENGTH)]));
        ensure!(users_on_node(node, "plain")? == BTreeSet::from([of("main", 0)]));
        expect(node, "root", "id -u", "0\n")?;
        expect(node, "user", "id -u", "1000\n")?;
        expect(node, "root", "tr -s ' ' < /proc/self/uid_map", " 0 65536 65536\n")?;

        println!("files belong to whom they belong on the node");
        expect(node, "root", "cat /scratch/first /config/greeting /part /labels/name", "0\nhellohellousers-node-1")?;
        expect(
            node,
            "root",
            "stat -c %u:%g /bin /etc/hosts /config/greeting /scratch /node",
            &["0:0\n", "0:0\n", "0:3000\n", "0:3000\n", "0:0\n"].concat(),
        )?;
        expect(node, "root", "cat /node/root-only", "of root\n")?;
        expect(node, "user", "grep -c '^3000$' /proc/self/status; id -G", "0\n1000 3000\n")?;
        expect(
            node,
            "root",
            "echo x > /node/written; echo x > /bin/written; echo x > /memory/written; echo $?",
            "0\n",
        )?;
        let written = fs::metadata(on_host.join("written"))?;
        ensure!((written.uid(), written.gid()) == (0, 0), "root's file is {}:{}", written.uid(), written.gid());
        expect(node, "user", "echo x > /scratch/mine; stat -c %u:%g /scratch/mine", "1000:3000\n")?;

        println!("R-SEC-7, R-SEC-12, R-SEC-13: what else a pod may ask for");
        expect(node, "root", "cat /proc/sys/kernel/shm_rmid_forced", "1\n")?;
        let processes = run(node, "users", "user", "ls -d /proc/[0-9]* | wc -l")?;
        ensure!(processes.trim().parse::<u32>()? >= 4, "one container sees {processes} processes");
        let masked = |container| run(node, "users", container, "grep -c ' /proc/.* ' /proc/mounts");
        ensure!(masked("user")?.trim() == "0" && masked("root")?.trim() != "0", "procMount: {:?}", masked("user")?);

        println!("nothing of it stays on the node while it runs, and an agent that comes anew touches nothing");
        let left = proc::mounts_below(&node.path("run/images"))?;
        ensure!(left.is_empty(), "on the node are mounted {left:?}");
        let before = node.container("other")?.identity();
        node.agent.kill()?;
        node.agent.start()?;
        node.await_running("users")?;
        node.await_running("other")?;
        ensure!(node.container("other")?.identity() == before, "I3: it was restarted");

        println!("the next life of a container has the same users, and the next pod those that are free");
        node.container("other")?.kill()?;
        node.until("another container", || {
            ensure!(node.container("other")?.identity() != before, "still the first");
            Ok(())
        })?;
        ensure!(users_on_node(node, "other")? == BTreeSet::from([of("main", 2 * LENGTH)]));
        node.remove("users.yaml")?;
        node.await_gone("users")?;
        node.until("its files are gone", || {
            let pods = fs::read_dir(node.path("state/pods"))?.count();
            ensure!(pods == 2, "{pods} pods have files");
            Ok(())
        })?;
        node.write("third.yaml", pods::shell("third", IDLE, "  hostUsers: false\n"))?;
        node.await_running("third")?;
        ensure!(users_on_node(node, "third")? == BTreeSet::from([of("main", LENGTH)]));
        for file in ["other.yaml", "plain.yaml", "third.yaml"] {
            node.remove(file)?;
        }
        node.await_nothing_left()
    })
}

/// Checks that privileged containers and terminals work with `hostUsers: false` (R-SEC-5, R-SEC-14).
#[test]
fn privileges_and_terminals_go_with_users_of_a_pod_s_own() -> Result<()> {
    Node::builder().run(|node| {
        let extra = "    securityContext: {privileged: true}\n    tty: true\n    stdin: true\n  hostUsers: false\n";
        node.write("users.yaml", pods::shell("users", IDLE, extra))?;
        node.await_running("users")?;
        let capabilities = run(node, "users", "main", "grep CapEff /proc/self/status")?;
        let all = fs::read_to_string("/proc/self/status")?;
        let all = all.lines().find(|line| line.starts_with("CapEff")).context("it has capabilities")?;
        ensure!(
            capabilities.trim() == all || capabilities.contains("1ffffffffff"),
            "{capabilities} is less than {all}"
        );
        let said = run(
            node,
            "users",
            "main",
            "id -u; test -e /dev/kmsg && echo device; mkdir /m && mount -t tmpfs none /m && echo mounted",
        )?;
        ensure!(said == "0\ndevice\nmounted\n", "{said:?}");
        ensure!(users_on_node(node, "users")? == BTreeSet::from([("main".to_owned(), LENGTH)]));
        println!("it is not the node's root");
        let said = run(node, "users", "main", "echo 1 > /proc/sys/vm/drop_caches")?;
        ensure!(said.contains("Permission denied"), "{said:?}");
        node.remove("users.yaml")?;
        node.await_nothing_left()
    })
}

/// I6: an agent that is killed while it makes namespaces and mounts leaves none behind.
#[test]
fn an_agent_killed_at_any_moment_leaves_nothing() -> Result<()> {
    Node::builder().run(|node| {
        let manifest = |round: u64| {
            let extra = "    volumeMounts: [{name: scratch, mountPath: /scratch}]\n  volumes: [{name: scratch, emptyDir: {}}]\n";
            pods::shell("users", IDLE, extra) + &format!("  hostUsers: false\n  hostname: round-{round}\n")
        };
        node.write("users.yaml", manifest(0))?;
        node.await_running("users")?;
        for round in 1..=8 {
            node.write("users.yaml", manifest(round))?;
            pause(Duration::from_millis(20 + 25 * round));
            node.agent.kill()?;
            node.agent.start()?;
        }
        node.until("the last revision", || {
            let said = run(node, "users", "main", "hostname")?;
            ensure!(said == "round-8\n", "it is {said:?}");
            Ok(())
        })?;
        // An edited pod is a new pod with a new UID range.
        let users = users_on_node(node, "users")?;
        ensure!(users.len() == 1 && users.iter().all(|(_, user)| *user >= LENGTH && user % LENGTH == 0), "{users:?}");
        node.until("the mounts to be gone", || {
            let left = proc::mounts_below(&node.path("run/images"))?;
            ensure!(left.is_empty(), "{left:?} is mounted");
            Ok(())
        })?;
        node.remove("users.yaml")?;
        node.await_nothing_left()
    })
}

/// Checks Docker, which has one UID range for all containers or none (R-SEC-14).
#[test]
fn a_runtime_that_cannot_is_named_with_a_way_out() -> Result<()> {
    Node::builder().on(Backend::Docker).run(|node| {
        node.write("users.yaml", pods::shell("users", IDLE, "  hostUsers: false\n"))?;
        node.write("plain.yaml", pods::idle("plain", "1"))?;
        node.await_running("plain")?;
        let words = ["can't set `spec.hostUsers: false`, runtime does not support user namespaces", "runtimeClassName"];
        node.await_said(&["describe", "pod", &on_node("users")], &words)?;
        ensure!(node.view().of_pod(&on_node("users"))?.is_empty(), "it runs all the same");
        node.remove("users.yaml")?;
        node.remove("plain.yaml")?;
        node.await_nothing_left()
    })
}

/// Checks that a pod waits and names a file system without ID-mapped mounts (R-SEC-14).
#[test]
fn a_file_system_that_knows_no_other_users_is_named() -> Result<()> {
    Node::builder().run(|node| {
        let extra = "    volumeMounts: [{name: proc, mountPath: /node}]\n  hostUsers: false\n  volumes: [{name: proc, hostPath: \
                     {path: /proc/sys}}]\n";
        node.write("users.yaml", pods::shell("users", IDLE, extra))?;
        let words = ["the file system of /proc/sys cannot be mounted for users of a pod's own"];
        node.await_said(&["describe", "pod", &on_node("users")], &words)?;
        let left = proc::mounts_below(&node.path("run/images"))?;
        ensure!(left.is_empty(), "on the node are mounted {left:?}");
        node.remove("users.yaml")?;
        node.await_nothing_left()
    })
}
