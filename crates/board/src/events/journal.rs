//! Events on disk, for the next agent: after a restart or a reboot `events` shows last night's.
//!
//! ```text
//! <directory>/log      one event a line, as JSON; an event that happened again is there again, with its new count
//! <directory>/log.1    the events before: each once, as it was when the file above was begun
//! ```
//! Events are written together, at most once in [`PAUSE`], and not forced to the disk: that would wear out flash memory. A
//! power cut can lose the events of the last half minute, and a kill of the agent those of the last second.

use std::{
    collections::HashSet,
    fs::{self, File},
    future::pending,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::OFlags;
use stanchion_untrusted::{Links, read};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::EventLog;
use crate::{
    limits::{EVENT_FILE, EVENTS},
    view::EventView,
};

/// Least time between two writes, in which events gather.
const PAUSE: Duration = Duration::from_secs(1);
/// Wait after a failed write, e.g. to a full disk.
const RETRY: Duration = Duration::from_secs(30);

/// Events on disk.
#[derive(Debug)]
pub struct Journal {
    log: Arc<EventLog>,
    directory: PathBuf,
    /// Id of the latest event that is on disk.
    written: u64,
    /// The latest error, which is told once.
    error: Option<String>,
}

impl Journal {
    /// Puts the events that earlier agents have kept in `directory` into `log`, before its own. What cannot be read is left
    /// out, and the agent's log says so.
    pub async fn open(log: Arc<EventLog>, directory: PathBuf) -> Self {
        let place = directory.clone();
        let earlier = blocking(move || kept(&place)).await;
        let written = earlier.last().map_or(0, |event| event.id);
        log.restore(earlier);
        Self { log, directory, written, error: None }
    }

    /// Keeps new events until `shutdown`. If the directory cannot be written, they are in memory only until it can be,
    /// and the agent's log says so.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        let mut newest = self.log.watch();
        newest.mark_changed();
        loop {
            // *Cancel-safe:* a change that was not waited for stays to be seen, and the last write covers it.
            shutdown.run_until_cancelled(newest.changed()).await;
            // *Cancel-safe:* nothing is held across it.
            shutdown.run_until_cancelled(sleep(PAUSE)).await;
            let is_over = shutdown.is_cancelled();
            let error = self.write().await.err().map(|error| error.to_string());
            if error.is_some() {
                newest.mark_changed();
                // *Cancel-safe:* nothing is held across it.
                shutdown.run_until_cancelled(sleep(RETRY)).await;
            }
            if let Some(error) = error.as_ref().filter(|error| self.error.as_ref() != Some(error)) {
                let directory = self.directory.display();
                tracing::warn!(error, %directory, "cannot write events; new ones are in memory only until it can be written");
            }
            self.error = error;
            if is_over {
                return;
            }
        }
    }

    /// Writes the events that are not on disk yet.
    async fn write(&mut self) -> io::Result<()> {
        let events = self.log.since(self.written);
        let Some(last) = events.last().map(|event| event.id) else { return Ok(()) };
        let (log, directory) = (Arc::clone(&self.log), self.directory.clone());
        blocking(move || append(&directory, &events, || log.all())).await?;
        self.written = last;
        Ok(())
    }
}

/// Runs blocking work; a panic in it is the caller's.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(|error| error.try_into_panic()) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends, and the caller with it.
        Err(Err(_)) => pending().await,
    }
}

fn files(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("log"), directory.join("log.1"))
}

/// Reads the latest events, oldest first. Lines that are not events, e.g. the end of an interrupted write, are left out.
fn kept(directory: &Path) -> Vec<EventView> {
    let (current, previous) = files(directory);
    let (mut events, mut seen) = (Vec::new(), HashSet::new());
    for path in [current, previous] {
        let content = match read(&path, Links::Refuse, EVENT_FILE) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot read the events of earlier agents");
                continue;
            }
        };
        // The latest line of an event has its latest count.
        for line in content.rsplit(|byte| *byte == b'\n') {
            let Ok(event) = serde_json::from_slice::<EventView>(line) else { continue };
            let identity = (event.first, event.object.clone(), event.field.clone(), event.reason.clone());
            if events.len() < EVENTS.size() && seen.insert((identity, event.message.clone())) {
                events.push(event);
            }
        }
    }
    // An id that does not rise, or that no agent comes to, is none of an agent's.
    let mut next = u64::MAX / 2;
    events.retain(|event| {
        let is_earlier = event.id < next;
        next = next.min(event.id);
        is_earlier
    });
    events.reverse();
    events
}

/// Appends events. When the file is full, `all` are put into the one before it, each once, and another is begun.
fn append(directory: &Path, events: &[EventView], all: impl FnOnce() -> Vec<EventView>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let (current, previous) = files(directory);
    let mut file = open(&current)?;
    let size = file.metadata()?.len();
    let mut lines = Vec::new();
    if size > 0 && !ends_a_line(&file, size)? {
        lines.push(b'\n');
    }
    lines.extend(encoded(events)?);
    if EVENT_FILE.check(size + lines.len() as u64).is_ok() {
        // What was written in part would be written again.
        return file.write_all(&lines).inspect_err(|_| drop(file.set_len(size)));
    }
    let mut lines = encoded(&all())?;
    // The latest ones are those that count.
    while EVENT_FILE.check(lines.len() as u64).is_err() {
        let half = lines.len() / 2;
        let end = lines[half..].iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| half + end + 1);
        lines.drain(..end);
    }
    let draft = directory.join("log.new");
    let mut compact = open(&draft)?;
    compact.set_len(0)?;
    compact.write_all(&lines)?;
    fs::rename(&draft, &previous)?;
    file.set_len(0)
}

/// Encodes events, one a line.
fn encoded(events: &[EventView]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, event)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

fn ends_a_line(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests;
