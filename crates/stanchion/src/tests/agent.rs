//! Fake agent that records its requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

/// Starts an agent on a socket, for the life of this process.
pub(super) fn start(name: &str, socket: &Path, asked: &Arc<Mutex<Vec<String>>>) {
    let listener = UnixListener::bind(socket).expect("it listens");
    let (name, asked) = (name.to_owned(), Arc::clone(asked));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (name, asked) = (name.clone(), Arc::clone(&asked));
            // A client that watches pods sends further requests meanwhile.
            thread::spawn(move || answer(stream.expect("somebody connects"), &name, &asked));
        }
    });
}

fn answer(mut stream: UnixStream, name: &str, asked: &Mutex<Vec<String>>) {
    let lines = BufReader::new(stream.try_clone().expect("it is copied")).lines();
    let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    // A client without a request has closed the connection.
    let Some(request) = head.first() else { return };
    let exec = head.iter().find(|line| line.starts_with("x-stanchion-exec")).map_or("", String::as_str);
    asked.lock().expect("nobody panicked").push(format!("{name}: {request} {exec}"));
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let answer = if exec.is_empty() {
        let body = match path {
            "/v1/pods" if query == "watch=true" => format!("{}\n", body(path)),
            "/v1/events" if query == "watch=true" => format!("{}\n", body(path)),
            _ => body(path).to_string(),
        };
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    } else {
        let headers = "connection: Upgrade\r\nupgrade: stanchion-exec";
        // The frame of the exit code: channel, length, text.
        format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n\r\n\u{3}\0\0\0\u{1}0")
    };
    // Waits until the client has read everything and closes its end.
    if stream.write_all(answer.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
        stream.read_to_end(&mut Vec::new()).ok();
    }
}

fn body(path: &str) -> Value {
    let pod = |namespace: &str, name: &str| {
        let containers = json!([{ "name": "main", "image": "i" }, { "name": "side", "image": "i" }]);
        let metadata = json!({ "namespace": namespace, "name": name });
        json!({
            "pod": { "metadata": metadata, "spec": { "containers": containers } },
            "backend": "docker", "manifest": "one.yaml", "removedAt": "1970-01-01T00:00:00Z",
        })
    };
    let event = |object: &str| {
        let at = "1970-01-01T00:00:00Z";
        json!({
            "id": 1, "first": at, "last": at, "count": 1, "type": "Normal", "reason": "Started", "object": object,
            "field": "spec.containers{main}", "message": "it runs",
        })
    };
    match path {
        "/v1/node" => json!({ "name": "node", "version": "0" }),
        "/v1/pods" => {
            json!([pod("default", "web"), pod("other", "db"), pod("default", "twin"), pod("other", "twin")])
        }
        "/v1/removed" => json!([pod("default", "old")]),
        "/v1/events" => json!([event("Pod/default/web"), event("Pod/other/db"), event("Backend/docker")]),
        "/v1/sources" => {
            json!([{ "location": "/manifests", "manifests": [{ "path": "one.yaml" }, { "path": "two.yaml" }] }])
        }
        "/v1/backends" => json!([{ "name": "docker" }, { "name": "containerd" }]),
        "/v1/images/prune" => {
            json!([{ "backend": "docker", "images": [{ "names": ["i"], "digest": "d" }], "freed": 1 }])
        }
        path if path.ends_with("/log") => json!("it runs"),
        path if path.ends_with("/restart") => Value::Null,
        other => panic!("say here what {other} answers"),
    }
}
