//! Extreme input on a real node: the pod that causes it reports it, the agent keeps running, no other pod is touched.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    node::mount_memory,
    pods::{self, IDLE, shell},
    proc, process, tools,
};

stanchion_tests::on_each_runtime! {
    a_probe_that_hangs_is_a_failed_one_and_leaves_no_process,
    what_a_probe_leaves_ends_with_it_and_its_exit_code_counts,
    hooks_that_never_end_hold_up_nobody_else_and_not_the_end,
    a_secret_that_others_can_read_is_refused_until_it_is_roots_alone,
    objects_may_be_many_and_large,
    a_variable_that_no_kernel_takes_is_named,
}

/// Runs a test beside another pod. Neither that pod's container nor the agent may be restarted.
fn beside(on: Backend, test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("other.yaml", pods::idle("other", "1"))?;
        node.await_running("other")?;
        let before = (node.container("other")?.identity(), node.agent.id());
        test(node)?;
        let after = (node.container("other")?.identity(), node.agent.id());
        ensure!(after == before, "{before:?} became {after:?}");
        Ok(())
    })
}

/// Counts the machine's processes with this command line.
fn running(command: &str) -> Result<usize> {
    Ok(proc::processes()?.iter().filter(|it| it.command == command).count())
}

// R-PRB-32, R-PRB-35.
fn a_probe_that_hangs_is_a_failed_one_and_leaves_no_process(on: Backend) -> Result<()> {
    beside(on, |node| {
        // A number of seconds that identifies the command on the machine.
        let sleep = format!("sleep 98{}", node.names().port(0));
        let command = sleep.replace(' ', ", '") + "'";
        let probe = |fields: &str| {
            format!("    livenessProbe: {{exec: {{command: [{command}]}}, periodSeconds: 1, {fields}}}\n")
        };
        node.write("pod.yaml", shell("pod", IDLE, &probe("timeoutSeconds: 1, failureThreshold: 100")))?;
        let said = ["Liveness probe failed: command timed out", "timed out after 1s"];
        node.await_said(&["describe", "pod", "pod-node-1"], &said)?;
        stanchion_tests::wait::throughout(Duration::from_secs(4), || {
            let left = running(&sleep)?;
            ensure!(left <= 1, "{left} commands of one probe run");
            Ok(())
        })?;
        ensure!(node.pod("pod")?.restarts() == 0, "it was restarted");
        println!("two in a row are enough");
        node.write("pod.yaml", shell("pod", IDLE, &probe("timeoutSeconds: 1, failureThreshold: 2")))?;
        node.until("a restart", || {
            let pod = node.pod("pod")?;
            ensure!(pod.restarts() > 0, "{}", pod.summary());
            Ok(())
        })?;
        node.remove("pod.yaml")?;
        node.await_gone("pod")?;
        node.until("the commands to end", || {
            let left = running(&sleep)?;
            ensure!(left == 0, "{left} commands run");
            Ok(())
        })
    })
}

