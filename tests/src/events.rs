//! containerd's events, with their timestamps.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use crate::containerd::Containerd;

/// Time limit for the next event.
const PATIENCE: Duration = Duration::from_secs(60);

/// Event of containerd.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time at which containerd published it.
    pub at: Timestamp,
    /// Namespace it belongs to.
    pub namespace: String,
    /// Topic, e.g. `/tasks/start`.
    pub topic: String,
    /// Container that it is about; empty for other events.
    pub container: String,
    /// PID of the first process, for events of tasks.
    pub pid: u32,
}

/// Subscription through `ctr events`.
#[derive(Debug)]
pub struct Events {
    ctr: Child,
    received: Receiver<Event>,
}

impl Events {
    /// Subscribes; returns once the subscription is in force.
    ///
    /// # Errors
    /// When `ctr` cannot be started or shows nothing.
    pub fn subscribe(containerd: &Containerd) -> Result<Self> {
        let ctr = containerd.ctr("sync");
        let mut child = ctr
            .command(&["events"])?
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ctr events")?;
        let output = child.stdout.take().context("its output was piped")?;
        let (send, received) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                let Some(event) = parse(&line) else { continue };
                if send.send(event).is_err() {
                    break;
                }
            }
        });
        let events = Self { ctr: child, received };
        // containerd does not announce that a subscription has begun: cause events until one arrives.
        for attempt in 0..100 {
            let name = format!("sync-{attempt}");
            ctr.run(&["namespaces", "create", &name])?;
            ctr.run(&["namespaces", "remove", &name])?;
            if events.received.recv_timeout(Duration::from_millis(100)).is_ok() {
                return Ok(events);
            }
        }
        bail!("ctr events shows nothing")
    }

    /// Returns the next event of `topic` in `namespace`; drops others.
    ///
    /// # Errors
    /// When none comes within a minute.
    pub fn next(&self, namespace: &str, topic: &str) -> Result<Event> {
        self.next_of(&[namespace], topic)
    }

    /// Returns the next event of `topic` in any of several namespaces; drops others.
    ///
    /// # Errors
    /// When none comes within a minute.
    pub fn next_of(&self, namespaces: &[&str], topic: &str) -> Result<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) if namespaces.contains(&event.namespace.as_str()) && event.topic == topic => {
                    return Ok(event);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no {topic} in {namespaces:?} within {} s", PATIENCE.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("ctr events has ended"),
            }
        }
    }

    /// Returns all events that have arrived so far.
    #[must_use]
    pub fn drain(&self) -> Vec<Event> {
        self.received.try_iter().collect()
    }

    /// Drops all events that have arrived so far.
    pub fn forget(&self) {
        while self.received.try_recv().is_ok() {}
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Err(error) = self.ctr.kill().and_then(|()| self.ctr.wait()) {
            eprintln!("while ending ctr events: {error}");
        }
    }
}

/// Parses `2026-11-23 22:10:46.941 +0000 UTC namespace /topic {json}`; `None` for the end of an exec and for anything
/// else.
fn parse(line: &str) -> Option<Event> {
    let mut words = line.splitn(7, ' ');
    let (date, time, zone, _, namespace, topic) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let about: Value = serde_json::from_str(words.next()?).ok()?;
    let text = |key: &str| about[key].as_str().unwrap_or_default().to_owned();
    let container = text("container_id");
    let process = text("id");
    if topic == "/tasks/exit" && process != container {
        return None;
    }
    Some(Event {
        at: format!("{date}T{time}{zone}").parse().ok()?,
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        container,
        pid: about["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_of_ctr_events_is_read() {
        let line = r#"2026-11-23 22:10:46.94 +0000 UTC bench /tasks/start {"container_id":"one","pid":4711}"#;
        let event = parse(line).expect("a well-formed line");
        assert_eq!((event.namespace.as_str(), event.topic.as_str()), ("bench", "/tasks/start"));
        assert_eq!((event.container.as_str(), event.pid), ("one", 4711));
        assert_eq!(event.at.to_string(), "2026-11-23T22:10:46.94Z");
    }

    #[test]
    fn the_end_of_an_exec_is_no_end_of_a_container() {
        let line = |id: &str| {
            format!(
                "2026-11-23 22:10:46 +0000 UTC bench /tasks/exit {{\"container_id\":\"one\",\"id\":\"{id}\",\"pid\":7}}"
            )
        };
        assert!(parse(&line("ping")).is_none());
        assert!(parse(&line("one")).is_some());
    }
}
