//! Tests of FakeRuntime: it follows its fault script, on tokio's clock, and detects violations of the agent.

#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::time::Duration;

use futures_util::StreamExt;
use stanchion_runtime::{
    ContainerConfig, ContainerId, ContainerState, ErrorKind, Event, EventKind, Progress, PullImage, RegistryAuth,
    Runtime, SandboxConfig, SandboxId, SandboxState,
    testing::{Call, FakeRuntime, Fault, Method, Program, TermAction, Violation, When},
};
use tokio::time::Instant;

const IMAGE: &str = "registry.test/app:1";

fn sandbox(name: &str, uid: &str) -> SandboxConfig {
    SandboxConfig {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        uid: uid.to_owned(),
        hostname: name.to_owned(),
        cgroup: format!("pod{uid}"),
        ..Default::default()
    }
}

fn container(sandbox: &SandboxId, name: &str, attempt: u32) -> ContainerConfig {
    let image = IMAGE.to_owned();
    ContainerConfig { sandbox: sandbox.clone(), name: name.to_owned(), attempt, image, ..Default::default() }
}

/// Creates a pod `web-n1` with a running container `app`.
async fn running(fake: &FakeRuntime) -> (SandboxId, ContainerId) {
    fake.add_image(IMAGE, 10);
    let sandbox = fake.create_sandbox(sandbox("web-n1", "u1")).await.expect("sandbox").id;
    let id = fake.create_container(container(&sandbox, "app", 0)).await.expect("container");
    fake.start_container(id.clone()).await.expect("start");
    (sandbox, id)
}

fn state(fake: &FakeRuntime, id: &ContainerId) -> ContainerState {
    let found = fake.inventory().containers.into_iter().find(|container| container.id == *id);
    found.expect("the container is listed").state
}

