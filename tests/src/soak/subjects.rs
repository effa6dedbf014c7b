//! The pods of a soak.
//!
//! The container of a well-behaved pod holds a lock on a file of the node, named after its pod, for as long as it runs.
//! A container that finds the file locked writes to `locks/doubled`. So two containers of one pod cannot run at once
//! unnoticed, however briefly (I1).

use std::path::Path;

use serde_json::{Value, json};

use crate::{pods::IDLE, random::Random, slot::Names, view::Backend};

/// Pod that is never edited or killed.
pub(super) const BYSTANDER: &str = "bystander";

/// Pods that are edited and killed.
pub(super) const NAMES: [&str; 6] = ["plain-a", "plain-b", "init-c", "volumes-d", "web-e", "web-f"];

/// Expected outcome of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// This revision runs and is ready.
    Runs(u64),
    /// The pod ends by itself.
    Ends,
    /// The pod never starts.
    Waits,
}

/// Pod that has a manifest.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) expected: Expected,
    /// Port of the node that leads to the pod.
    pub(super) port: Option<u16>,
    /// How often this revision was killed: each kill is a restart, and the third restart would wait for 20 s.
    pub(super) kills: u32,
    /// Whether it was seen as expected since its manifest was last written.
    pub(super) is_settled: bool,
    /// Whether it is removed in the next round.
    pub(super) is_guest: bool,
}

impl Wanted {
    pub(super) fn new(expected: Expected, port: Option<u16>) -> Self {
        Self { expected, port, kills: 0, is_settled: false, is_guest: false }
    }
}

/// Returns the port of the node that leads to a pod, if it has one. On Docker only the bystander has one: a dockerd
/// that is killed while it creates a container with a host port keeps that port occupied until it is restarted once
/// more.
pub(super) fn port(names: &Names, runtime: Backend, pod: &str) -> Option<u16> {
    match (pod, runtime) {
        (BYSTANDER, _) => Some(names.port(0)),
        (_, Backend::Docker) => None,
        ("web-e", _) => Some(names.port(1)),
        ("web-f", _) => Some(names.port(2)),
        _ => None,
    }
}

