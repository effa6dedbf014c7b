//! Privileges and shared namespaces of containers, as the node sees them; most manifests are from `tests/manifests`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node, cgroups,
    ctr::Running,
    fixtures,
    image::{Image, PackedLayer, Run},
    layer::Layer,
    pods::{IDLE, on_node, shell},
    proc,
};

stanchion_tests::on_each_runtime! {
    a_process_has_what_its_security_context_says,
    a_pod_may_want_no_groups_of_its_image,
    root_is_refused_by_name_where_it_is_not_wanted,
    what_the_node_does_not_allow_holds_the_pod_back_by_name,
    containers_see_each_others_processes,
    pods_are_in_the_cgroup_of_their_class,
}

/// Returns the running container with this name, of whichever pod.
fn running(node: &Node, container: &str) -> Result<Running> {
    let mut all = node.view().running()?.into_iter();
    all.find(|it| it.record.container() == container).with_context(|| format!("container {container} does not run"))
}

/// Reads `/proc/PID/status` of a container's process; keys are the fields' names.
fn status(node: &Node, container: &str) -> Result<BTreeMap<String, String>> {
    let pid = running(node, container)?.pid;
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("a process")?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect())
}

fn expect(node: &Node, container: &str, lines: &[(&str, &str)]) -> Result<()> {
    let found = status(node, container)?;
    for (name, expected) in lines {
        ensure!(found[*name] == *expected, "{container}: {name} is {:?} and not {expected:?}", found[*name]);
    }
    Ok(())
}

/// Expects the values of the recordings `security/users-and-groups`, `security/capabilities` and `security/seccomp`.
/// R-SEC-16.
fn a_process_has_what_its_security_context_says(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("security.yaml", include_str!("../manifests/security.yaml"))?;
        node.await_running("security")?;
        let (none, usual) = ("0000000000000000", "00000000a80425fb");
        println!("R-SEC-1, R-SEC-8, R-SEC-10: what the pod says");
        let ids = [("Uid", "1000 1000 1000 1000"), ("Gid", "0 0 0 0"), ("Groups", "0 5000 5001")];
        expect(node, "pod-level", &ids)?;
        expect(node, "pod-level", &[("CapEff", none), ("CapBnd", usual), ("NoNewPrivs", "0"), ("Seccomp", "2")])?;
        println!("R-SEC-1: the container's own values go before it");
        let ids = [("Uid", "2000 2000 2000 2000"), ("Gid", "2001 2001 2001 2001"), ("Groups", "2001 5000 5001")];
        expect(node, "own-user", &ids)?;
        println!("R-SEC-4, R-SEC-6: without any capability");
        expect(node, "least", &[("CapEff", none), ("CapBnd", none), ("NoNewPrivs", "1")])?;
        expect(node, "one-capability", &[("CapEff", "0000000000000400"), ("CapBnd", "0000000000000400")])?;
        println!("R-SEC-8: no profile");
        expect(node, "unconfined", &[("Seccomp", "0"), ("CapEff", usual)])?;
        println!("R-SEC-5: privileged");
        let privileged = status(node, "privileged")?;
        let set = u64::from_str_radix(&privileged["CapEff"], 16)?;
        ensure!(set & (1 << 21) != 0, "CAP_SYS_ADMIN is missing in {set:x}");
        ensure!(privileged["Seccomp"] == "0", "a privileged container is confined");
        node.remove("security.yaml")?;
        node.await_nothing_left()
    })
}

/// R-SEC-10.
fn a_pod_may_want_no_groups_of_its_image(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let mut layer = Layer::default();
        fixtures::shell(&mut layer)?;
        layer.file("/etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n")?;
        layer.file("/etc/group", 0o644, b"u:x:1000:\nextra:x:2000:u\n")?;
        let image = Image::new("test/groups", "1", &Run { user: "u", ..Run::default() }, &[PackedLayer::new(layer.finish()?)?]);
        image.docker_archive(&node.path("groups.tar"), "docker.io/test/groups:1")?;
        fs::rename(node.path("groups.tar"), node.path("preload/groups.tar"))?;
        for (name, policy, own, groups) in [
            ("merged", "Merge", "{}", "1000 2000 5000"),
            ("strict", "Strict", "{}", "1000 5000"),
            ("strict-group", "Strict", "{runAsGroup: 7}", "7 5000"),
            ("strict-user", "Strict", "{runAsUser: 1000}", "1000 5000"),
        ] {
            let extra = format!(
                "    securityContext: {own}\n  securityContext: {{supplementalGroups: [5000], supplementalGroupsPolicy: {policy}}}\n"
            );
            let manifest = shell(name, IDLE, &extra).replace("image: busybox", "image: test/groups:1");
            node.write("pod.yaml", manifest)?;
            node.await_running(name)?;
            expect(node, "main", &[("Uid", "1000 1000 1000 1000"), ("Groups", groups)])?;
            node.remove("pod.yaml")?;
            node.await_gone(name)?;
        }
        node.await_nothing_left()
    })
}

/// R-SEC-3, in the words of the recording `start-errors/run-as-non-root`.
fn root_is_refused_by_name_where_it_is_not_wanted(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let extra = "    securityContext: {runAsNonRoot: true}\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        let said = ["CreateContainerConfigError", "container has runAsNonRoot and image will run as root"];
        node.await_said(&["describe", "pod", "pod-node-1"], &said)?;
        ensure!(node.view().running()?.is_empty(), "it runs as root");
        println!("a user is given: it runs");
        let extra = "    securityContext: {runAsNonRoot: true, runAsUser: 1000}\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        node.await_running("pod").map(drop)
    })
}

