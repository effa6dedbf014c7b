//! Tests of the plan, case by case.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stanchion_pod::Pod;
use stanchion_runtime::{ContainerInfo, ContainerState, ErrorKind, SandboxInfo, SandboxState, labels};

use super::{
    Action, Plan, Run, RunningRevision, Wanted,
    history::{Failure, History, ImageState},
    image::ImageFor,
    lifecycle::{HookState, LifecycleState},
    outcome::PodOutcome,
    plan, restart,
    stop::Stop,
    view::View,
};
use crate::{
    observed::ObservedPod,
    reason::Reason,
    time::{Stamp, later, until},
};

fn pod(image: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 7\n  containers:\n  \
         - {{name: app, image: '{image}'}}\n"
    );
    let manifest = stanchion_pod::decode(text.as_bytes(), "node").expect("the manifest is good");
    manifest.pods.into_iter().next().expect("it has one pod")
}

fn never(image: &str) -> Pod {
    Pod { restart_policy: stanchion_pod::RestartPolicy::Never, ..pod(image) }
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a timestamp")
}

fn after(seconds: u64) -> Timestamp {
    later(start(), Duration::from_secs(seconds))
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    [(labels::REVISION, pod.revision.as_str()), (labels::GRACE_SECONDS, "7"), (labels::POD_UID, pod.uid.as_str())]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn sandbox(pod: &Pod, attempt: u32, state: SandboxState) -> SandboxInfo {
    let id = format!("{}-{attempt}", pod.uid).as_str().into();
    SandboxInfo { id, state, addresses: Vec::new(), created_at: after(attempt.into()), attempt, labels: labels(pod) }
}

fn container(pod: &Pod, sandbox: &SandboxInfo, attempt: u32, state: ContainerState, backoff: u64) -> ContainerInfo {
    let mut labels = labels(pod);
    labels.insert(labels::BACKOFF_SECONDS.to_owned(), backoff.to_string());
    ContainerInfo {
        id: format!("app-{attempt}").as_str().into(),
        sandbox: sandbox.id.clone(),
        name: "app".to_owned(),
        attempt,
        image: String::new(),
        image_digest: None,
        created_at: start(),
        state,
        labels,
    }
}

fn running_on_own(pod: &Pod) -> RunningRevision<'_> {
    RunningRevision { pod, backend: "own", is_stopped: false }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: Some(start()) }
}

fn exited(code: i32, at: u64) -> ContainerState {
    let (started_at, finished_at) = (Some(start()), Some(after(at)));
    ContainerState::Exited { code: Some(code), started_at, finished_at, oom_killed: false }
}

fn stop_of(container: &ContainerInfo) -> Stop {
    Stop::graceful(container, None)
}

fn view(sandboxes: Vec<SandboxInfo>, containers: Vec<ContainerInfo>) -> View {
    let pod = Arc::new(ObservedPod { sandboxes, containers });
    View { backend: "own".to_owned(), observed: [("own".to_owned(), pod)].into_iter().collect() }
}

fn of(container: &str) -> ImageFor {
    ImageFor::Container(container.to_owned())
}

fn with_image(pod: &Pod) -> History {
    let mut history = History::default();
    history.set_image(&pod.revision, of("app"), ImageState::Ready);
    history
}

/// Returns the `Instant` of a reported time.
fn instant_of(reported: Stamp) -> Instant {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    *ORIGIN + until(start(), reported.wall)
}

fn moment(seconds: u64) -> Instant {
    instant_of(after(seconds).into())
}

/// Returns the history with the times in `view`.
fn with_times_of(view: &View, history: &History) -> History {
    let mut history = history.clone();
    history.record_times(&[start().into()], &view.observed, instant_of);
    history
}

fn planned(wanted: Wanted<'_>, view: &View, history: &History, now: u64) -> Plan {
    plan(wanted, view, &with_times_of(view, history), moment(now))
}

fn next(pod: Option<&Pod>, view: &View, history: &History, now: u64) -> Plan {
    planned(Wanted { pod, running: None, since: start().into(), shutdown_in: None }, view, history, now)
}

fn run(pod: &Pod, sandbox: &SandboxInfo, attempt: u32, backoff: u64) -> Option<Action> {
    let (revision, sandbox) = (pod.revision.clone(), sandbox.id.clone());
    Some(Action::RunContainer(Run {
        revision,
        container: "app".to_owned(),
        attempt,
        sandbox,
        backoff: Duration::from_secs(backoff),
    }))
}

