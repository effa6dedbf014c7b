//! Reads logs of containers, as raw bytes.
//!
//! # Layout
//! - `entry`: entries of a log (R-LOG-3), joined to the container's lines. `files`: the files of a log, rotated or not.
//!   `tail`: the beginning of the last lines. `runtime_log`: a log that the runtime stores itself.

mod entry;
mod files;
mod runtime_log;
mod tail;
#[cfg(test)]
mod tests;

use std::{io, path::Path, time::Duration};

use jiff::Timestamp;
use tokio::sync::mpsc;

pub(crate) use runtime_log::{RuntimeLog, end_of_runtime_log};

use self::{entry::Text, files::LogFiles};

use crate::blocking;

/// Interval of reads of a followed log.
const PERIOD: Duration = Duration::from_millis(200);
/// Number of reads without new bytes after which the log of an ended container is complete, and after which output is
/// no longer held for the end of another line.
const QUIET_READS: u32 = 5;

/// Selection of a log's lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// Number of last lines to read; `None` reads all.
    pub tail: Option<usize>,
    /// Time of the oldest line to read.
    pub since: Option<Timestamp>,
    /// `true` puts its time before each line.
    pub timestamps: bool,
}

/// Sender of a log's bytes, piece by piece. The reader closes the channel when it has enough.
pub(crate) type Pieces = mpsc::Sender<io::Result<Vec<u8>>>;

/// A log in files. Its methods block.
#[derive(Debug)]
pub struct Log {
    files: LogFiles,
    text: Text,
}

impl Log {
    /// Opens a log. Without `is_followed` it ends at its present end.
    ///
    /// # Errors
    /// The log does not exist, or cannot be read.
    pub fn open(path: &Path, options: LogOptions, is_followed: bool) -> io::Result<Self> {
        let mut files = LogFiles::open(path, is_followed)?;
        if let Some(lines) = options.tail {
            files.skip_to_last(lines)?;
        }
        Ok(Self { files, text: Text::new(options) })
    }

    /// Reads the next bytes; `None` if there are none now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.is_empty() {
            if !self.files.read_next(&mut |entry| self.text.add(entry, &mut out))? {
                return Ok(None);
            }
        }
        Ok(Some(out))
    }

    /// Returns the output that is held for the end of the other stream's line.
    pub fn release(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.text.release(&mut out);
        out
    }
}

/// Follows a log: copies it until `has_ended` returns `true` and everything has been read.
pub(crate) async fn copy(mut log: Log, has_ended: impl Fn() -> bool, to: &Pieces) {
    let mut unchanged = 0;
    loop {
        let ended = has_ended();
        let read;
        (log, read) = next(log).await;
        unchanged = if matches!(read, Ok(None)) { unchanged + 1 } else { 0 };
        if ended && unchanged >= QUIET_READS {
            break;
        }
        let piece = read
            .map(|piece| piece.unwrap_or_else(|| if unchanged == QUIET_READS { log.release() } else { Vec::new() }));
        let (has_failed, is_empty) = (piece.is_err(), piece.as_ref().is_ok_and(Vec::is_empty));
        if !is_empty && to.send(piece).await.is_err() || has_failed {
            return;
        }
        if unchanged > 0 {
            tokio::time::sleep(PERIOD).await;
        }
    }
    finish(log, to).await;
}

/// Copies a log that is not followed.
pub(crate) async fn copy_all(mut log: Log, to: &Pieces) {
    loop {
        let read;
        (log, read) = next(log).await;
        let Some(piece) = read.transpose() else { return finish(log, to).await };
        let has_failed = piece.is_err();
        if to.send(piece).await.is_err() || has_failed {
            return;
        }
    }
}

/// Reads the next piece of a log; `None` at its present end.
async fn next(mut log: Log) -> (Log, io::Result<Option<Vec<u8>>>) {
    blocking(move || {
        let read = log.read();
        (log, read)
    })
    .await
}

/// Sends the output that is held for the end of a line.
async fn finish(mut log: Log, to: &Pieces) {
    let rest = log.release();
    if !rest.is_empty() {
        drop(to.send(Ok(rest)).await);
    }
}

/// Returns the last `bytes` bytes of the last `lines` lines of a log. Blocks.
///
/// # Errors
/// The log does not exist, or cannot be read.
pub(crate) fn end(path: &Path, lines: usize, bytes: usize) -> io::Result<Vec<u8>> {
    let mut log = Log::open(path, LogOptions { tail: Some(lines), ..LogOptions::default() }, false)?;
    let mut end = LastLines::new(lines, bytes);
    while let Some(piece) = log.read()? {
        end.add(&piece);
    }
    end.add(&log.release());
    Ok(end.finish())
}

/// Collector of the end of a text that comes in pieces.
#[derive(Debug)]
struct LastLines {
    lines: usize,
    bytes: usize,
    kept: Vec<u8>,
}

impl LastLines {
    fn new(lines: usize, bytes: usize) -> Self {
        Self { lines, bytes, kept: Vec::new() }
    }

    fn add(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
        self.kept.drain(..self.kept.len().saturating_sub(self.bytes));
    }

    fn finish(mut self) -> Vec<u8> {
        let text = self.kept.strip_suffix(b"\n").unwrap_or(&self.kept);
        let ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        let start = match self.lines.checked_sub(1) {
            Some(before) => ends.map(|(at, _)| at + 1).nth(before).unwrap_or(0),
            None => self.kept.len(),
        };
        self.kept.split_off(start)
    }
}
