//! Events on disk, for the next agent: after a restart or a reboot `events` shows those of last night.
//!
//! ```text
//! <directory>/log      one event a line, as JSON; an event that happened again is there again, with its new count
//! <directory>/log.1    the events before: each once, as it was when the file above was begun
//! ```
//! Nothing is forced to the disk, as that would wear out flash memory. A power cut can lose the events of the last half
//! minute.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use stanchion_untrusted::{Links, make_directory, read};

use crate::{
    limits::{EVENT_FILE, EVENTS},
    view::EventView,
};

/// Events on disk. Its methods block.
#[derive(Clone, Debug)]
pub struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// Names the directory of the events; the first write creates it.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the current file and the one before it.
    fn files(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("log"), self.directory.join("log.1"))
    }

    /// Reads the latest events, oldest first. Lines that are not events, e.g. the end of an interrupted write, are left out.
    #[must_use]
    pub fn read(&self) -> Vec<EventView> {
        let (current, previous) = self.files();
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
        // No agent writes an id that does not rise, or one that it could never reach.
        let mut next = u64::MAX / 2;
        events.retain(|event| {
            let is_earlier = event.id < next;
            next = next.min(event.id);
            is_earlier
        });
        events.reverse();
        events
    }

    /// Appends events. When the file is full, it writes `all` to the file before it, each event once, and begins
    /// another.
    ///
    /// # Errors
    /// The files cannot be written; the events that are on disk already stay.
    pub fn append(&self, events: &[EventView], all: impl FnOnce() -> Vec<EventView>) -> io::Result<()> {
        make_directory(&self.directory)?;
        let (current, previous) = self.files();
        let mut file = open(&current)?;
        let size = file.metadata()?.len();
        let mut lines = Vec::new();
        if size > 0 && !ends_a_line(&file, size)? {
            lines.push(b'\n');
        }
        lines.extend(encoded(events)?);
        if EVENT_FILE.check(size + lines.len() as u64).is_ok() {
            // The next try writes all of it again.
            return file.write_all(&lines).inspect_err(|_| drop(file.set_len(size)));
        }
        let mut lines = encoded(&all())?;
        // Only the latest fit.
        while EVENT_FILE.check(lines.len() as u64).is_err() {
            let half = lines.len() / 2;
            let end = lines[half..].iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| half + end + 1);
            lines.drain(..end);
        }
        let draft = self.directory.join("log.new");
        let mut compact = open(&draft)?;
        compact.set_len(0)?;
        compact.write_all(&lines)?;
        fs::rename(&draft, &previous)?;
        file.set_len(0)
    }
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