// R-SYNC-1, R-SYNC-4, R-IMG-6.
#[test]
fn a_new_pod_gets_images_then_sandbox_then_containers() {
    let pod = pod("a:1");
    let empty = view(vec![], vec![]);
    let images = Action::EnsureImages { revision: pod.revision.clone(), images: vec![of("app")] };
    assert_eq!(next(Some(&pod), &empty, &History::default(), 0).action, Some(images));
    let sandbox_first =
        Action::CreateSandbox { revision: pod.revision.clone(), attempt: 0, started_at: start().into() };
    assert_eq!(next(Some(&pod), &empty, &with_image(&pod), 0).action, Some(sandbox_first));
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let made = view(vec![sandbox.clone()], vec![]);
    assert_eq!(next(Some(&pod), &made, &with_image(&pod), 0).action, run(&pod, &sandbox, 0, 0));
    let up = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, running(), 0)]);
    assert_eq!(next(Some(&pod), &up, &History::default(), 0), Plan::default(), "R-RST-1: nothing is done to what runs");
}

// R-SYNC-4.
#[test]
fn containers_start_in_order_whichever_image_comes_first() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: first, image: a}, {name: app, image: b}]}\n";
    let manifest = stanchion_pod::decode(text.as_bytes(), "node").expect("the manifest is good");
    let pod = manifest.pods.into_iter().next().expect("it has one pod");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let made = view(vec![sandbox.clone()], vec![]);
    let mut history = with_image(&pod);
    history.set_image(&pod.revision, of("first"), ImageState::Pulling(None));
    assert_eq!(next(Some(&pod), &made, &history, 0), Plan::default(), "it comes after the first");
    let failure = Failure::after(None, Reason::ErrImagePull, String::new(), ErrorKind::NotFound, None, moment(0));
    for state in [ImageState::Failed(failure.clone()), ImageState::Pulling(Some(failure))] {
        history.set_image(&pod.revision, of("first"), state);
        assert_eq!(next(Some(&pod), &made, &history, 0).action, run(&pod, &sandbox, 0, 0), "that one cannot be had");
    }
}

// R-VOL-11, R-SYNC-4, R-WRK-8.
#[test]
fn images_of_volumes_are_needed_by_the_containers_that_mount_them() {
    let mount = "volumeMounts: [{name: data, mountPath: /a}, {name: data, mountPath: /b}]";
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers:\n  - {{name: first, image: a, \
         {mount}}}\n  - {{name: app, image: b}}\n  volumes:\n  - {{name: data, image: {{reference: c}}}}\n  - {{name: \
         unused, image: {{reference: d}}}}\n"
    );
    let manifest = stanchion_pod::decode(text.as_bytes(), "node").expect("the manifest is good");
    let pod = manifest.pods.into_iter().next().expect("it has one pod");
    let data = ImageFor::Volume("data".to_owned());
    let images = vec![data.clone(), of("first"), of("app")];
    let ensure = Action::EnsureImages { revision: pod.revision.clone(), images };
    assert_eq!(next(Some(&pod), &view(vec![], vec![]), &History::default(), 0).action, Some(ensure));

    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let made = view(vec![sandbox.clone()], vec![]);
    let mut history = with_images(&pod);
    assert!(!history.is_startable(&pod));
    history.set_image(&pod.revision, data.clone(), ImageState::Pulling(None));
    assert_eq!(next(Some(&pod), &made, &history, 0), Plan::default(), "those after it keep their order");
    let failure = Failure::after(None, Reason::ErrImagePull, String::new(), ErrorKind::NotFound, None, moment(0));
    history.set_image(&pod.revision, data.clone(), ImageState::Failed(failure));
    assert_eq!(next(Some(&pod), &made, &history, 0).action, run(&pod, &sandbox, 0, 0), "the other does not mount it");
    let up = view(vec![sandbox.clone()], vec![named(&pod, &sandbox, "app", running())]);
    let waiting = next(Some(&pod), &up, &history, 1);
    assert_eq!((waiting.action, waiting.wake_at), (None, Some(moment(10))));
    let again = Action::EnsureImages { revision: pod.revision.clone(), images: vec![data.clone()] };
    assert_eq!(next(Some(&pod), &up, &history, 10).action, Some(again));
    history.set_image(&pod.revision, data, ImageState::Ready);
    assert!(history.is_startable(&pod), "what nobody mounts is not needed");
}

