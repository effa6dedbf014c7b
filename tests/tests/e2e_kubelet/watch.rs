//! Observer of a pod, which polls the agent twenty times a second.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use stanchion_tests::{
    golden::{socket, timeline},
    wait::{lock, pause},
};

const LOOK: Duration = Duration::from_millis(50);

/// States seen of a pod.
pub struct Watch {
    socket: PathBuf,
    path: String,
    latest: Mutex<Option<Value>>,
    entries: Mutex<Vec<Value>>,
    /// Whether new states are still added to the timeline.
    records: AtomicBool,
    ended: AtomicBool,
}

impl Watch {
    pub fn new(socket: &Path, path: String) -> Self {
        let socket = socket.to_owned();
        let (records, ended) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { socket, path, latest: Mutex::default(), entries: Mutex::default(), records, ended }
    }

    /// Polls until [`end`](Self::end). The timeline begins when the pod first exists.
    pub fn run(&self) {
        let begun = Instant::now();
        while !self.ended.load(Ordering::Relaxed) {
            let shown = socket::get(&self.socket, &self.path);
            match shown {
                Ok(shown) => self.see(begun, shown.map(|mut view| view["pod"].take())),
                Err(error) => eprintln!("{error:#}"),
            }
            pause(LOOK);
        }
    }

    fn see(&self, begun: Instant, pod: Option<Value>) {
        let mut entries = lock(&self.entries);
        let mut visible = timeline::visible(pod.as_ref());
        let is_new = entries.last().is_none_or(|last| {
            let mut last = last.clone();
            last.as_object_mut().map(|last| last.remove("t_ms"));
            last != visible
        });
        if self.records.load(Ordering::Relaxed) && is_new && (pod.is_some() || !entries.is_empty()) {
            visible["t_ms"] = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).into();
            entries.push(visible);
        }
        *lock(&self.latest) = pod;
    }

    /// Ends the timeline.
    pub fn close(&self) {
        self.records.store(false, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub fn entries(&self) -> Vec<Value> {
        lock(&self.entries).clone()
    }

    /// Returns the pod as last seen; null if it was absent.
    pub fn pod(&self) -> Value {
        lock(&self.latest).clone().unwrap_or(Value::Null)
    }

    /// Waits until `holds` is true of the pod.
    pub fn until(&self, what: &str, within: Duration, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let pod = self.pod();
            match holds(&pod) {
                true => return Ok(()),
                false if begun.elapsed() > within => bail!("waited {within:?} for {what}; it is {}", pod["status"]),
                false => pause(LOOK),
            }
        }
    }
}

/// Returns the status of a container or init container; null if it has none.
pub fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
    let mut all = lists.into_iter().flatten().flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// Returns whether the pod's condition `Ready` is true.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Returns whether the pod counts as absent.
pub fn is_absent(pod: &Value) -> bool {
    timeline::visible(Some(pod).filter(|pod| !pod.is_null())) == json!({ "absent": true })
}
