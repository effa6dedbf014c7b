//! Containers get what their manifest asks for: environment, resources, volumes, restarts, termination.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    pods::{self, IDLE, shell},
    proc,
    wait::throughout,
};

stanchion_tests::on_each_runtime! {
    environment_arguments_and_directory_reach_the_process,
    limits_are_the_cgroups,
    a_container_over_its_memory_limit_is_oom_killed_by_name,
    volumes_are_what_they_say,
    a_host_path_of_the_wrong_type_holds_the_pod_back_by_name,
    read_only_means_all_below_where_the_runtime_can,
    never_means_once,
    on_failure_means_until_it_succeeds,
    the_end_is_term_first,
    the_end_is_kill_after_the_grace,
    two_containers_share_the_pods_network,
}

// R-ENV-2, R-ENV-3, R-ENV-10.
fn environment_arguments_and_directory_reach_the_process(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let extra = "    workingDir: /tmp\n    env:\n    - {name: GREETING, value: hello}\n    - {name: BOTH, value: \
                     $(GREETING) you}\n    - {name: PATH, value: '/bin:/chosen'}\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        let running = node.await_running("pod")?;
        let environment = proc::environment(running[0].pid)?;
        for expected in ["GREETING=hello", "BOTH=hello you", "PATH=/bin:/chosen", "FIXTURE=library/busybox:latest"] {
            ensure!(environment.iter().any(|pair| pair == expected), "{expected} is not in {environment:?}");
        }
        let directory = fs::read_link(format!("/proc/{}/cwd", running[0].pid))?;
        ensure!(directory.ends_with("tmp"), "it runs in {}", directory.display());
        Ok(())
    })
}

// R-RES-11, R-RES-14, R-RES-15.
fn limits_are_the_cgroups(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let extra = "    resources:\n      limits: {memory: 64Mi, cpu: 250m}\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        let running = node.await_running("pod")?;
        let memory = proc::memory_limit(running[0].pid)?;
        ensure!(memory == (64 << 20).to_string(), "memory limit {memory}");
        let cpu = proc::cpu_quota(running[0].pid)?;
        ensure!(cpu == "25000 100000", "CPU quota {cpu}");
        // R-RES-15, only where the kernel supports it (cgroup v2): `cargo xtask vm`.
        let together = proc::oom_group(running[0].pid)?;
        ensure!(together.as_deref().is_none_or(|together| together == "1"), "one process is killed: {together:?}");
        Ok(())
    })
}

// R-TERM-8.
fn a_container_over_its_memory_limit_is_oom_killed_by_name(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let extra = "    resources:\n      limits: {memory: 32Mi}\n  restartPolicy: Never\n";
        node.write("pod.yaml", shell("pod", "exec tail /dev/zero", extra))?;
        node.await_said(&["get", "pods"], &["OOMKilled"])
    })
}

// R-VOL-2, R-VOL-6, R-VOL-7, R-MNT-1.
fn volumes_are_what_they_say(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let host = node.path("on-the-node");
        let script = "echo from-pod > /host/out; echo kept >> /scratch/file; cat /scratch/file > /host/scratch; \
                      touch /read-only/x 2> /host/refused; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
        let extra = format!(
            "    volumeMounts:\n    - {{name: host, mountPath: /host}}\n    - {{name: host, mountPath: /read-only, \
             readOnly: true}}\n    - {{name: scratch, mountPath: /scratch}}\n  volumes:\n  - name: host\n    hostPath: \
             {{path: {}, type: DirectoryOrCreate}}\n  - name: scratch\n    emptyDir: {{}}\n",
            host.display()
        );
        node.write("pod.yaml", shell("pod", script, &extra))?;
        node.await_running("pod")?;
        let read = |file: &str| fs::read_to_string(host.join(file));
        node.until("the pod to write", || {
            let refused = read("refused")?;
            ensure!(refused.contains("Read-only"), "{refused:?}");
            Ok(())
        })?;
        ensure!(read("out")? == "from-pod\n", "the node sees {:?}", read("out")?);
        ensure!(read("scratch")? == "kept\n", "the scratch volume had {:?}", read("scratch")?);

        println!("an emptyDir outlives a restart of the container");
        node.container("pod")?.kill()?;
        node.until("the second line", || {
            let seen = read("scratch")?;
            ensure!(seen == "kept\nkept\n", "the scratch volume has {seen:?}");
            Ok(())
        })?;

        println!("the pod goes: its emptyDir goes with it, the node's directory stays");
        node.remove("pod.yaml")?;
        node.await_nothing_left()?;
        ensure!(read("out")? == "from-pod\n", "the node's own file is gone");
        Ok(())
    })
}

// R-VOL-1, R-VOL-6.
fn a_host_path_of_the_wrong_type_holds_the_pod_back_by_name(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let path = node.path("needed");
        let extra = format!(
            "    volumeMounts:\n    - {{name: needed, mountPath: /needed}}\n  volumes:\n  - name: needed\n    hostPath: \
             {{path: {}, type: Directory}}\n",
            path.display()
        );
        node.write("pod.yaml", shell("pod", IDLE, &extra))?;
        node.await_said(&["describe", "pod", "pod-node-1"], &[&path.to_string_lossy(), "hostPath"])?;
        ensure!(node.view().running()?.is_empty(), "it runs without its volume");
        println!("nothing is rejected for good: the directory appears");
        fs::create_dir(&path)?;
        node.await_running("pod").map(drop)
    })
}