#[test]
fn restarts_wait_zero_then_ten_seconds_doubling_to_five_minutes() {
    let pod = pod("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let mut backoff = 0;
    let mut waits = Vec::new();
    for attempt in 0..8 {
        let dead = container(&pod, &sandbox, attempt, exited(0, 5), backoff);
        let crashed = view(vec![sandbox.clone()], vec![dead.clone()]);
        let plan = next(Some(&pod), &crashed, &with_image(&pod), 5);
        waits.push(plan.wake_at.map_or(0, |at| at.saturating_duration_since(moment(5)).as_secs()));
        backoff = restart::next_backoff(Some(&dead), &History::default()).as_secs();
        let due = next(Some(&pod), &crashed, &with_image(&pod), 5 + waits[waits.len() - 1]);
        assert_eq!(due.action, run(&pod, &sandbox, attempt + 1, backoff));
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300], "R-BCK-1, R-BCK-5");
}

#[test]
fn a_container_that_ran_long_starts_over() {
    let pod = pod("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let dead = container(&pod, &sandbox, 6, exited(1, 601), 300);
    let crashed = view(vec![sandbox.clone()], vec![dead]);
    assert_eq!(next(Some(&pod), &crashed, &with_image(&pod), 601).action, run(&pod, &sandbox, 7, 10), "R-BCK-2");
}

// R-TERM-4.
#[test]
fn what_is_not_to_restart_stays_as_it_ended() {
    let pod = never("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let ended = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, exited(1, 5), 0)]);
    let release = Action::StopSandbox { backend: "own".to_owned(), id: sandbox.id.clone() };
    assert_eq!(next(Some(&pod), &ended, &with_image(&pod), 99).action, Some(release), "R-WRK-2");
    let mut released = with_image(&pod);
    released.set_stopped(sandbox.id.clone());
    assert_eq!(next(Some(&pod), &ended, &released, 99), Plan::default(), "R-RSP-1");
    let mut lost = sandbox;
    lost.state = SandboxState::NotReady { reason: "reboot".to_owned() };
    let rebooted = view(vec![lost.clone()], vec![container(&pod, &lost, 0, exited(0, 5), 0)]);
    let mut history = with_image(&pod);
    history.set_stopped(lost.id);
    assert_eq!(next(Some(&pod), &rebooted, &history, 99), Plan::default(), "R-SYNC-6");
}

// R-SYNC-5, R-SYNC-13, R-RST-7, R-GC-2.
#[test]
fn a_lost_sandbox_is_emptied_released_and_replaced() {
    let pod = pod("a:1");
    let lost = sandbox(&pod, 0, SandboxState::NotReady { reason: "unmounted".to_owned() });
    let survivor = container(&pod, &lost, 2, running(), 10);
    let stop = Action::StopContainers { backend: "own".to_owned(), stops: vec![stop_of(&survivor)] };
    let mut history = with_image(&pod);
    let alive = view(vec![lost.clone()], vec![survivor]);
    assert_eq!(next(Some(&pod), &alive, &history, 0).action, Some(stop), "I1");
    let emptied = view(vec![lost.clone()], vec![container(&pod, &lost, 2, exited(137, 1), 10)]);
    let release = Action::StopSandbox { backend: "own".to_owned(), id: lost.id.clone() };
    assert_eq!(next(Some(&pod), &emptied, &history, 1).action, Some(release));
    history.set_stopped(lost.id.clone());
    let make = Action::CreateSandbox { revision: pod.revision.clone(), attempt: 1, started_at: start().into() };
    assert_eq!(next(Some(&pod), &emptied, &history, 1).action, Some(make));
    let fresh = sandbox(&pod, 1, SandboxState::Ready);
    let dead = container(&pod, &lost, 2, exited(137, 1), 10);
    let made = view(vec![lost.clone(), fresh.clone()], vec![dead.clone()]);
    assert_eq!(next(Some(&pod), &made, &history, 1).action, run(&pod, &fresh, 3, 20), "at once, the count goes on");
    let up = view(vec![lost.clone(), fresh.clone()], vec![dead, container(&pod, &fresh, 3, running(), 20)]);
    let sweep = Action::RemoveSandbox { backend: "own".to_owned(), id: lost.id };
    assert_eq!(next(Some(&pod), &up, &history, 2).action, Some(sweep));
}

// R-WRK-8, R-CHG-5.
#[test]
fn an_update_waits_for_its_image_then_stops_the_old_before_the_new() {
    let (old, new) = (pod("a:1"), pod("a:2"));
    let old_sandbox = sandbox(&old, 0, SandboxState::Ready);
    let alive = view(vec![old_sandbox.clone()], vec![container(&old, &old_sandbox, 0, running(), 0)]);
    let wanted =
        Wanted { pod: Some(&new), running: Some(running_on_own(&old)), since: start().into(), shutdown_in: None };
    let mut history = History::default();
    let images = Action::EnsureImages { revision: new.revision.clone(), images: vec![of("app")] };
    assert_eq!(planned(wanted, &alive, &history, 0).action, Some(images), "images first");
    let failure = Failure::after(None, Reason::ErrImagePull, String::new(), ErrorKind::NotFound, None, moment(0));
    history.set_image(&new.revision, of("app"), ImageState::Failed(failure));
    let waiting = planned(wanted, &alive, &history, 0);
    assert_eq!((waiting.action, waiting.wake_at), (None, Some(moment(10))), "the old pod runs on");
    history.set_image(&new.revision, of("app"), ImageState::Ready);
    let stopping = planned(wanted, &alive, &history, 0).action;
    assert!(matches!(stopping, Some(Action::StopContainers { .. })), "{stopping:?}");
}

// R-WRK-8.
#[test]
fn the_old_revision_is_kept_running_while_the_new_image_is_missing() {
    let (old, new) = (pod("a:1"), pod("a:2"));
    let old_sandbox = sandbox(&old, 0, SandboxState::Ready);
    let other = ContainerInfo {
        name: "other".to_owned(),
        id: "other".into(),
        ..container(&old, &old_sandbox, 0, running(), 0)
    };
    let crashed = view(vec![old_sandbox.clone()], vec![other, container(&old, &old_sandbox, 0, exited(1, 1), 0)]);
    let mut history = with_image(&old);
    history.set_image(&new.revision, of("app"), ImageState::Pulling(None));
    let wanted =
        Wanted { pod: Some(&new), running: Some(running_on_own(&old)), since: start().into(), shutdown_in: None };
    assert_eq!(planned(wanted, &crashed, &history, 1).action, run(&old, &old_sandbox, 1, 10));
}

// R-WRK-1, R-CHG-6, R-GC-1.
#[test]
fn a_pod_that_is_not_wanted_goes_step_by_step() {
    let pod = pod("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let alive = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, running(), 0)]);
    let stop = next(None, &alive, &History::default(), 0).action;
    assert!(matches!(stop, Some(Action::StopContainers { ref stops, .. }) if stops[0].grace.as_secs() == 7), "I5");
    let dead = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, exited(0, 0), 0)]);
    let remove = Action::RemoveSandbox { backend: "own".to_owned(), id: sandbox.id };
    assert_eq!(next(None, &dead, &History::default(), 0).action, Some(remove));
    assert_eq!(next(None, &view(vec![], vec![]), &History::default(), 0).action, Some(Action::CleanUp));
}

