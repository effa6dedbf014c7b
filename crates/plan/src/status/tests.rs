//! Tests of statuses from observed state.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use jiff::Timestamp;
use stanchion_pod::{
    Pod,
    k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus},
};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxInfo, SandboxState, labels};

use super::{Facts, status};
use crate::{
    history::History,
    lifecycle::LifecycleState,
    observed::ObservedPod,
    time::{Stamp, later, until},
    view::View,
};

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
    later(start, std::time::Duration::from_secs(seconds))
}

/// Returns a pod of these containers and, if `sidecar` is set, the sidecar `side`.
fn pod(policy: &str, sidecar: bool, containers: &[&str]) -> Pod {
    let side = if sidecar { "  initContainers: [{name: side, image: i, restartPolicy: Always}]\n" } else { "" };
    let containers: String = containers.iter().map(|name| format!("  - {{name: {name}, image: i}}\n")).collect();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  restartPolicy: {policy}\n{side}  containers:\n{containers}"
    );
    stanchion_pod::decode(text.as_bytes(), "node").expect("the manifest is good").pods.remove(0)
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    [(labels::REVISION, pod.revision.as_str()), (labels::POD_UID, pod.uid.as_str()), (labels::BACKOFF_SECONDS, "10")]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Observed state of a pod: instances of its containers, the older ones first.
struct Scene {
    pod: Pod,
    instances: Vec<(&'static str, u32, ContainerState)>,
    has_sandbox: bool,
    /// Whether a newer sandbox of another revision is ready too.
    has_another: bool,
    last: Option<PodStatus>,
    now: u64,
}

impl Scene {
    fn of(pod: Pod, states: &[(&'static str, ContainerState)]) -> Self {
        let instances = states.iter().map(|(name, state)| (*name, 0, state.clone())).collect();
        Self { pod, instances, has_sandbox: true, has_another: false, last: None, now: 5 }
    }

    fn status(&self) -> PodStatus {
        let pod = &self.pod;
        let sandbox = SandboxInfo {
            id: "sandbox".into(),
            state: SandboxState::Ready,
            addresses: vec!["10.1.0.2".parse().expect("an address")],
            created_at: at(0),
            attempt: 0,
            labels: labels(pod),
        };
        let container = |(name, attempt, state): &(&str, u32, ContainerState)| ContainerInfo {
            id: format!("{name}-{attempt}").as_str().into(),
            sandbox: sandbox.id.clone(),
            name: (*name).to_owned(),
            attempt: *attempt,
            image: "i".to_owned(),
            image_digest: None,
            created_at: at(0),
            state: state.clone(),
            labels: labels(pod),
        };
        let containers: Vec<_> = self.instances.iter().map(container).collect();
        let mut history = History::default();
        for container in &containers {
            history.set_lifecycle(
                container.id.clone(),
                LifecycleState { startup: Some(true), ..LifecycleState::default() },
            );
        }
        let mut another = SandboxInfo { id: "another".into(), attempt: 1, ..sandbox.clone() };
        another.labels.insert(labels::REVISION.to_owned(), "another".to_owned());
        let sandboxes = [(self.has_sandbox, sandbox), (self.has_another, another)];
        let sandboxes = sandboxes.into_iter().filter_map(|(is_there, sandbox)| is_there.then_some(sandbox)).collect();
        let pod_there = Arc::new(ObservedPod { sandboxes, containers });
        let view = View { backend: "own".to_owned(), observed: [("own".to_owned(), pod_there)].into_iter().collect() };
        let origin = Instant::now();
        let instant_of = |reported: Stamp| origin + until(at(0), reported.wall);
        history.record_times(&[at(0).into()], &view.observed, instant_of);
        status(&Facts {
            pod,
            view: &view,
            runtime: "containerd",
            history: &history,
            obstacle: None,
            rejection: None,
            stale: None,
            node_addresses: &["192.0.2.1".parse().expect("an address")],
            first_seen: at(0).into(),
            last: self.last.as_ref(),
            now: instant_of(at(self.now).into()),
            time_of_day: at(self.now),
        })
        .status
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: Some(at(0)) }
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited { code: Some(code), started_at: Some(at(0)), finished_at: Some(at(4)), oom_killed: false }
}

fn conditions(status: &PodStatus) -> &[PodCondition] {
    status.conditions.as_deref().unwrap_or_default()
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    conditions(status).iter().find(|it| it.type_ == kind).expect("it is there")
}

fn container<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.into_iter().find(|it| it.name == name).expect("it is there")
}

// R-PH-1, R-PH-2, R-PH-3, R-PH-4, R-PH-5, R-PH-8.
#[test]
fn the_phase_follows_from_policy_and_containers() {
    let (up, ok, bad) = (running(), exited(0), exited(1));
    for sidecar in [false, true] {
        for (policy, states, expected) in [
            ("Always", &[][..], "Pending"),
            ("Always", &[("a", up.clone())][..], "Pending"),
            ("Always", &[("a", up.clone()), ("b", ContainerState::Created)], "Pending"),
            ("Always", &[("a", up.clone()), ("b", up.clone())], "Running"),
            ("Always", &[("a", up.clone()), ("b", ok.clone())], "Running"),
            ("Always", &[("a", ok.clone()), ("b", bad.clone())], "Running"),
            ("OnFailure", &[("a", ok.clone()), ("b", up.clone())], "Running"),
            ("OnFailure", &[("a", ok.clone()), ("b", bad.clone())], "Running"),
            ("OnFailure", &[("a", ok.clone()), ("b", ok.clone())], "Succeeded"),
            ("Never", &[("a", bad.clone()), ("b", up.clone())], "Running"),
            ("Never", &[("a", ok.clone()), ("b", ok.clone())], "Succeeded"),
            ("Never", &[("a", ok.clone()), ("b", bad.clone())], "Failed"),
            ("Never", &[("a", bad.clone())], "Pending"),
        ] {
            let mut states = states.to_vec();
            if sidecar {
                // The sidecar ends with the others.
                let has_ended = matches!(expected, "Succeeded" | "Failed");
                states.push(("side", if has_ended { ok.clone() } else { up.clone() }));
            }
            let found = Scene::of(pod(policy, sidecar, &["a", "b"]), &states).status();
            assert_eq!(found.phase.as_deref(), Some(expected), "{policy}, sidecar: {sidecar}, {states:?}");
        }
    }
    // A pod of which only a sidecar runs has not begun: no regular container was ever there.
    let alone = Scene::of(pod("Always", true, &["a"]), &[("side", up)]).status();
    assert_eq!(alone.phase.as_deref(), Some("Pending"), "R-PH-2");
}

#[test]
fn conditions_are_those_of_a_kubelet_in_its_order() {
    let mut scene = Scene::of(pod("Always", true, &["a"]), &[("a", running()), ("side", running())]);
    let up = scene.status();
    let kinds: Vec<_> = conditions(&up).iter().map(|it| (it.type_.as_str(), it.status.as_str())).collect();
    let all = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    assert_eq!(kinds, all.map(|kind| (kind, "True")), "R-CND-1, R-CND-2, R-CND-3, R-PRB-14");
    assert!(container(&up, "side").ready && container(&up, "a").ready, "R-PRB-14");

    // A sidecar that is down leaves the other container ready, but not the pod.
    scene.instances[1].2 = exited(1);
    scene.last = Some(up.clone());
    scene.now = 100;
    let down = scene.status();
    for kind in ["ContainersReady", "Ready"] {
        let found = condition(&down, kind);
        assert_eq!(
            (found.status.as_str(), found.reason.as_deref()),
            ("False", Some("ContainersNotReady")),
            "R-INIT-9, R-CND-6"
        );
        assert_eq!(found.message.as_deref(), Some("containers with unready status: [side]"), "R-CND-5");
        assert_eq!(found.last_transition_time.as_ref().map(|it| it.0), Some(at(100)), "R-CND-7");
    }
    let before = condition(&up, "PodScheduled").last_transition_time.clone();
    assert_eq!(condition(&down, "PodScheduled").last_transition_time, before, "R-CND-7: it has not changed");

    scene.has_sandbox = false;
    scene.instances.clear();
    assert_eq!(condition(&scene.status(), "PodReadyToStartContainers").status, "False", "R-CND-3");
}

// R-RSP-4.
#[test]
fn the_restart_of_all_containers_is_that_of_the_shown_revision() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: a\n    image: i\n    \
                restartPolicy: Never\n    restartPolicyRules:\n    - action: RestartAllContainers\n      \
                exitCodes: {operator: In, values: [7]}\n";
    let pod = stanchion_pod::decode(text.as_bytes(), "node").expect("the manifest is good").pods.remove(0);
    for has_another in [false, true] {
        for (code, holds) in [(7, "True"), (8, "False")] {
            let mut scene = Scene::of(pod.clone(), &[("a", exited(code))]);
            scene.has_another = has_another;
            let found = scene.status();
            assert_eq!(condition(&found, "AllContainersRestarting").status, holds, "{code}, {has_another}");
        }
    }
}

#[test]
fn a_container_is_its_newest_instance_and_the_one_before() {
    let mut scene = Scene::of(pod("Always", false, &["b", "a"]), &[("a", running())]);
    scene.instances = vec![("b", 3, exited(7)), ("b", 4, running()), ("a", 0, running())];
    let found = scene.status();
    let names: Vec<_> = found.container_statuses.iter().flatten().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a", "b"], "R-CS-1: by name");
    let b = container(&found, "b");
    assert_eq!((b.restart_count, b.container_id.as_deref()), (4, Some("containerd://b-4")), "R-CS-1");
    assert!(b.state.as_ref().is_some_and(|state| state.running.is_some()), "R-CS-3");
    let last = b.last_state.as_ref().and_then(|state| state.terminated.as_ref()).expect("R-CS-3");
    assert_eq!((last.exit_code, last.reason.as_deref(), last.signal), (7, Some("Error"), None), "R-CS-8");
    assert_eq!(last.finished_at.as_ref().map(|it| it.0), Some(at(4)), "R-CS-8");

    // The exit code is unknown: the node was switched off.
    let unknown = ContainerState::Exited { code: None, started_at: None, finished_at: None, oom_killed: false };
    scene.instances = vec![("a", 0, unknown), ("a", 1, running())];
    let found = scene.status();
    let last = container(&found, "a").last_state.as_ref().and_then(|state| state.terminated.as_ref()).expect("R-CS-5");
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")), "R-CS-5");
}

#[test]
fn a_pod_has_its_addresses_class_and_start() {
    let found = Scene::of(pod("Always", false, &["a"]), &[("a", running())]).status();
    assert_eq!((found.pod_ip.as_deref(), found.host_ip.as_deref()), (Some("10.1.0.2"), Some("192.0.2.1")), "R-CS-11");
    assert_eq!(found.qos_class.as_deref(), Some("BestEffort"), "R-CS-11");
    assert_eq!(found.start_time.map(|it| it.0), Some(at(0)), "R-CS-11");
    let shared = Pod { host_network: true, ..pod("Always", false, &["a"]) };
    let found = Scene::of(shared, &[("a", running())]).status();
    assert_eq!(found.pod_ip.as_deref(), Some("192.0.2.1"), "R-CS-11: the node's own");
}
