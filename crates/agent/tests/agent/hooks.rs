//! Lifecycle hooks: `postStart` and `preStop` (static-pods.md, 4.7).

use std::time::Duration;

use stanchion_runtime::{
    ContainerState,
    testing::{Method, Program},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::Instant,
};

use crate::{
    manifest::raw,
    node::{Node, name_of},
};

const SECOND: Duration = Duration::from_secs(1);

fn with_hook(kind: &str, command: &str) -> String {
    let hook = format!("{kind}: {{exec: {{command: [sh, -c, '{command}']}}}}");
    raw(
        "web",
        &format!(
            "terminationGracePeriodSeconds: 10\ncontainers:\n- name: app\n  image: app:1\n  lifecycle: {{{hook}}}\n- \
             {{name: next, image: app:2}}\n"
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_keeps_the_next_container_waiting() {
    let mut node = Node::new();
    node.write("web.yaml", &with_hook("postStart", "sleep 5"));
    let origin = Instant::now();
    node.start();
    node.patiently("the hook", node.fake().until_running("app")).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(node.state("web", "app"), "ContainerCreating", "R-HOOK-4");
    assert_eq!((node.container("web", "app").started, node.container("web", "app").ready), (Some(false), false));
    node.runs(&[("web", &[("app", "app:1"), ("next", "app:2")])]).await;
    assert_eq!(node.starts(origin), [("app".to_owned(), 0), ("next".to_owned(), 5)], "R-HOOK-1");
    assert_eq!(node.state("web", "app"), "Running");
    // A restarted agent does not run the hook again.
    node.restart().await;
    node.settle().await;
    assert_eq!(node.commands().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_ends_the_container() {
    let mut node = Node::new();
    node.write("web.yaml", &with_hook("postStart", "echo out; exit 3"));
    node.start();
    node.shows("the failure", |node| node.state("web", "app") == "PostStartHookError").await;
    let waiting = node.container("web", "app").state.and_then(|state| state.waiting).and_then(|it| it.message);
    let message = waiting.unwrap_or_default();
    assert!(message.contains("exited with 3") && message.contains("out"), "{message}");
    assert!(!node.events("FailedPostStartHook").is_empty(), "R-HOOK-1");
    tokio::time::sleep(15 * SECOND).await;
    let attempt = node.fake().container("app").expect("it was started").attempt;
    assert_eq!(attempt, 2, "R-BCK-1: at once, then after 10 s");
    assert_eq!(node.container("web", "next").restart_count, 0);
    assert_eq!(node.state("web", "next"), "Running", "R-SYNC-7: it does not stop the others");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_an_agent_died_in_runs_once_more_and_kills_nothing() {
    for (command, code) in [("sleep 5", 0), ("sleep 5; exit 1", 1)] {
        let mut node = Node::new();
        node.write("web.yaml", &with_hook("postStart", command));
        node.start();
        let app = node.patiently("the start", node.fake().until_running("app")).await;
        tokio::time::sleep(SECOND).await;
        node.restart().await;
        node.runs(&[("web", &[("app", "app:1"), ("next", "app:2")])]).await;
        assert_eq!(node.commands().len(), 2, "code {code}");
        node.settle().await;
        let now = node.app("web").expect("it runs");
        assert_eq!(now.id, app.id, "I3: code {code}");
        assert_eq!(node.fake().count(Method::StopContainer), 0, "I3: code {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_never_ends_does_not_keep_the_pod_from_going() {
    let mut node = Node::new();
    node.write("web.yaml", &with_hook("postStart", "sleep 100000"));
    node.start();
    node.patiently("the start", node.fake().until_running("app")).await;
    node.remove("web.yaml");
    let removed = Instant::now();
    node.is_empty().await;
    assert!(removed.elapsed() < 60 * SECOND, "R-HOOK-4: {:?}", removed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_runs_before_the_signal_within_the_grace() {
    // The hook's command, the seconds until the stop signal, and the grace period that is left then: never less than
    // two seconds.
    let table = [("sleep 3", 3, 7), ("exit 1", 0, 10), ("sleep 100", 10, 2)];
    for (command, signal, left) in table {
        let mut node = Node::new();
        node.fake().program("app", Program::stubborn());
        node.write("web.yaml", &with_hook("preStop", command));
        node.start();
        node.runs(&[("web", &[("app", "app:1"), ("next", "app:2")])]).await;
        // R-RST-2: an agent that never saw the manifest runs the hook too.
        node.stop().await;
        node.remove("web.yaml");
        let removed = Instant::now();
        node.start();
        node.is_empty().await;
        let stops = node.stops(removed);
        assert!(stops.contains(&("next".to_owned(), 0)), "R-TERM-1: {stops:?}");
        assert!(stops.contains(&("app".to_owned(), signal)), "R-HOOK-2: {command}: {stops:?}");
        let calls = node.fake().timed_calls().into_iter();
        let graces: Vec<_> = calls
            .filter_map(|(_, call)| match call {
                stanchion_runtime::testing::Call::StopContainer(id, grace) => Some((name_of(&id), grace)),
                _ => None,
            })
            .collect();
        assert!(graces.contains(&("app".to_owned(), left * SECOND)), "R-HOOK-2: {command}: {graces:?}");
        let failed = node.events("FailedPreStopHook").len();
        assert_eq!(failed, usize::from(command != "sleep 3"), "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn sleep_waits_and_a_dead_container_has_no_hook() {
    let spec = "
containers:
- {name: app, image: app:1, lifecycle: {preStop: {sleep: {seconds: 3}}, postStart: {sleep: {seconds: 2}}}}
- {name: dead, image: app:1, lifecycle: {preStop: {exec: {command: [never]}}}, restartPolicy: Never}
";
    let mut node = Node::new();
    node.fake().program("dead", Program::exits(SECOND, 0));
    node.write("web.yaml", &raw("web", spec));
    let origin = Instant::now();
    node.start();
    node.shows("the end of dead", |node| node.state("web", "dead") == "Completed 0").await;
    assert_eq!(node.starts(origin), [("app".to_owned(), 0), ("dead".to_owned(), 2)], "R-HOOK-6");
    node.remove("web.yaml");
    let removed = Instant::now();
    node.is_empty().await;
    assert_eq!(node.stops(removed), [("app".to_owned(), 3)], "R-HOOK-6");
    assert_eq!(node.commands(), [""; 0], "R-HOOK-3");
}

#[tokio::test(start_paused = true)]
async fn a_tcp_hook_always_fails_as_in_kubernetes() {
    let spec = "containers: [{name: app, image: app:1, lifecycle: {postStart: {tcpSocket: {port: 80}}}}]";
    let mut node = Node::new();
    node.write("web.yaml", &raw("web", spec));
    node.start();
    node.shows("the failure", |node| node.state("web", "app") == "PostStartHookError").await;
    let warnings = node.file("web.yaml").expect("it is read").warnings;
    assert!(warnings.iter().any(|it| it.field.ends_with("postStart.tcpSocket")), "R-HOOK-7: {warnings:?}");
    let app = node.fake().container("app").expect("it was started");
    assert!(matches!(app.state, ContainerState::Exited { .. } | ContainerState::Running { .. }));
}

/// Starts a plain HTTP server. It answers a TLS handshake with status 400, as such servers do, and `GET /stop` with
/// status 500.
async fn plain_server() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it listens");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let answer = match request[..length].starts_with(b"GET /stop ") {
                true => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                false => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (port, server)
}

#[tokio::test(start_paused = true)]
async fn an_http_hook_takes_any_answer_and_goes_back_from_tls() {
    let (port, _server) = plain_server().await;
    for (scheme, fallbacks) in [("HTTP", 0), ("HTTPS", 1)] {
        let mut node = Node::new();
        let get = format!("{{host: 127.0.0.1, port: admin, path: /stop, scheme: {scheme}}}");
        let spec = format!(
            "containers:\n- name: app\n  image: app:1\n  ports: [{{name: admin, containerPort: {port}}}]\n  lifecycle: \
             {{postStart: {{httpGet: {get}}}}}\n"
        );
        node.write("web.yaml", &raw("web", &spec));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        node.shows("the end of the hook", |node| node.state("web", "app") == "Running").await;
        assert!(node.events("FailedPostStartHook").is_empty(), "R-HOOK-5: {scheme}: {node:?}");
        assert_eq!(node.events("LifecycleHTTPFallback").len(), fallbacks, "R-HOOK-5: {scheme}");
    }
}
