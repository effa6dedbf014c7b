//! Events on disk, for the next agent: after a restart or a reboot `events` shows last night's.
//!
//! ```text
//! <directory>/log      one event a line, as JSON; an event that happened again is there again, with its new count
//! <directory>/log.1    the file before it
//! ```
//! Events are written together, at most once in [`PAUSE`], and not forced to the disk: that would wear out flash memory. A
//! power cut can lose the events of the last half minute, and a kill of the agent those of the last second.

use std::{
    collections::HashSet,
    fs::{self, File},
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

/// Puts the events that earlier agents have kept in `directory` into `log`, and keeps new ones there, until `shutdown`.
/// If the directory cannot be read or written, the events are in memory only, and the agent's log says so.
pub async fn keep(log: Arc<EventLog>, directory: PathBuf, shutdown: CancellationToken) {
    let place = directory.clone();
    let earlier = blocking(move || kept(&place)).await;
    let mut written = earlier.last().map_or(0, |event| event.id);
    log.restore(earlier);
    let mut newest = log.watch();
    newest.mark_changed();
    loop {
        // *Cancel-safe:* a change that was not waited for stays to be seen, and the last write covers it.
        shutdown.run_until_cancelled(newest.changed()).await;
        // *Cancel-safe:* nothing is held across it.
        shutdown.run_until_cancelled(sleep(PAUSE)).await;
        let is_over = shutdown.is_cancelled();
        if let Some(error) = write(&log, &directory, &mut written).await.err() {
            let directory = directory.display();
            tracing::warn!(%error, %directory, "cannot write events; new ones are in memory only until it can be written");
            newest.mark_changed();
            // *Cancel-safe:* nothing is held across it.
            shutdown.run_until_cancelled(sleep(RETRY)).await;
        }
        if is_over {
            return;
        }
    }
}

/// Writes the events after the id `written`, and raises it.
async fn write(log: &EventLog, directory: &Path, written: &mut u64) -> io::Result<()> {
    let events = log.since(*written);
    let Some(last) = events.last().map(|event| event.id) else { return Ok(()) };
    let directory = directory.to_owned();
    blocking(move || append(&directory, &events)).await?;
    *written = last;
    Ok(())
}

/// Runs blocking work; a panic in it is the caller's.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
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
    events.reverse();
    // An id that does not rise is none of an agent's.
    let mut last = 0;
    events.retain(|event| {
        event.id > last && {
            last = event.id;
            true
        }
    });
    events
}

/// Appends events, and begins another file when one is full.
fn append(directory: &Path, events: &[EventView]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let (current, previous) = files(directory);
    let mut file = open(&current)?;
    let mut size = file.metadata()?.len();
    let mut lines = Vec::new();
    if size > 0 && !ends_a_line(&file, size)? {
        lines.push(b'\n');
    }
    for event in events {
        let line = serde_json::to_vec(event)?;
        if EVENT_FILE.check(size + (lines.len() + line.len()) as u64 + 1).is_err() {
            file.write_all(&lines)?;
            lines.clear();
            fs::rename(&current, &previous)?;
            (file, size) = (open(&current)?, 0);
        }
        lines.extend(line);
        lines.push(b'\n');
    }
    file.write_all(&lines)
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
