//! The requests that Docker gets, and those that it does not get.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use stanchion_docker::{Config, Docker};
use stanchion_runtime::{
    ContainerConfig, Descendants, ErrorKind, ExecRequest, ExecStdio, Mount, NodePaths, PodName, RecursiveReadOnly,
    Runtime as _, labels,
};
use tempfile::TempDir;

/// A Docker with one pod that records its requests.
struct Engine {
    dir: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    fn start() -> Self {
        Self::with_api("1.41")
    }

    /// Starts a Docker with this version of the API.
    fn with_api(version: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("docker.sock")).expect("a socket");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let path = request(&stream);
                seen.lock().expect("no panic").push(path.clone());
                answer(&stream, &said(&path, version));
            }
        });
        Self { dir, asked }
    }

    fn backend(&self) -> Docker {
        let table = json!({ "socket": self.dir.path().join("docker.sock") });
        let config: Config = serde_json::from_value(table).expect("a configuration");
        Docker::new(config, &NodePaths::default()).expect("it opens")
    }

    /// Returns the requests since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

fn request(stream: &UnixStream) -> String {
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    let first = lines.next().expect("a request line");
    lines.find(String::is_empty).expect("the end of the head");
    first.split(' ').nth(1).expect("a path").to_owned()
}

fn answer(mut stream: &UnixStream, body: &Value) {
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("answered");
}

fn said(path: &str, version: &str) -> Value {
    let entry = |id: &str, kind: &str, state: &str| {
        let labels = json!({
            labels::POD_NAME: "a", labels::POD_NAMESPACE: "default", "stanchion.dev/namespace": "stanchion",
            "stanchion.dev/kind": kind, "stanchion.dev/sandbox": "1", "stanchion.dev/name": id,
            "stanchion.dev/labels": json!([labels::POD_NAME, labels::POD_NAMESPACE]).to_string(),
        });
        json!({ "Id": id, "Labels": labels, "State": state, "Created": 1 })
    };
    match path {
        path if path.ends_with("/version") => json!({ "Version": "20.10.24", "ApiVersion": version }),
        path if path.ends_with("/info") => json!({ "CgroupDriver": "cgroupfs" }),
        path if path.contains("/containers/json") => json!([
            entry("1", "sandbox", "running"),
            entry("2", "container", "running"),
            entry("3", "container", "exited"),
            entry("4", "container", "created"),
        ]),
        path => json!({
            "Config": { "Labels": { "stanchion.dev/namespace": "stanchion", "stanchion.dev/kind": "container" } },
            "State": { "Running": path.contains("/2/"), "ExitCode": 3 },
        }),
    }
}

#[tokio::test]
async fn a_look_at_one_pod_lists_that_pod_and_inspects_what_changed() {
    let engine = Engine::start();
    let backend = engine.backend();
    backend.version().await.expect("it answers");
    let pod = PodName { namespace: "default".to_owned(), name: "a".to_owned() };
    backend.list().await.expect("it answers");
    engine.asked();

    let again = backend.list_pod(pod.clone()).await.expect("it answers");
    assert_eq!((again.sandboxes.len(), again.containers.len()), (1, 3));
    let asked = engine.asked();
    assert_eq!(asked.len(), 1, "what has not changed is asked again: {asked:?}");
    for filter in [format!("{}%3Da", labels::POD_NAME), format!("{}%3Ddefault", labels::POD_NAMESPACE)] {
        let filter = filter.replace('/', "%2F");
        assert!(asked[0].contains(&filter), "no filter {filter}: {asked:?}");
    }

    let fresh = engine.backend();
    fresh.list_pod(pod).await.expect("it answers");
    let mut inspected = engine.asked();
    inspected.retain(|path| path.contains("/containers/") && !path.contains("/containers/json"));
    inspected.sort();
    assert_eq!(inspected, ["/v1.41/containers/2/json", "/v1.41/containers/3/json"], "of all that ran");
}

#[tokio::test]
async fn of_two_execs_with_one_id_one_is_made() {
    let engine = Engine::start();
    let backend = engine.backend();
    backend.version().await.expect("it answers");
    let exec = || {
        let request = ExecRequest {
            id: "same".into(),
            container: "2".into(),
            command: vec!["true".to_owned()],
            tty: false,
            size: None,
            descendants: Descendants::default(),
        };
        backend.exec(request, ExecStdio::default())
    };
    let made = |engine: &Engine| engine.asked().iter().filter(|path| path.ends_with("/containers/2/exec")).count();
    // The first one fails later: this Docker makes no process.
    let (first, second) = tokio::join!(exec(), exec());
    first.expect_err("there is no process");
    assert_eq!(second.expect_err("its id is in use").kind(), ErrorKind::Invalid);
    assert_eq!(made(&engine), 1);
    exec().await.expect_err("there is no process");
    assert_eq!(made(&engine), 1, "the id is free again");
}

// R-MNT-6.
#[tokio::test]
async fn mounts_that_are_read_only_all_below_need_docker_25() {
    for (version, is_known) in [("1.41", false), ("1.43", false), ("1.44", true), ("1.51", true)] {
        let engine = Engine::with_api(version);
        let backend = engine.backend();
        backend.version().await.expect("it answers");
        let deep = Mount { read_only: true, recursive_read_only: RecursiveReadOnly::Enabled, ..Mount::new("/a", "/b") };
        let config = ContainerConfig { sandbox: "none".into(), mounts: vec![deep], ..ContainerConfig::default() };
        let error = backend.create_container(config).await.expect_err("there is no sandbox");
        let is_refused = error.message().contains("/b requested recursive read-only mode");
        assert_eq!(
            (is_refused, error.kind() == ErrorKind::Unsupported),
            (!is_known, !is_known),
            "{version}: {error:?}"
        );
    }
}