#[test]
fn a_pod_is_stopped_elsewhere_before_it_runs_on_its_own() {
    let pod = pod("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let mut view = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, running(), 0)]);
    view.backend = "new".to_owned();
    let stop = next(Some(&pod), &view, &with_image(&pod), 0).action;
    assert!(matches!(stop, Some(Action::StopContainers { ref backend, .. }) if backend == "own"), "I1: {stop:?}");
}

// R-RSP-3, R-LOOP-8.
#[test]
fn a_created_container_is_started_and_an_old_one_removed() {
    let pod = pod("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let half = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, ContainerState::Created, 0)]);
    let remove = |attempt| {
        Some(Action::RemoveContainer { backend: "own".to_owned(), id: format!("app-{attempt}").as_str().into() })
    };
    // An agent that has died may still be starting it: a removal would kill a container that runs a moment later (I3).
    let start =
        Action::StartContainer { revision: pod.revision.clone(), container: "app".to_owned(), id: "app-0".into() };
    assert_eq!(next(Some(&pod), &half, &with_image(&pod), 0).action, Some(start));
    let lost = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 0, ContainerState::Unknown, 0)]);
    assert_eq!(next(Some(&pod), &lost, &with_image(&pod), 0).action, remove(0));
    let states = [exited(1, 1), exited(1, 2), running()];
    let instances = (0..).zip(states).map(|(attempt, state)| container(&pod, &sandbox, attempt, state, 0)).collect();
    let old = view(vec![sandbox], instances);
    assert_eq!(next(Some(&pod), &old, &with_image(&pod), 2).action, remove(0), "R-GC-1: one dead instance is kept");
}