fn code(fake: &FakeRuntime, id: &ContainerId) -> Option<i32> {
    match state(fake, id) {
        ContainerState::Exited { code, .. } => code,
        other => panic!("{id} should have exited but is {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_nth_call_fails_and_has_done_nothing() {
    let fake = FakeRuntime::new();
    fake.fault(Method::CreateSandbox, When::Nth(2), Fault::fail(ErrorKind::Unavailable));
    fake.create_sandbox(sandbox("a", "1")).await.expect("the first is not struck");
    let error = fake.create_sandbox(sandbox("b", "2")).await.expect_err("the second is struck");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(fake.inventory().sandboxes.len(), 1);
    fake.create_sandbox(sandbox("b", "2")).await.expect("the third is not struck");
}

#[tokio::test(start_paused = true)]
async fn an_always_fault_lasts_until_healed() {
    let fake = FakeRuntime::new();
    fake.fault(Method::List, When::Always, Fault::fail(ErrorKind::Other));
    for _ in 0..3 {
        fake.list().await.expect_err("struck");
    }
    fake.heal(Method::List);
    fake.list().await.expect("healed");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_has_done_its_work() {
    let fake = FakeRuntime::new();
    fake.fault(Method::CreateSandbox, When::Nth(1), Fault::lose_answer(ErrorKind::Crashed));
    let error = fake.create_sandbox(sandbox("a", "1")).await.expect_err("the answer is lost");
    assert_eq!(error.kind(), ErrorKind::Crashed);
    assert_eq!(fake.inventory().sandboxes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_does_nothing_until_released() {
    let fake = FakeRuntime::new();
    let hold = fake.hang(Method::CreateSandbox, When::Nth(1));
    let test = async {
        hold.reached().await;
        assert!(fake.inventory().sandboxes.is_empty());
        hold.release();
    };
    let (created, ()) = tokio::join!(fake.create_sandbox(sandbox("a", "1")), test);
    created.expect("created once released");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_after_its_work_has_done_it() {
    let fake = FakeRuntime::new();
    let hold = fake.hang_after(Method::CreateSandbox, When::Nth(1));
    let given_up = tokio::time::timeout(Duration::from_secs(5), fake.create_sandbox(sandbox("a", "1"))).await;
    assert!(given_up.is_err() && hold.is_reached());
    assert_eq!(fake.inventory().sandboxes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_slow_to_the_millisecond() {
    let fake = FakeRuntime::new();
    fake.fault(Method::List, When::Nth(1), Fault::Slow(Duration::from_millis(1234)));
    let start = Instant::now();
    fake.list().await.expect("slow, but works");
    assert_eq!(start.elapsed(), Duration::from_millis(1234));
}

#[tokio::test(start_paused = true)]
async fn calls_are_recorded_with_their_arguments() {
    let fake = FakeRuntime::new();
    fake.list().await.expect("list");
    fake.stop_sandbox("s".into()).await.expect("gone is stopped");
    assert_eq!(fake.calls(), [Call::List, Call::StopSandbox("s".into())]);
    assert_eq!(fake.actions(), [Call::StopSandbox("s".into())]);
    assert_eq!((fake.count(Method::List), fake.count(Method::Exec)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn containers_exit_with_143_when_told_and_137_when_killed() {
    let fake = FakeRuntime::new();
    let (_, id) = running(&fake).await;
    let start = Instant::now();
    fake.stop_container(id.clone(), Duration::from_secs(30)).await.expect("stop");
    assert_eq!((code(&fake, &id), start.elapsed()), (Some(143), Duration::ZERO));

    let fake = FakeRuntime::new();
    let (_, id) = running(&fake).await;
    fake.stop_container(id.clone(), Duration::ZERO).await.expect("kill");
    assert_eq!(code(&fake, &id), Some(137));
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_container_is_killed_when_its_grace_is_over() {
    let fake = FakeRuntime::new();
    fake.program("app", Program::stubborn());
    let (_, id) = running(&fake).await;
    let start = Instant::now();
    fake.stop_container(id.clone(), Duration::from_secs(30)).await.expect("stop");
    assert_eq!((code(&fake, &id), start.elapsed()), (Some(137), Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_stopper_ends_though_nobody_waits_any_more() {
    let fake = FakeRuntime::new();
    fake.program("app", Program::stops_in(Duration::from_secs(3), 0));
    let (_, id) = running(&fake).await;
    let stop = fake.stop_container(id.clone(), Duration::from_secs(30));
    tokio::time::timeout(Duration::from_secs(1), stop).await.expect_err("given up");
    let start = Instant::now();
    fake.until(|now| now.containers.iter().all(|it| matches!(it.state, ContainerState::Exited { .. }))).await;
    assert_eq!((code(&fake, &id), start.elapsed()), (Some(0), Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn a_program_exits_by_itself() {
    let fake = FakeRuntime::new();
    let on_term = TermAction::Ignore;
    fake.program("app", Program { exit: Some((Duration::from_secs(7), 3)), on_term });
    let (_, id) = running(&fake).await;
    let start = Instant::now();
    fake.until(|now| now.containers.iter().all(|it| matches!(it.state, ContainerState::Exited { .. }))).await;
    assert_eq!((code(&fake, &id), start.elapsed()), (Some(3), Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn exits_and_oom_kills_come_as_events() {
    let fake = FakeRuntime::new();
    let (_, id) = running(&fake).await;
    let mut events = Box::pin(fake.events());
    fake.oom(&id);
    fake.emit(EventKind::Unknown);
    let mut seen = Vec::new();
    while let Some(Ok(Event { kind })) = events.next().await {
        if kind == EventKind::Unknown {
            break;
        }
        seen.push(kind);
    }
    let container = id.clone();
    let exited = EventKind::Exited { container: id.clone() };
    assert_eq!(seen, [EventKind::Resync, EventKind::OutOfMemory { container }, exited]);
    assert!(matches!(state(&fake, &id), ContainerState::Exited { code: Some(137), oom_killed: true, .. }));
}

#[tokio::test(start_paused = true)]
async fn events_are_dropped_doubled_and_muted_as_told() {
    let fake = FakeRuntime::new();
    let mut events = Box::pin(fake.events());
    assert_eq!(events.next().await, Some(Ok(EventKind::Resync.into())));
    fake.drop_events(1);
    fake.create_sandbox(sandbox("dropped", "1")).await.expect("sandbox");
    fake.double_events(1);
    let doubled = fake.create_sandbox(sandbox("doubled", "2")).await.expect("sandbox").id;
    fake.mute_events(true);
    fake.create_sandbox(sandbox("muted", "3")).await.expect("sandbox");
    fake.emit(EventKind::Unknown);
    let changed = EventKind::SandboxChanged { sandbox: doubled };
    for expected in [changed.clone(), changed, EventKind::Unknown] {
        assert_eq!(events.next().await, Some(Ok(expected.into())));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_calls_and_ends_streams_but_touches_no_container() {
    let fake = FakeRuntime::new();
    let (_, id) = running(&fake).await;
    let mut events = Box::pin(fake.events());
    assert_eq!(events.next().await, Some(Ok(EventKind::Resync.into())));
    fake.set_available(false);
    assert_eq!(fake.list().await.expect_err("out").kind(), ErrorKind::Unavailable);
    let end = events.next().await.expect("the stream says why it ends");
    assert_eq!(end.expect_err("out").kind(), ErrorKind::Unavailable);
    assert_eq!(events.next().await, None);
    fake.set_available(true);
    fake.list().await.expect("back");
    assert!(matches!(state(&fake, &id), ContainerState::Running { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_during_an_outage_fails_at_once() {
    let fake = FakeRuntime::new();
    fake.set_available(false);
    let mut events = Box::pin(fake.events());
    let first = events.next().await.expect("an answer");
    assert_eq!(first.expect_err("out").kind(), ErrorKind::Unavailable);
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_keeps_its_containers_and_takes_no_new_ones() {
    let fake = FakeRuntime::new();
    let (sandbox, id) = running(&fake).await;
    fake.lose_sandbox(&sandbox, "its network namespace is gone");
    let reason = "its network namespace is gone".to_owned();
    assert_eq!(fake.inventory().sandboxes[0].state, SandboxState::NotReady { reason });
    assert!(matches!(state(&fake, &id), ContainerState::Running { .. }));
    let error = fake.create_container(container(&sandbox, "app", 1)).await.expect_err("not ready");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_reboot_leaves_records_without_exit_codes() {
    let fake = FakeRuntime::new();
    let (_, id) = running(&fake).await;
    fake.reboot();
    assert_eq!(code(&fake, &id), None);
    assert!(matches!(fake.inventory().sandboxes[0].state, SandboxState::NotReady { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_can_be_pulled_with_its_credentials() {
    let fake = FakeRuntime::new();
    let auth = RegistryAuth { username: "u".to_owned(), password: "p".to_owned(), ..RegistryAuth::default() };
    fake.publish_private(IMAGE, 100, auth.clone());
    let pull = |auth| fake.pull_image(PullImage { reference: IMAGE.to_owned(), auth }, Progress::ignored());
    assert_eq!(pull(None).await.expect_err("no credentials").kind(), ErrorKind::Permission);
    pull(Some(auth)).await.expect("with credentials");
    assert_eq!(fake.list_images().await.expect("images")[0].size, 100);
    let none = PullImage { reference: "registry.test/none:1".to_owned(), auth: None };
    assert_eq!(fake.pull_image(none, Progress::ignored()).await.expect_err("none").kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_slow_pull_takes_its_time_and_reports() {
    let fake = FakeRuntime::new();
    fake.publish_slow(IMAGE, 101, Duration::from_secs(8));
    let (sender, receiver) = std::sync::mpsc::channel();
    let progress = Progress::new(move |progress| sender.send(progress.received).expect("the test listens"));
    let start = Instant::now();
    fake.pull_image(PullImage { reference: IMAGE.to_owned(), auth: None }, progress).await.expect("pull");
    assert_eq!(start.elapsed(), Duration::from_secs(8));
    assert_eq!(receiver.into_iter().collect::<Vec<_>>(), [0, 25, 50, 75, 101]);
}

#[tokio::test(start_paused = true)]
async fn two_incarnations_of_a_pod_are_a_violation_also_across_runtimes() {
    let fake = FakeRuntime::new();
    let other = fake.beside("other", jiff::Timestamp::now);
    fake.create_sandbox(sandbox("web-n1", "u1")).await.expect("first");
    assert_eq!(fake.violations(), []);
    other.create_sandbox(sandbox("web-n1", "u2")).await.expect("second");
    let sandboxes = vec!["fake/sandbox-1".to_owned(), "other/sandbox-1".to_owned()];
    assert_eq!(fake.violations(), [Violation::TwoSandboxes { pod: "default/web-n1".to_owned(), sandboxes }]);
}

#[tokio::test(start_paused = true)]
async fn two_running_containers_of_one_name_are_a_violation() {
    let fake = FakeRuntime::new();
    let (sandbox, first) = running(&fake).await;
    let second = fake.create_container(container(&sandbox, "app", 1)).await.expect("prepared beside");
    assert_eq!(fake.violations(), []);
    fake.start_container(second.clone()).await.expect("start");
    fake.exit(&first, 0);
    let containers = vec![format!("fake/{first}"), format!("fake/{second}")];
    let expected = Violation::TwoContainers { uid: "u1".to_owned(), name: "app".to_owned(), containers };
    assert_eq!(fake.violations(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn timestamps_come_from_the_clock_given() {
    let at: jiff::Timestamp = "2026-11-23T21:15:30Z".parse().expect("a timestamp");
    let fake = FakeRuntime::with_clock(move || at);
    let (_, id) = running(&fake).await;
    assert_eq!(state(&fake, &id), ContainerState::Running { started_at: Some(at) });
}