/// Returns the manifest of a well-behaved pod.
pub(super) fn good(names: &Names, port: Option<u16>, pod: &str, revision: u64) -> String {
    let mut script = format!("exec 9>>/locks/{pod}; flock -n 9 || echo {pod} {revision} >>/locks/doubled; ");
    let mut main = json!({
        "name": "main",
        "image": "flock",
        "env": [{ "name": "REVISION", "value": revision.to_string() }],
        "volumeMounts": [{ "name": "locks", "mountPath": "/locks" }],
    });
    let locks = names.dir.join("locks");
    let mut spec = json!({
        "terminationGracePeriodSeconds": 3,
        "volumes": [{ "name": "locks", "hostPath": { "path": locks, "type": "Directory" } }],
    });
    if pod == BYSTANDER || pod.starts_with("web") {
        script.push_str("mkdir -p /www; echo revision $REVISION >/www/index.html; httpd -p 80 -h /www; ");
        main["ports"] = json!([{ "containerPort": 80 }]);
        if let Some(port) = port {
            main["ports"][0]["hostPort"] = port.into();
        }
        main["readinessProbe"] = json!({ "httpGet": { "port": 80, "path": "/index.html" }, "periodSeconds": 1 });
    }
    if pod.starts_with("init") {
        spec["initContainers"] = json!([
            { "name": "first", "image": "busybox:1", "command": ["sh", "-c", "echo first"] },
        ]);
    }
    if pod.starts_with("volumes") {
        let volumes = [
            json!({ "name": "data", "emptyDir": {} }),
            json!({ "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
            json!({ "name": "about", "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } }),
        ];
        append(&mut spec["volumes"], &volumes);
        let mounts = ["data", "memory", "about"].map(|name| json!({ "name": name, "mountPath": format!("/{name}") }));
        append(&mut main["volumeMounts"], &mounts);
        main["livenessProbe"] =
            json!({ "exec": { "command": ["cat", "/about/name"] }, "periodSeconds": 2, "timeoutSeconds": 10 });
        script.push_str("echo data >/data/file; echo memory >/memory/file; ");
    }
    script.push_str(IDLE);
    main["command"] = json!(["sh", "-c", script]);
    spec["containers"] = json!([main]);
    manifest(pod, &spec)
}

/// Hostile pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hostile {
    /// Writes an endless line to its log.
    Line,
    /// Ignores SIGTERM.
    Deaf,
    /// Starts processes and abandons them.
    Forks,
    /// Makes sparse 1 GiB files out of files that the agent reads, and ends.
    Sparse,
    /// Makes directories in a volume that are nested deeper than the longest path.
    Deep,
    /// Has an image with an endless `/etc/passwd`.
    Users,
}

impl Hostile {
    const ALL: [Self; 6] = [Self::Deaf, Self::Sparse, Self::Line, Self::Deep, Self::Forks, Self::Users];

    pub(super) fn pick(random: &mut Random) -> Self {
        random.pick(&Self::ALL)
    }

    /// Returns the name of the pod.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Line => "hostile-line",
            Self::Deaf => "hostile-deaf",
            Self::Forks => "hostile-forks",
            Self::Sparse => "hostile-sparse",
            Self::Deep => "hostile-deep",
            Self::Users => "hostile-users",
        }
    }

    pub(super) const fn expected(self, revision: u64) -> Expected {
        match self {
            Self::Line | Self::Deaf | Self::Forks | Self::Deep => Expected::Runs(revision),
            Self::Sparse => Expected::Ends,
            Self::Users => Expected::Waits,
        }
    }

    const fn script(self) -> &'static str {
        match self {
            Self::Line => "while :; do dd if=/dev/zero bs=65536 count=4 2>/dev/null | tr '\\0' x; sleep 0.2; done",
            Self::Deaf => "trap '' TERM; while :; do sleep 1; done",
            Self::Forks => "while :; do sh -c 'sleep 7 & sleep 8 & setsid sleep 9 &'; sleep 0.3; done",
            Self::Sparse => {
                "for file in /etc/hosts /etc/hostname /etc/resolv.conf /dev/termination-log; do truncate -s 1G $file; done; exit 0"
            }
            // A path has at most 4,095 bytes; 20 times 1,000 directories are 40,000.
            Self::Deep => {
                "cd /data; part=$(printf 'd/%.0s' $(seq 1000)); for i in $(seq 20); do mkdir -p $part && cd -P $part 2>/dev/null; done; \
                 while :; do sleep 1; done"
            }
            Self::Users => "while :; do sleep 1; done",
        }
    }

    pub(super) fn manifest(self, revision: u64) -> String {
        let image = if self == Self::Users { "endless-users" } else { "busybox" };
        let restart = if self == Self::Sparse { "Never" } else { "Always" };
        manifest(
            self.name(),
            &json!({
                "terminationGracePeriodSeconds": 2,
                "restartPolicy": restart,
                "volumes": [{ "name": "data", "emptyDir": {} }],
                "containers": [{
                    "name": "main",
                    "image": image,
                    "command": ["sh", "-c", self.script()],
                    "env": [{ "name": "REVISION", "value": revision.to_string() }],
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }],
            }),
        )
    }
}

fn manifest(pod: &str, spec: &Value) -> String {
    let whole = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod }, "spec": spec });
    format!("{whole:#}\n")
}

fn append(list: &mut Value, more: &[Value]) {
    if let Some(list) = list.as_array_mut() {
        list.extend_from_slice(more);
    }
}

/// Returns the containers that started while another container of their pod ran, as they reported it themselves.
pub(super) fn doubled(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("locks/doubled")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