/// R-SEC-9, R-SEC-12: no pod is rejected for good, and the running revision keeps running (R-ADM-1, R-ADM-6).
fn what_the_node_does_not_allow_holds_the_pod_back_by_name(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", shell("pod", IDLE, ""))?;
        let before = node.await_running("pod")?[0].pid;
        let extra = "  securityContext: {sysctls: [{name: net.core.somaxconn, value: '1024'}]}\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        let said = ["SysctlForbidden", "forbidden sysctl: \"net.core.somaxconn\" not allowlisted"];
        node.await_said(&["describe", "pod", "pod-node-1"], &said)?;
        ensure!(running(node, "main")?.pid == before, "the pod that ran was stopped for one that cannot run");
        Ok(())
    })
}

/// R-SEC-13
fn containers_see_each_others_processes(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("shared.yaml", include_str!("../manifests/shared-processes.yaml"))?;
        node.await_running("shared-processes")?;
        let namespace = |container: &str| -> Result<_> {
            Ok(fs::read_link(format!("/proc/{}/ns/pid", running(node, container)?.pid))?)
        };
        let (main, other) = (namespace("main")?, namespace("other")?);
        ensure!(main == other, "the containers are in {} and {}", main.display(), other.display());
        ensure!(main != fs::read_link("/proc/self/ns/pid")?, "they see the node's processes");
        node.remove("shared.yaml")?;
        node.await_nothing_left()
    })
}

/// R-RES-6, R-COEX-3, R-RES-2, R-RES-5, R-RES-13, R-RES-19, as in the recordings `resources/pod-level` and
/// `resources/burstable`.
fn pods_are_in_the_cgroup_of_their_class(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("idle.yaml", shell("idle", IDLE, ""))?;
        node.await_running("idle")?;
        node.write("pod.yaml", include_str!("../manifests/pod-resources.yaml"))?;
        node.await_running("pod-resources")?;
        let root = &node.names().cgroup;
        let pods = |class: &str| cgroups::Driver::chosen().pods(class);
        let found = |end: &str, file: &str| -> Result<Vec<String>> {
            let all = proc::cgroups(root)?;
            let here = all.iter().filter(|it| it.to_string_lossy().contains(end) && !is_container(it));
            Ok(here.filter_map(|it| fs::read_to_string(it.join(file)).ok()).map(|it| it.trim().to_owned()).collect())
        };
        ensure!(!found(&pods("besteffort"), "cgroup.procs")?.is_empty(), "the idle pod is not in besteffort");
        for (v1, v2, expected) in [
            ("cpu.shares", "cpu.weight", ["204", "8"]),
            ("memory.limit_in_bytes", "memory.max", ["134217728", "134217728"]),
            ("cpu.cfs_quota_us", "cpu.max", ["40000", "40000 100000"]),
        ] {
            let values = [found(&pods("burstable"), v1)?, found(&pods("burstable"), v2)?].concat();
            ensure!(values.iter().any(|it| expected.contains(&it.as_str())), "{v1} of the pod is {values:?}");
        }
        println!("a container without limits has the pod's");
        for container in ["main", "none"] {
            let all = node.view().of_pod(&on_node("pod-resources"))?;
            let one = all.iter().find(|it| it.record.container() == container).context("it runs")?;
            let memory = proc::memory_limit(one.pid)?;
            ensure!(memory == "134217728", "{container} may have {memory}");
        }
        node.remove("pod.yaml")?;
        node.remove("idle.yaml")?;
        node.await_nothing_left()
    })
}

/// R-REJ-12, R-GAP-22: a pod that violates the policy does not run and says why; pods that already ran keep running.
#[test]
fn a_policy_holds_back_what_it_forbids() -> Result<()> {
    Node::builder().on(Backend::Containerd).run(|node| {
        let privileged = |name: &str| shell(name, IDLE, "    securityContext: {privileged: true}\n");
        node.write("old.yaml", privileged("old"))?;
        let old = node.await_running("old")?[0].identity();
        node.agent.stop()?;
        fs::create_dir(node.path("conf.d"))?;
        let policy = "[policy]\nlevel = \"baseline\"\nregistries = [\"docker.io/library\"]\n";
        fs::write(node.path("conf.d/policy.toml"), policy)?;
        node.agent.start()?;
        node.write("new.yaml", privileged("new"))?;
        let said =
            ["PolicyViolation", "violates PodSecurity \"baseline\": container \"main\" must not set privileged=true"];
        node.await_said(&["describe", "pod", "new-node-1"], &said)?;
        node.write("far.yaml", shell("far", IDLE, "").replace("image: busybox", "image: example.com/far"))?;
        let said = ["PolicyViolation", "example.com/far:latest", "policy.registries"];
        node.await_said(&["describe", "pod", "far-node-1"], &said)?;
        node.write("plain.yaml", shell("plain", IDLE, ""))?;
        node.await_running("plain")?;
        ensure!(node.container("old")?.identity() == old, "what ran was touched");
        ensure!(node.view().running()?.len() == 2, "what is forbidden runs");
        Ok(())
    })
}

/// Returns whether a cgroup is directly below a pod's.
fn is_container(cgroup: &Path) -> bool {
    cgroup.parent().and_then(Path::file_name).is_some_and(|name| name.to_string_lossy().starts_with("pod"))
}
