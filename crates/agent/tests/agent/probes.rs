//! Probes and their effects (static-pods.md, 5).

use std::time::Duration;

use stanchion_runtime::{
    ErrorKind,
    testing::{Fault, Method, Program, When},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use crate::{manifest::raw, node::Node};

const SECOND: Duration = Duration::from_secs(1);

fn probed(probes: &str) -> String {
    let probes: String = probes.lines().map(|line| format!("  {line}\n")).collect();
    raw("web", &format!("terminationGracePeriodSeconds: 25\ncontainers:\n- name: app\n  image: app:1\n{probes}"))
}

fn says(node: &Node, command: &str, code: i32) {
    node.fake().exec_answer("app", &[command], code, "so it is\n");
}

fn is_ready(node: &Node) -> bool {
    node.condition("web", "Ready").is_some_and(|it| it.0 == "True")
}

// R-LOOP-2.
#[tokio::test(start_paused = true)]
async fn readiness_needs_its_thresholds_both_ways() {
    let mut node = Node::new();
    says(&node, "ready", 0);
    node.write(
        "web.yaml",
        &probed(
            "readinessProbe: {exec: {command: [ready]}, periodSeconds: 4, successThreshold: 2, failureThreshold: 3}",
        ),
    );
    let origin = Instant::now();
    node.start();
    node.patiently("the start", node.fake().until_running("app")).await;
    node.shows("web Running", |node| node.state("web", "app") == "Running").await;
    assert!(!is_ready(&node), "R-PRB-2");
    assert_eq!(node.container("web", "app").started, Some(true), "R-PRB-6");
    let message = node.condition("web", "ContainersReady").expect("R-CND-1").2;
    assert_eq!(message, "containers with unready status: [app]", "R-CND-5");
    node.shows("web Ready", is_ready).await;
    assert_eq!(origin.elapsed().as_secs(), 4, "R-PRB-4, R-PRB-7: at once and after a period");
    says(&node, "ready", 1);
    node.shows("web unready", |node| !is_ready(node)).await;
    assert_eq!(origin.elapsed().as_secs(), 16, "R-PRB-7");
    let event = node.events("Unhealthy").pop().expect("R-PRB-12");
    assert_eq!((&*event.message, event.count), ("Readiness probe failed: so it is\n", 3), "R-PRB-32");
    assert_eq!(node.fake().count(Method::StopContainer), 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_kept_over_a_restart_of_the_agent() {
    let mut node = Node::new();
    says(&node, "ready", 0);
    node.write("web.yaml", &probed("readinessProbe: {exec: {command: [ready]}, periodSeconds: 20}"));
    node.start();
    node.shows("web Ready", is_ready).await;
    node.restart().await;
    node.shows("the pod", |node| node.state("web", "app") == "Running").await;
    assert!(is_ready(&node), "R-RST-4");
    says(&node, "ready", 1);
    node.shows("web unready", |node| !is_ready(node)).await;
}

// R-PRB-8.
#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_the_container_with_its_own_grace() {
    for (grace, takes) in [("", 25), (", terminationGracePeriodSeconds: 3", 3)] {
        let mut node = Node::new();
        node.fake().program("app", Program::stubborn());
        says(&node, "live", 0);
        let probe = format!(
            "livenessProbe: {{exec: {{command: [live]}}, initialDelaySeconds: 5, periodSeconds: 1, failureThreshold: \
             2{grace}}}"
        );
        node.write("web.yaml", &probed(&probe));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        tokio::time::sleep(4 * SECOND).await;
        assert_eq!(node.commands().len(), 0, "R-PRB-5");
        tokio::time::sleep(6 * SECOND).await;
        says(&node, "live", 1);
        let (bad, first) = (Instant::now(), node.app("web").expect("it runs"));
        node.shows("a restart", |node| node.container("web", "app").restart_count == 1).await;
        let took = bad.elapsed().as_secs();
        assert!((takes + 1..=takes + 2).contains(&took), "R-TERM-2, R-PRB-7: {took} s");
        let event = node.events("Killing").pop().expect("R-PRB-10");
        assert_eq!(event.message, "Container app failed liveness probe, will be restarted");
        assert_ne!(node.fake().container("app").expect("it runs").id, first.id);
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_probes_wait_for_the_startup_probe_and_a_started_container_stays_started() {
    let probes = "startupProbe: {exec: {command: [up]}, periodSeconds: 1, failureThreshold: 30}\nlivenessProbe: {exec: \
                  {command: [live]}, periodSeconds: 1, failureThreshold: 1}\nreadinessProbe: {exec: {command: [ready]}, \
                  periodSeconds: 1}";
    let mut node = Node::new();
    says(&node, "up", 1);
    says(&node, "live", 0);
    says(&node, "ready", 0);
    node.write("web.yaml", &probed(probes));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    tokio::time::sleep(10 * SECOND).await;
    assert!(node.commands().iter().all(|command| command == "up"), "R-PRB-6");
    assert_eq!(node.container("web", "app").started, Some(false), "R-CS-7");
    says(&node, "up", 0);
    node.shows("web Ready", is_ready).await;
    assert_eq!(node.container("web", "app").started, Some(true), "R-CS-7");
    let asked = |node: &Node| node.commands().iter().filter(|command| *command == "up").count();
    let before = asked(&node);
    tokio::time::sleep(10 * SECOND).await;
    says(&node, "up", 1);
    node.restart().await;
    node.settle().await;
    assert_eq!(asked(&node), before, "R-PRB-6, I3: it has started");
    assert!(is_ready(&node));
    assert_eq!(node.fake().count(Method::StopContainer), 0, "I3");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_start_up_is_stopped() {
    let mut node = Node::new();
    says(&node, "up", 1);
    let probes = "startupProbe: {exec: {command: [up]}, periodSeconds: 1, failureThreshold: 3, initialDelaySeconds: 1}";
    node.write("web.yaml", &format!("{}  restartPolicy: Never\n", probed(probes)));
    node.start();
    node.shows("web Failed", |node| node.status("web").phase.as_deref() == Some("Failed")).await;
    let event = node.events("Killing").pop().expect("R-PRB-10");
    assert_eq!(event.message, "Container app failed startup probe");
    assert_eq!(node.commands().len(), 3);
}

// R-PRB-1.
#[tokio::test(start_paused = true)]
async fn a_sidecar_holds_the_next_back_until_it_has_started() {
    let spec = "
initContainers:
- {name: proxy, image: app:1, restartPolicy: Always, startupProbe: {exec: {command: [up]}, periodSeconds: 1}}
containers:
- {name: app, image: app:2}
";
    let mut node = Node::new();
    node.fake().exec_answer("proxy", &["up"], 1, "");
    node.write("web.yaml", &raw("web", spec));
    let origin = Instant::now();
    node.start();
    node.patiently("the sidecar", node.fake().until_running("proxy")).await;
    tokio::time::sleep(5 * SECOND / 2).await;
    node.fake().exec_answer("proxy", &["up"], 0, "");
    node.runs(&[("web", &[("app", "app:2"), ("proxy", "app:1")])]).await;
    let starts = node.starts(origin);
    assert_eq!(starts[0].0, "proxy", "R-INIT-2");
    assert!(starts[1].1 >= 2, "R-INIT-2: {starts:?}");
    assert!(node.container("web", "proxy").ready);
}

#[tokio::test(start_paused = true)]
async fn a_probe_on_a_hung_runtime_times_out_and_delays_its_own_pod_only() {
    let mut node = Node::new();
    says(&node, "live", 0);
    let _hung = node.fake().hang(Method::Exec, When::Always);
    node.write(
        "web.yaml",
        &probed("livenessProbe: {exec: {command: [live]}, timeoutSeconds: 2, periodSeconds: 5, failureThreshold: 1}"),
    );
    node.write("other.yaml", &crate::manifest::pod("other", "app:2"));
    node.start();
    node.shows("other Running", |node| node.status("other").phase.as_deref() == Some("Running")).await;
    node.shows("a restart", |node| node.container("web", "app").restart_count == 1).await;
    let event = node.events("Unhealthy").pop().expect("R-PRB-32");
    assert!(event.message.contains("timed out after 2s"), "{}", event.message);
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_asked_whether_it_is_ready_and_not_whether_it_lives() {
    let mut node = Node::new();
    node.fake().program("app", Program::stops_in(10 * SECOND, 0));
    says(&node, "live", 0);
    says(&node, "ready", 0);
    let probes = "livenessProbe: {exec: {command: [live]}, periodSeconds: 1}\nreadinessProbe: {exec: {command: [ready]}, \
                  periodSeconds: 1, failureThreshold: 1}";
    node.write("web.yaml", &probed(probes));
    node.start();
    node.shows("web Ready", is_ready).await;
    tokio::time::sleep(5 * SECOND).await;
    node.remove("web.yaml");
    until(&node, |node| !node.events("Killing").is_empty()).await;
    let asked = |node: &Node, what: &str| node.commands().iter().filter(|command| *command == what).count();
    let before = (asked(&node, "live"), asked(&node, "ready"));
    says(&node, "ready", 1);
    tokio::time::sleep(5 * SECOND).await;
    let after = (asked(&node, "live"), asked(&node, "ready"));
    assert!(before.0 >= 4 && after.0 <= before.0 + 1 && after.1 >= before.1 + 4, "R-TERM-5: {before:?}, {after:?}");
    assert!(!is_ready(&node), "R-TERM-5");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_run_is_not_asked_and_counting_begins_anew() {
    let mut node = Node::new();
    node.fake().program("app", Program::exits(10 * SECOND, 1));
    says(&node, "ready", 1);
    node.write("web.yaml", &probed("readinessProbe: {exec: {command: [ready]}, periodSeconds: 1}"));
    let origin = Instant::now();
    node.start();
    // The container runs from 0 to 10 s and, restarted at once, until 20 s; then it waits until 30 s.
    node.shows("the back-off", |node| node.state("web", "app") == "CrashLoopBackOff").await;
    let asked = node.commands().len();
    assert!((18..=22).contains(&asked), "R-PRB-8: {asked} times in {:?}", origin.elapsed());
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(node.commands().len(), asked, "R-PRB-9");
    assert!(!node.container("web", "app").ready, "R-PRB-9, R-CS-6");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_cannot_be_put_says_nothing_of_the_container() {
    let mut node = Node::new();
    says(&node, "live", 0);
    says(&node, "ready", 0);
    let probes = "livenessProbe: {exec: {command: [live]}, periodSeconds: 10, failureThreshold: 1}\nreadinessProbe: {exec: \
                  {command: [ready]}, periodSeconds: 10, failureThreshold: 1}";
    node.write("web.yaml", &probed(probes));
    node.start();
    node.shows("web Ready", is_ready).await;
    node.fake().fault(Method::Exec, When::Always, Fault::fail(ErrorKind::Other));
    tokio::time::sleep(95 * SECOND).await;
    assert!(is_ready(&node), "R-PRB-11");
    assert_eq!(node.fake().count(Method::StopContainer), 0, "R-PRB-11");
    let said =
        node.events("Unhealthy").iter().any(|it| it.message.contains("probe errored and resulted in unknown state"));
    assert!(said, "R-PRB-12");
    let tries = node.fake().count(Method::Exec);
    assert!((54..=66).contains(&tries), "R-PRB-11: three tries a period, not {tries}");
}

#[tokio::test(start_paused = true)]
async fn of_a_long_answer_10_kib_are_told() {
    let mut node = Node::new();
    node.fake().exec_answer("app", &["ready"], 1, &"x".repeat(30_000));
    node.write("web.yaml", &probed("readinessProbe: {exec: {command: [ready]}}"));
    node.start();
    until(&node, |node| !node.events("Unhealthy").is_empty()).await;
    let length = node.events("Unhealthy")[0].message.len();
    assert!((1000..=(10 << 10) + 100).contains(&length), "R-PRB-13: {length} bytes");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_agent_probes_do_not_come_all_at_once() {
    let mut node = Node::new();
    says(&node, "ready", 0);
    for pod in 0..20 {
        let text = probed("readinessProbe: {exec: {command: [ready]}, periodSeconds: 20}");
        node.write(&format!("{pod}.yaml"), &text.replace("name: web", &format!("name: web-{pod}")));
    }
    node.start();
    node.settle().await;
    node.stop().await;
    let before = node.commands().len();
    let started = Instant::now();
    node.start();
    tokio::time::sleep(20 * SECOND).await;
    let calls = node.fake().timed_calls();
    let asked = calls.iter().filter(|(at, call)| call.method() == Method::Exec && *at >= started);
    let seconds: std::collections::BTreeSet<_> = asked.map(|(at, _)| (*at - started).as_secs()).collect();
    assert!(node.commands().len() > before && seconds.len() > 8, "R-PRB-3: {seconds:?}");
    node.settle().await;
}

/// Starts a loopback server that answers every request with `answer`; the channel receives the requests.
async fn server(answer: &'static str) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    let (tell, asked) = tokio::sync::mpsc::channel(100);
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it listens");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            tell.send(String::from_utf8_lossy(&request[..length]).into_owned()).await.ok();
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (port, asked)
}

async fn asked_over_http(answer: &'static str) -> (Node, String) {
    let (port, mut asked) = server(answer).await;
    let mut node = Node::new();
    let get = format!("host: 127.0.0.1, port: {port}, path: '/health?a=b', httpHeaders: [{{name: X-Key, value: it}}]");
    node.write(
        "web.yaml",
        &probed(&format!("readinessProbe: {{httpGet: {{{get}}}, periodSeconds: 1, timeoutSeconds: 9}}")),
    );
    node.start();
    let request = asked.recv().await.expect("it is asked");
    (node, request)
}

#[tokio::test(flavor = "local")]
async fn http_probes_ask_as_kubelet_does() {
    let (node, request) = asked_over_http("HTTP/1.1 204 No Content\r\n\r\n").await;
    let lower = request.to_lowercase();
    assert!(request.starts_with("GET /health?a=b HTTP/1.1\r\n"), "R-PRB-25: {request}");
    for header in ["user-agent: kube-probe/1.36", "accept: */*", "connection: close", "x-key: it", "host: 127.0.0.1:"] {
        assert!(lower.contains(header), "R-PRB-21: {header} is not in {request}");
    }
    assert!(!lower.contains("accept-encoding"), "R-PRB-21");
    node.shows("web Ready", is_ready).await;
}

#[tokio::test(flavor = "local")]
async fn an_http_answer_of_400_and_more_is_bad_and_a_redirect_elsewhere_good() {
    let (node, _) = asked_over_http("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let said = |text: &'static str| move |node: &Node| node.events("Unhealthy").iter().any(|it| it.message == text);
    until(&node, said("Readiness probe failed: HTTP probe failed with statuscode: 503")).await;
    assert!(!is_ready(&node), "R-PRB-22");
    let (node, _) =
        asked_over_http("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n").await;
    node.shows("web Ready", is_ready).await;
    assert!(!node.events("ProbeWarning").is_empty(), "R-PRB-23");
}

// R-PRB-30.
#[tokio::test(flavor = "local")]
async fn a_port_that_nobody_listens_on_is_not_ready() {
    let mut node = Node::new();
    node.write("web.yaml", &probed("readinessProbe: {tcpSocket: {host: 127.0.0.1, port: 1}, periodSeconds: 1}"));
    node.start();
    let text = "Readiness probe failed: dial tcp 127.0.0.1:1: connect: connection refused";
    until(&node, |node| node.events("Unhealthy").iter().any(|it| it.message == text)).await;
    let (port, _asked) = server("").await;
    node.write("web.yaml", &probed(&format!("readinessProbe: {{tcpSocket: {{host: 127.0.0.1, port: {port}}}}}")));
    node.shows("web Ready", is_ready).await;
}

/// Waits until `holds` is true, and tests it again after each event.
async fn until(node: &Node, holds: impl Fn(&Node) -> bool) {
    let mut changes = node.handle().events.watch();
    while !holds(node) {
        changes.changed().await.expect("the log outlives its readers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_readiness_gate_is_never_open_on_a_lone_node() {
    let mut node = Node::new();
    let gates = "readinessGates: [{conditionType: example.com/lb}]\ncontainers: [{name: app, image: app:1}]";
    node.write("web.yaml", &raw("web", gates));
    node.start();
    node.shows("ready containers", |node| node.condition("web", "ContainersReady").is_some_and(|it| it.0 == "True"))
        .await;
    let (status, reason, message) = node.condition("web", "Ready").expect("R-CND-6");
    assert_eq!((&*status, &*reason), ("False", "ReadinessGatesNotReady"), "R-CND-6");
    assert_eq!(message, "corresponding condition of pod readiness gate \"example.com/lb\" does not exist.", "R-CND-6");
    let warnings = node.file("web.yaml").expect("it is read").warnings;
    assert!(warnings.iter().any(|it| it.field == "spec.readinessGates"), "R-CND-6: {warnings:?}");
}