#[test]
fn a_user_can_restart_without_waiting() {
    let pod = pod("a:1");
    let sandbox = sandbox(&pod, 0, SandboxState::Ready);
    let mut history = with_image(&pod);
    history.restart_container("app-4".into());
    let alive = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 4, running(), 300)]);
    assert!(matches!(next(Some(&pod), &alive, &history, 0).action, Some(Action::StopContainers { .. })));
    let dead = view(vec![sandbox.clone()], vec![container(&pod, &sandbox, 4, exited(143, 1), 300)]);
    assert_eq!(next(Some(&pod), &dead, &history, 1).action, run(&pod, &sandbox, 5, 300));
}

/// Returns a pod with init containers `first`, `side` (a sidecar) and `second`, and the container `app`.
fn with_inits(policy: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  restartPolicy: {policy}\n  initContainers:\n  - \
         {{name: first, image: a}}\n  - {{name: side, image: a, restartPolicy: Always, startupProbe: {{exec: {{command: \
         [x]}}}}}}\n  - {{name: second, image: a}}\n  containers:\n  - {{name: app, image: a}}\n"
    );
    let manifest = stanchion_pod::decode(text.as_bytes(), "node").expect("the manifest is good");
    manifest.pods.into_iter().next().expect("it has one pod")
}

fn named(pod: &Pod, sandbox: &SandboxInfo, name: &str, state: ContainerState) -> ContainerInfo {
    let id = format!("{name}-0").as_str().into();
    ContainerInfo { id, name: name.to_owned(), ..container(pod, sandbox, 0, state, 0) }
}

/// Returns a history in which all images are present.
fn with_images(pod: &Pod) -> History {
    let mut history = History::default();
    pod.all_containers().for_each(|it| history.set_image(&pod.revision, of(&it.name), ImageState::Ready));
    history
}

