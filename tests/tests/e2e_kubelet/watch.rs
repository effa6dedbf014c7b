//! A pod, looked at twenty times a second.

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

/// What is seen of a pod.
pub struct Watch {
    socket: PathBuf,
    path: String,
    latest: Mutex<Option<Value>>,
    entries: Mutex<Vec<Value>>,
    /// Whether what is seen still belongs to the timeline.
    records: AtomicBool,
    ended: AtomicBool,
}

impl Watch {
    pub fn new(socket: &Path, path: String) -> Self {
        let socket = socket.to_owned();
        let (records, ended) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { socket, path, latest: Mutex::default(), entries: Mutex::default(), records, ended }
    }

    /// Looks until [`end`](Self::end); nothing is noted before the pod is there first.
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

    /// The pod as it was seen last; null where it was not.
    pub fn pod(&self) -> Value {
        lock(&self.latest).clone().unwrap_or(Value::Null)
    }

    /// Waits until the pod is seen so.
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

/// The status of a container of either kind.
pub fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
    let mut all = lists.into_iter().flatten().flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// Whether the pod is there and has a condition.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// What is seen when nothing is.
pub fn is_absent(pod: &Value) -> bool {
    timeline::visible(Some(pod).filter(|pod| !pod.is_null())) == json!({ "absent": true })
}