// R-PRB-35.
fn what_a_probe_leaves_ends_with_it_and_its_exit_code_counts(on: Backend) -> Result<()> {
    beside(on, |node| {
        // Numbers of seconds that identify the commands on the machine.
        let sleep = |number: u32| format!("sleep 9{number}{}", node.names().port(0));
        let (held, gone, hung, own) = (sleep(1), sleep(2), sleep(3), sleep(4));
        // One child keeps the output open; the other is orphaned.
        let leaves = format!("echo >> /tmp/asked; {held} & (setsid {gone} > /dev/null 2>&1 &); exit 0");
        let hangs = format!("echo >> /tmp/hung; (setsid {hung} &); {hung}; true");
        let probe = |kind: &str, script: &str| {
            format!(
                "    {kind}: {{exec: {{command: [sh, -c, '{script}']}}, periodSeconds: 1, timeoutSeconds: 1, \
                 failureThreshold: 3}}\n"
            )
        };
        let probes = probe("livenessProbe", &leaves) + &probe("readinessProbe", &hangs);
        node.write("pod.yaml", shell("pod", IDLE, &probes))?;
        let said = ["Readiness probe failed: command timed out"];
        node.await_said(&["describe", "pod", "pod-node-1"], &said)?;
        let stays = format!("{own} > /dev/null 2>&1 &");
        node.agent.text(&["exec", "pod-node-1", "--", "sh", "-c", &stays])?;
        node.until("five probes of each kind", || {
            let count = "wc -l < /tmp/asked; wc -l < /tmp/hung";
            let lines = node.agent.text(&["exec", "pod-node-1", "--", "sh", "-c", count])?;
            for (command, most) in [(&held, 1), (&gone, 1), (&hung, 2)] {
                let left = running(command)?;
                ensure!(left <= most, "{left} times {command:?} is left of probes");
            }
            ensure!(lines.lines().all(|line| line.trim().parse::<u32>().is_ok_and(|count| count >= 5)), "{lines}");
            Ok(())
        })?;
        let pod = node.pod("pod")?;
        ensure!(pod.restarts() == 0, "it was restarted: {}", pod.summary());
        ensure!(!node.said(&["get", "events"])?.contains("Liveness probe failed"), "the exit code does not count");
        ensure!(running(&own)? == 1, "what an administrator has started is gone");
        node.remove("pod.yaml")?;
        node.await_gone("pod")
    })
}

// R-HOOK-2, R-HOOK-4.
fn hooks_that_never_end_hold_up_nobody_else_and_not_the_end(on: Backend) -> Result<()> {
    beside(on, |node| {
        let hook = |when: &str| format!("    lifecycle: {{{when}: {{exec: {{command: [sleep, '9999']}}}}}}\n");
        let quick = |text: String| text.replace("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 3");
        node.write("start.yaml", quick(shell("start", IDLE, &hook("postStart"))))?;
        node.write("stop.yaml", quick(shell("stop", IDLE, &hook("preStop"))))?;
        node.await_running("stop")?;
        node.until("the first hook to be waited for", || {
            let pod = node.pod("start")?;
            let reason = &pod.container("main")["state"]["waiting"]["reason"];
            ensure!(
                *reason == "ContainerCreating" && node.view().of_pod(&pods::on_node("start"))?.len() == 1,
                "{}",
                pod.summary()
            );
            Ok(())
        })?;
        let removed = Instant::now();
        node.remove("start.yaml")?;
        node.remove("stop.yaml")?;
        node.await_gone("start")?;
        node.await_gone("stop")?;
        let took = removed.elapsed();
        ensure!(took < Duration::from_secs(15), "their end took {took:?}, the grace is 3 s");
        ensure!(node.said(&["get", "events"])?.contains("FailedPreStopHook"), "nobody says that the hook was given up");
        Ok(())
    })
}

fn a_secret_that_others_can_read_is_refused_until_it_is_roots_alone(on: Backend) -> Result<()> {
    beside(on, |node| {
        let keys = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {token: hunter2}\n";
        let file = node.manifest("keys.yaml");
        node.write("keys.yaml", keys)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        let extra = "    env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}]\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        let shown = file.display().to_string();
        node.await_said(&["get", "pods"], &[&shown, "its mode is 0644", "chmod 0600"])?;
        node.await_said(
            &["describe", "pod", "pod-node-1"],
            &["CreateContainerConfigError", "secret \"keys\" not found"],
        )?;
        println!("it is made root's alone");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let pod = node.await_running("pod")?;
        ensure!(proc::environment(pod[0].pid)?.contains(&"TOKEN=hunter2".to_owned()), "the variable is missing");
        let said = node.said(&["get", "events"])?
            + &node.said(&["describe", "pod", "pod-node-1"])?
            + &node.agent.log_text()?;
        ensure!(!said.contains("hunter2"), "the secret is told (I10)");
        Ok(())
    })
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: \"{value}\"}}\n")
}