// R-MNT-6.
fn read_only_means_all_below_where_the_runtime_can(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        // Every node has other file systems mounted below /dev.
        let volume = |mode: &str| {
            format!(
                "    volumeMounts: [{{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: {mode}}}]\n  volumes: [{{name: \
                 v, hostPath: {{path: /dev}}}}]\n"
            )
        };
        node.write("pod.yaml", shell("pod", IDLE, &volume("Enabled")))?;
        if on == Backend::Docker && stanchion_tests::docker::major_version()? < 25 {
            let words = ["CreateContainerConfigError", "/v requested recursive read-only mode", "not supported by the runtime"];
            return node.await_said(&["describe", "pod", "pod-node-1"], &words);
        }
        for (mode, is_recursive) in [("Enabled", true), ("IfPossible", true), ("Disabled", false)] {
            node.write("pod.yaml", shell("pod", IDLE, &volume(mode)))?;
            node.until(&format!("{mode} to be in force"), || {
                let access = proc::access_below(node.container("pod")?.pid, Path::new("/v"))?;
                let (top, below) = access.split_first().context("/v is mounted")?;
                ensure!(!below.is_empty(), "nothing is mounted below it");
                ensure!(top == "ro", "/v is {top}");
                ensure!(below.iter().all(|it| it == "ro") == is_recursive, "below it is {below:?}");
                Ok::<_, anyhow::Error>(())
            })?;
        }
        Ok(())
    })
}

// R-RSP-1, R-PH-4.
fn never_means_once(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", shell("pod", "exit 3", "  restartPolicy: Never\n"))?;
        node.until("the pod to fail", || {
            let pod = node.pod("pod")?;
            ensure!(pod.phase() == "Failed", "{}", pod.summary());
            let code = &pod.container("main")["state"]["terminated"]["exitCode"];
            ensure!(*code == 3, "exit code {code}");
            Ok(())
        })?;
        throughout(Duration::from_secs(2), || {
            ensure!(node.view().running()?.is_empty() && node.pod("pod")?.restarts() == 0, "it runs again");
            Ok(())
        })
    })
}

// R-RSP-1, R-PH-4, R-VOL-2.
fn on_failure_means_until_it_succeeds(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let script = "if [ -e /scratch/tried ]; then exit 0; fi; touch /scratch/tried; exit 1";
        let extra = "    volumeMounts:\n    - {name: scratch, mountPath: /scratch}\n  restartPolicy: OnFailure\n  \
                     volumes:\n  - name: scratch\n    emptyDir: {}\n";
        node.write("pod.yaml", shell("pod", script, extra))?;
        node.until("the pod to succeed", || {
            let pod = node.pod("pod")?;
            ensure!(pod.phase() == "Succeeded", "{}", pod.summary());
            ensure!(pod.restarts() == 1, "{} restarts", pod.restarts());
            Ok(())
        })
    })
}

// R-TERM-1.
fn the_end_is_term_first(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let file = node.path("said");
        fs::write(&file, "")?;
        let script = "trap 'echo term > /said; sleep 1; echo done >> /said; exit 0' TERM; while :; do sleep 3600 & wait \
                      $!; done";
        let extra = format!(
            "    volumeMounts:\n    - {{name: said, mountPath: /said}}\n  volumes:\n  - name: said\n    hostPath: \
             {{path: {}, type: File}}\n",
            file.display()
        );
        node.write("pod.yaml", shell("pod", script, &extra))?;
        node.await_running("pod")?;
        node.remove("pod.yaml")?;
        node.await_gone("pod")?;
        let said = fs::read_to_string(&file)?;
        ensure!(said == "term\ndone\n", "it was not let finish: {said:?}");
        Ok(())
    })
}

// R-TERM-1.
fn the_end_is_kill_after_the_grace(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let deaf = shell("pod", "trap '' TERM; while :; do sleep 1; done", "");
        node.write("pod.yaml", deaf.replace("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 2"))?;
        node.await_running("pod")?;
        let pid = node.container("pod")?.pid;
        let removed = Instant::now();
        node.remove("pod.yaml")?;
        node.until("the process to be killed", || if proc::alive(pid) { Err("it lives") } else { Ok(()) })?;
        let took = removed.elapsed();
        ensure!(took >= Duration::from_secs(2), "killed after {took:?}, before its grace of 2 s was over");
        ensure!(took < Duration::from_secs(5), "killed only after {took:?}, its grace is 2 s");
        node.await_nothing_left()
    })
}

// R-SEC-13.
fn two_containers_share_the_pods_network(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let side = "  - name: side\n    image: redis\n";
        node.write("pod.yaml", shell("pod", IDLE, side))?;
        let running = node.await_running("pod")?;
        let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
        ensure!(network(running[0].pid)? == network(running[1].pid)?, "they have networks of their own");
        let ask = "printf 'PING\\r\\n' | nc -w 2 127.0.0.1 6379";
        node.await_said(&["exec", "pod-node-1", "-c", "main", "--", "sh", "-c", ask], &["+PONG"])?;
        let seen = stanchion_tests::remains::processes(node.names())?;
        let shims = seen.iter().filter(|seen| seen.command.contains("containerd-shim")).count();
        let needed = match on {
            Backend::Containerd | Backend::K3s => 1,
            // Docker has one shim per container, and one for the container that holds the namespaces.
            Backend::Docker => 3,
        };
        ensure!(shims == needed, "{shims} shims for one pod");

        println!("one of them dies: the other is not touched");
        let side = running[1].clone();
        side.kill()?;
        node.until("it to be restarted", || {
            let now = node.view().of_pod(&pods::on_node("pod"))?;
            ensure!(now.len() == 2 && now[1].identity() != side.identity(), "{now:?}");
            ensure!(now[0].identity() == running[0].identity(), "the other was restarted too");
            Ok(())
        })
    })
}
