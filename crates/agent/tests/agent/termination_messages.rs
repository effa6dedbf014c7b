//! Termination messages and deadlines (static-pods.md, 4.9, 6.4).

use std::{fs, path::PathBuf, time::Duration};

use stanchion_runtime::{
    ContainerInfo,
    testing::{Method, Program},
};
use tokio::time::Instant;

use crate::{manifest::raw, node::Node};

const SECOND: Duration = Duration::from_secs(1);

fn message(node: &Node, container: &str) -> Option<String> {
    node.container("web", container).state?.terminated?.message
}

fn phase(node: &Node) -> String {
    node.status("web").phase.unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn termination_messages_come_from_the_file_or_after_a_failure_from_the_log() {
    let spec = "
restartPolicy: Never
containers:
- {name: file, image: app:1, command: [sh, -c, 'echo a log; echo said > /dev/termination-log; exit 1']}
- {name: own-path, image: app:1, terminationMessagePath: /tmp/why, command: [sh, -c, 'echo here > /tmp/why']}
- {name: silent, image: app:1, command: [sh, -c, 'echo only a log; exit 2']}
- {name: log, image: app:1, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, 'echo a log; exit 1']}
- {name: fine, image: app:1, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, 'echo a log; exit 0']}
";
    for log_files in [false, true] {
        let mut node = Node::new();
        node.fake().set_log_files(log_files);
        node.write("web.yaml", &raw("web", spec));
        node.start();
        node.shows("web Failed", |node| phase(node) == "Failed").await;
        let messages = ["file", "own-path", "silent", "log", "fine"].map(|name| message(&node, name));
        let expected = [Some("said\n"), Some("here\n"), None, Some("a log\n"), None].map(|it| it.map(str::to_owned));
        assert_eq!(messages, expected, "R-TMSG-1, R-TMSG-3; log files: {log_files}");
        node.restart().await;
        node.shows("web Failed", |node| phase(node) == "Failed").await;
        assert_eq!(message(&node, "file").as_deref(), Some("said\n"), "after a restart of the agent");
    }
}

/// Starts a pod with `restartPolicy: Never`. Returns its container and the file for the termination message.
async fn running() -> (Node, ContainerInfo, PathBuf) {
    let mut node = Node::new();
    node.write("web.yaml", &raw("web", "restartPolicy: Never\ncontainers: [{name: app, image: app:1}]"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let app = node.app("web").expect("it runs");
    let mounts = node.fake().container_config(&app.id).expect("it was made").mounts;
    let file = mounts.into_iter().find(|mount| mount.destination.ends_with("termination-log")).expect("R-TMSG-1");
    (node, app, file.source)
}

#[tokio::test(start_paused = true)]
async fn long_messages_are_cut() {
    let (node, app, file) = running().await;
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).expect("it is there"));
    assert_eq!(mode & 0o777, 0o666, "R-TMSG-1");
    fs::write(&file, format!("{}end", "x".repeat(6000))).expect("anyone can write to it");
    node.fake().exit(&app.id, 1);
    node.shows("web Failed", |node| phase(node) == "Failed").await;
    let text = message(&node, "app").expect("R-TMSG-2");
    assert!(text.len() == 4096 && text.ends_with("end"), "R-TMSG-2: {} bytes", text.len());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_is_an_error() {
    let (node, app, file) = running().await;
    fs::remove_file(&file).expect("it is there");
    fs::create_dir(&file).expect("a directory in its place");
    node.fake().exit(&app.id, 1);
    node.shows("web Failed", |node| phase(node) == "Failed").await;
    let text = message(&node, "app").unwrap_or_default();
    let expected = "Error on reading termination log /dev/termination-log: it is a directory";
    assert!(text.starts_with(expected), "R-TMSG-4: {text}");
}

// R-LOOP-2.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_time_is_over_is_stopped_and_stays_so() {
    let spec = "
activeDeadlineSeconds: 30
terminationGracePeriodSeconds: 5
containers:
- {name: app, image: app:1}
- {name: crash, image: app:1}
";
    let mut node = Node::new();
    node.fake().program("app", Program::stops_in(SECOND, 0));
    node.fake().program("crash", Program::exits(SECOND, 1));
    node.write("web.yaml", &raw("web", spec));
    let origin = Instant::now();
    node.start();
    tokio::time::sleep(10 * SECOND).await;
    // R-ADL-2: a restart of the agent does not restart the deadline.
    node.restart().await;
    node.shows("web Failed", |node| phase(node) == "Failed").await;
    assert_eq!(origin.elapsed().as_secs(), 30, "R-ADL-1");
    let status = node.status("web");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("DeadlineExceeded"), Some(message)));
    assert_eq!(node.events("DeadlineExceeded").len(), 1, "R-ADL-1");
    node.settle().await;
    assert_eq!(node.state("web", "app"), "Completed 0");
    assert!(node.app("web").is_none());
    let starts = node.fake().count(Method::StartContainer);
    node.restart().await;
    node.settle().await;
    assert_eq!((node.fake().count(Method::StartContainer), &*phase(&node)), (starts, "Failed"), "R-WRK-3");
}

#[tokio::test(start_paused = true)]
async fn what_ended_in_time_keeps_its_phase() {
    let mut node = Node::new();
    node.fake().program("app", Program::exits(SECOND, 0));
    let spec = "activeDeadlineSeconds: 30\nrestartPolicy: OnFailure\ncontainers: [{name: app, image: app:1}]";
    node.write("web.yaml", &raw("web", spec));
    node.start();
    node.settle().await;
    node.restart().await;
    node.settle().await;
    assert_eq!(phase(&node), "Succeeded", "R-PH-6");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ran_out_of_memory_says_so() {
    let (node, app, _) = running().await;
    node.fake().oom(&app.id);
    node.shows("web Failed", |node| phase(node) == "Failed").await;
    assert_eq!(node.state("web", "app"), "OOMKilled 137", "R-TERM-8");
}