// R-GAP-14.
fn objects_may_be_many_and_large(on: Backend) -> Result<()> {
    beside(on, |node| {
        for index in 0..1000 {
            node.write(&format!("map-{index}.yaml"), config_map(&format!("map-{index}"), "small"))?;
        }
        let mebibyte = "x".repeat(1 << 20);
        node.write("large.yaml", config_map("large", &mebibyte))?;
        node.write("too-large.yaml", config_map("too-large", &format!("{mebibyte}x")))?;
        let extra = "    env: [{name: LAST, valueFrom: {configMapKeyRef: {name: map-999, key: key}}}]\n    volumeMounts: [{name: \
                     large, mountPath: /large}]\n  volumes: [{name: large, configMap: {name: large}}]\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        let pod = node.await_running("pod")?[0].pid;
        ensure!(proc::environment(pod)?.contains(&"LAST=small".to_owned()), "the variable is missing");
        let found =
            fs::metadata(Path::new(&format!("/proc/{pod}/root/large/key"))).context("the file in the volume")?;
        ensure!(found.len() == mebibyte.len() as u64, "the file has {} bytes", found.len());
        let shown = node.manifest("too-large.yaml").display().to_string();
        node.await_said(&["get", "pods"], &[&shown, "1048576"])
    })
}

// R-ENV-9, R-SYNC-12.
fn a_variable_that_no_kernel_takes_is_named(on: Backend) -> Result<()> {
    beside(on, |node| {
        let extra = |size: usize| format!("    env: [{{name: BIG, value: \"{}\"}}]\n", "x".repeat(size));
        node.write("pod.yaml", shell("pod", IDLE, &extra(128 << 10)))?;
        let said = ["CreateContainerConfigError", "environment variable BIG has 131076 bytes with its name"];
        node.await_said(&["describe", "pod", "pod-node-1"], &said)?;
        ensure!(node.view().of_pod(&pods::on_node("pod"))?.is_empty(), "it runs without the variable");
        println!("a little less will do");
        node.write("pod.yaml", shell("pod", IDLE, &extra((128 << 10) - 10)))?;
        node.await_running("pod").map(drop)
    })
}

/// Runs the agent with its state directory on a small file system of its own (R-VOL-1).
#[test]
fn a_full_state_directory_holds_back_who_needs_it_and_nobody_else() -> Result<()> {
    let mut node = Node::builder().on(Backend::Containerd).without_agent()?;
    let state = node.path("state");
    mount_memory(&state, "size=2m,mode=0700")?;
    let make_room = || mount_memory(&state, "remount,size=64m");
    let result = node.agent.start().and_then(|()| on_a_full_disk(&mut node, &make_room));
    if result.is_err() {
        eprintln!("{}", node.dump());
    }
    let stopped = node.agent.stop();
    process::text(tools::command("umount")?.arg("--lazy").arg(&state))?;
    result.and(stopped.map(drop))
}

fn on_a_full_disk(node: &mut Node, make_room: &dyn Fn() -> Result<()>) -> Result<()> {
    node.write("other.yaml", pods::idle("other", "1"))?;
    node.await_running("other")?;
    let before = (node.container("other")?.identity(), node.agent.id());
    fs::write(node.path("state/fill"), vec![0; 3 << 19])?;
    let large = config_map("large", &"x".repeat(1_000_000));
    let extra =
        "    volumeMounts: [{name: large, mountPath: /large}]\n  volumes: [{name: large, configMap: {name: large}}]\n";
    node.write("large.yaml", large)?;
    node.write("pod.yaml", shell("pod", IDLE, extra))?;
    node.await_said(&["describe", "pod", "pod-node-1"], &["FailedMount", "No space left on device"])?;
    println!("what runs is mended all the same");
    let other = node.container("other")?;
    other.kill()?;
    node.until("the other pod to run again", || {
        let now = node.container("other")?;
        ensure!(now.identity() != other.identity(), "still the same");
        Ok(())
    })?;
    ensure!(node.agent.id() == before.1, "the agent ended");
    println!("there is room again");
    make_room()?;
    node.await_running("pod")?;
    node.remove("pod.yaml")?;
    node.remove("large.yaml")?;
    node.remove("other.yaml")?;
    node.await_gone("pod")?;
    node.await_gone("other")?;
    let left = fs::read_dir(node.path("state/pods"))?.count();
    ensure!(left == 0, "{left} pods have left files");
    Ok(())
}
