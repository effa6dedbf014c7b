//! I5: a stop is TERM, the grace period, KILL. I6: a removed pod leaves nothing behind.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use stanchion_agent::handle::Request;
use stanchion_runtime::{
    ContainerState,
    testing::{Call, Method, Program, When},
};
use tokio::time::Instant;

use crate::{
    manifest::pod,
    node::{Node, key},
};

async fn up(spec: &str, program: Program) -> Node {
    let mut node = Node::new();
    node.fake().program("app", program);
    node.write("web.yaml", &pod("web", "app:1").spec(spec));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_stop_signal_that_is_none_is_told() {
    for (signal, told) in [("SIGNOTHING", 1), ("99", 1), ("SIGRTMIN+3", 0), ("quit", 0)] {
        let mut node = Node::new();
        node.fake().image_stop_signal("docker.io/library/app:1", signal);
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        node.settle().await;
        let events = node.events("UnknownStopSignal");
        assert_eq!(events.len(), told, "{signal}: {events:?}");
        assert!(events.iter().all(|event| event.message.contains(&format!("{signal:?}"))), "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_has_its_grace_and_no_more() {
    let table = [
        ("terminationGracePeriodSeconds: 7", Program::stubborn(), 7, 7, Some(137)),
        ("terminationGracePeriodSeconds: 60", Program::stops_in(Duration::from_secs(20), 5), 60, 20, Some(5)),
        // R-CHG-7 raises the grace to one second, R-TERM-1 to two seconds from the stop signal on.
        ("terminationGracePeriodSeconds: 0", Program::stubborn(), 2, 2, Some(137)),
        ("restartPolicy: Always", Program::server(), 30, 0, Some(143)),
    ];
    for (spec, program, grace, takes, code) in table {
        let mut node = up(spec, program).await;
        let app = node.app("web").expect("it runs");
        // R-RST-2: an agent that never saw the manifest uses the pod's own grace.
        node.stop().await;
        node.remove("web.yaml");
        let removed = Instant::now();
        node.start();
        let ended = node
            .fake()
            .until(|now| now.containers.iter().all(|it| !matches!(it.state, ContainerState::Running { .. })));
        let inventory = node.patiently("the end", ended).await;
        let state = inventory.containers.first().map(|it| it.state.clone());
        assert!(
            matches!(&state, Some(ContainerState::Exited { code: seen, .. }) if *seen == code),
            "{spec}: {state:?}"
        );
        assert_eq!(removed.elapsed().as_secs(), takes, "I5: {spec}");
        assert!(node.fake().calls().contains(&Call::StopContainer(app.id, Duration::from_secs(grace))), "I5: {spec}");
        node.is_empty().await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_containers_of_a_pod_stop_at_once() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1").with("side", "app:2"));
    node.start();
    node.runs(&[("web", &[("app", "app:1"), ("side", "app:2")])]).await;
    // R-TERM-1: the second container is stopped while the first has not ended.
    let hold = node.fake().hang(Method::StopContainer, When::Nth(1));
    node.remove("web.yaml");
    node.patiently("the stop", hold.reached()).await;
    node.shows("the other's stop", |node| node.fake().count(Method::StopContainer) == 2).await;
    hold.release();
    node.is_empty().await;
}

// R-WRK-1, R-TERM-6.
#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_during_a_stop_finishes_it_in_its_next_life() {
    let mut node = up("terminationGracePeriodSeconds: 300", Program::stops_in(Duration::from_secs(200), 0)).await;
    node.remove("web.yaml");
    node.shows("the stop", |node| node.fake().count(Method::StopContainer) == 1).await;
    node.restart().await;
    node.is_empty().await;
}

// R-WRK-5, R-WRK-6, R-WRK-7.
#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_back_while_it_ends_starts_after_its_end() {
    for image in ["app:1", "app:2"] {
        let node = up("terminationGracePeriodSeconds: 60", Program::stops_in(Duration::from_secs(30), 0)).await;
        let before = node.app("web").expect("it runs");
        node.remove("web.yaml");
        node.shows("the stop", |node| node.fake().count(Method::StopContainer) == 1).await;
        node.write("web.yaml", &pod("web", image).spec("terminationGracePeriodSeconds: 60"));
        node.patiently(
            "the end",
            node.fake().until(|now| {
                now.containers
                    .iter()
                    .all(|it| it.id != before.id || !matches!(it.state, ContainerState::Running { .. }))
            }),
        )
        .await;
        node.runs(&[("web", &[("app", image)])]).await;
        node.check();
    }
}

// R-LOOP-1, R-CHG-1.
#[tokio::test(start_paused = true)]
async fn quick_edits_start_only_the_last() {
    let node = up("terminationGracePeriodSeconds: 60", Program::stops_in(Duration::from_secs(30), 0)).await;
    for image in ["app:2", "app:3", "app:4"] {
        node.write("web.yaml", &pod("web", image));
        node.shows("the edit", |node| node.pod("web").is_some_and(|view| view.manifest.ends_with("web.yaml"))).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    node.runs(&[("web", &[("app", "app:4")])]).await;
    let image = |call| match call {
        Call::CreateContainer(config) => Some(config.image),
        _ => None,
    };
    let created: Vec<_> = node.fake().calls().into_iter().filter_map(image).collect();
    assert_eq!(created, ["docker.io/library/app:1", "docker.io/library/app:4"], "R-WRK-6");
}

// R-WRK-4, R-CHG-6, R-LOG-11, R-DIR-2.
#[tokio::test(start_paused = true)]
async fn files_and_logs_go_with_the_pod_and_those_of_others_stay() {
    let node = up("volumes: [{name: scratch, emptyDir: {}}]", Program::server()).await;
    node.write("other.yaml", &pod("other", "app:2"));
    node.runs(&[("web", &[("app", "app:1")]), ("other", &[("app", "app:2")])]).await;
    let stranger = node.config.log_dir.join("a directory of somebody else");
    fs::create_dir_all(&stranger).expect("it can be made");
    node.write("web.yaml", &pod("web", "app:3"));
    node.runs(&[("web", &[("app", "app:3")]), ("other", &[("app", "app:2")])]).await;
    node.settle().await;
    let count = |path| fs::read_dir(path).expect("it is there").count();
    assert_eq!((count(node.config.state_dir.join("pods")), count(node.config.log_dir.clone())), (2, 3), "I6");
    assert!(stranger.exists());
    fs::remove_dir(&stranger).expect("it is there");
    node.remove("web.yaml");
    node.remove("other.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_user_restarts_a_pod_and_a_container() {
    let node = up("restartPolicy: Always", Program::server()).await;
    let before = node.app("web").expect("it runs");
    node.handle().request(Request::Restart { pod: key("web"), container: Some("app".to_owned()) }).await;
    node.patiently("another", node.fake().until(|now| now.containers.iter().any(|it| it.attempt == 1))).await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let again = node.app("web").expect("it runs");
    assert_eq!(again.sandbox, before.sandbox, "only the container");
    node.handle().request(Request::Restart { pod: key("web"), container: None }).await;
    node.patiently("another", node.fake().until(|now| now.sandboxes.iter().any(|it| it.attempt == 1))).await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_ne!(node.app("web").expect("it runs").sandbox, before.sandbox);
    let stops = node
        .fake()
        .actions()
        .iter()
        .filter(|call| matches!(call, Call::StopContainer(_, grace) if grace.as_secs() == 30))
        .count();
    assert_eq!(stops, 2, "I5: in order");
}

#[tokio::test(start_paused = true)]
async fn files_of_pods_that_are_gone_are_swept_while_another_backend_is_away() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    node.fakes[1].1.set_available(false);
    let pods = node.config.state_dir.join("pods");
    for (uid, backend, instead_of) in
        [("here", "first", None), ("there", "second", None), ("moved", "first", Some("second"))]
    {
        let instead_of = instead_of.map_or_else(String::new, |name| format!(r#""instead_of": "{name}","#));
        let record = format!(
            r#"{{"namespace": "default", "name": "old-node", "boot": "", "backend": "{backend}", {instead_of}
                "revision": "1", "manifest": ""}}"#
        );
        fs::create_dir_all(pods.join(uid)).expect("a directory");
        fs::write(pods.join(uid).join("running.json"), record).expect("a record");
        let logs = node.config.log_dir.join(format!("default_old-node_{uid}"));
        fs::create_dir_all(&logs).expect("a directory");
        symlink(logs, pods.join(uid).join("logs")).expect("a link");
    }
    fs::create_dir_all(pods.join("unknown")).expect("a directory");
    node.start();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let logs = node.config.log_dir.clone();
    let left = |directory: &Path| {
        let entries = fs::read_dir(directory).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(left(&pods), ["moved", "there", "unknown"], "what may be on the other is kept");
    assert_eq!(left(&logs), ["default_old-node_moved", "default_old-node_there"], "R-GC-3");
    node.fakes[1].1.set_available(true);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((left(&pods), left(&logs)), (Vec::new(), Vec::new()), "I6, R-GC-3");
}