/// Containers by name, with their states.
type Containers<'a> = &'a [(&'a str, ContainerState)];

/// Returns the next step for these containers: the name of the container to run, or the action as text.
fn doing(pod: &Pod, history: &History, containers: Containers<'_>) -> String {
    let sandbox = sandbox(pod, 0, SandboxState::Ready);
    let infos = containers.iter().map(|(name, state)| named(pod, &sandbox, name, state.clone())).collect();
    match next(Some(pod), &view(vec![sandbox], infos), history, 5).action {
        None => "nothing".to_owned(),
        Some(Action::RunContainer(run)) => run.container,
        Some(Action::StopContainers { stops, .. }) => format!("stop {}", stops[0].id),
        Some(other) => format!("{other:?}").split(' ').next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn containers_start_in_order() {
    let (ok, bad) = (exited(0, 5), exited(1, 5));
    let up = [("first", ok.clone()), ("side", running())];
    let done = [up[0].clone(), up[1].clone(), ("second", ok.clone())];
    let all = [done[0].clone(), done[1].clone(), done[2].clone(), ("app", running())];
    let side_died = [done[0].clone(), ("side", bad.clone()), done[2].clone(), ("app", running())];
    // Columns: the sidecar has started, existing containers, next step. R-INIT-1, R-INIT-2, R-INIT-4, R-INIT-6.
    let table: &[(bool, Containers<'_>, &str)] = &[
        (false, &[], "first"),
        (false, &[("first", running())], "nothing"),
        (false, &[("first", bad)], "first"),
        (false, &[("first", ok)], "side"),
        (false, &up, "nothing"),
        (true, &up, "second"),
        (true, &done, "app"),
        (true, &done[1..], "app"),
        (true, &all, "nothing"),
        (true, &all[3..], "side"),
        (true, &side_died, "side"),
    ];
    let pod = with_inits("Always");
    for (is_started, containers, expected) in table {
        let mut history = with_images(&pod);
        history.set_lifecycle(
            "side-0".into(),
            LifecycleState { startup: is_started.then_some(true), ..LifecycleState::default() },
        );
        assert_eq!(doing(&pod, &history, containers), *expected, "{is_started} {containers:?}");
    }
}

#[test]
fn a_pod_is_over_when_nothing_of_it_is_to_run() {
    let (ok, bad) = (exited(0, 5), exited(1, 5));
    // R-PH-1, R-PH-4, R-INIT-3, R-INIT-7.
    let table: &[(&str, Containers<'_>, PodOutcome)] = &[
        ("Never", &[("first", bad.clone())], PodOutcome::Failed),
        ("OnFailure", &[("first", bad.clone())], PodOutcome::Active),
        ("Never", &[("first", ok.clone())], PodOutcome::Active),
        ("Never", &[("side", running()), ("app", ok.clone())], PodOutcome::Succeeded),
        ("Never", &[("side", running()), ("app", bad.clone())], PodOutcome::Failed),
        ("OnFailure", &[("app", ok.clone())], PodOutcome::Succeeded),
        ("OnFailure", &[("app", bad)], PodOutcome::Active),
        ("Always", &[("app", ok)], PodOutcome::Active),
        ("Always", &[("app", running())], PodOutcome::Active),
    ];
    for (policy, containers, expected) in table {
        let pod = with_inits(policy);
        let sandbox = sandbox(&pod, 0, SandboxState::Ready);
        let infos = containers.iter().map(|(name, state)| named(&pod, &sandbox, name, state.clone())).collect();
        let view = view(vec![sandbox], infos);
        let found = PodOutcome::of(&pod, &view, &with_times_of(&view, &with_images(&pod)), start().into(), moment(9));
        assert_eq!(found, *expected, "{policy} {containers:?}");
        // R-ADL-1, R-PH-6: the deadline ends an active pod, but not one that has ended before.
        let timed = Pod { active_deadline: Some(Duration::from_secs(7)), ..pod };
        let expected = if *expected == PodOutcome::Active { PodOutcome::DeadlineExceeded } else { *expected };
        assert_eq!(
            PodOutcome::of(&timed, &view, &with_times_of(&view, &with_images(&timed)), start().into(), moment(9)),
            expected,
            "{policy} {containers:?}"
        );
    }
}

#[test]
fn what_probes_and_hooks_give_up_is_stopped() {
    let pod = with_inits("Always");
    let all = [("side", running()), ("app", running())];
    let started = LifecycleState { startup: Some(true), ..LifecycleState::default() };
    let table = [
        (started.clone(), "nothing"),
        (LifecycleState { startup: Some(false), ..LifecycleState::default() }, "stop side-0"),
        (LifecycleState { hook: HookState::Failed(String::new()), ..started }, "stop side-0"),
    ];
    for (state, expected) in table {
        let mut history = with_images(&pod);
        history.set_lifecycle("side-0".into(), state);
        assert_eq!(doing(&pod, &history, &all), expected, "R-PRB-10, R-HOOK-1, R-INIT-10");
    }
}

#[test]
fn what_is_known_of_images_is_of_one_revision_and_ends_with_it() {
    let (old, new) = (pod("app:1"), pod("app:2"));
    let of = ImageFor::Container("app".to_owned());
    let failure = Failure::without_wait(Reason::ErrImagePull, "none".to_owned(), Instant::now());
    let mut history = History::default();
    history.set_pulled(&new.revision, "app", true);
    assert!(!history.take_pulled(&old.revision, "app"), "the old revision's restart takes the image that was there");
    assert!(
        history.mark_waiting_for_image(&new.revision, &of, &failure)
            && history.mark_waiting_for_image(&old.revision, &of, &failure)
    );
    history.keep_images(&[&new.revision]);
    assert!(history.take_pulled(&new.revision, "app"));
    assert!(!history.mark_waiting_for_image(&new.revision, &of, &failure), "it is known");
    history.set_pulled(&new.revision, "app", true);
    history.keep_images(&[&old.revision]);
    assert!(!history.take_pulled(&new.revision, "app"), "its revision has ended");
    assert!(history.mark_waiting_for_image(&new.revision, &of, &failure));
}
