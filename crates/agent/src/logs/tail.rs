//! Finds the beginning of a log's last lines, from the log's end.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::entry::{Entry, Stream};
use crate::limits::HELD_OUTPUT;

/// Number of bytes per read.
const WINDOW: usize = 128 << 10;

/// A position in a log: one of its files, and an offset there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub file: usize,
    pub at: u64,
}

/// Search for the wanted lines, from a log's end. It holds no text.
#[derive(Debug)]
pub(super) struct Tail {
    /// Number of lines still to find.
    left: usize,
    streams: [State; 2],
    /// Position where the search began.
    end: Option<Position>,
    /// Bytes read since the last line was found, in search of that line's first part.
    beyond: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The stream's first wanted entry found so far.
    from: Option<Position>,
    /// `true` once an entry of the stream was found.
    is_seen: bool,
    /// `true` once a line before the wanted ones was found.
    is_done: bool,
}

impl Tail {
    pub fn new(lines: usize) -> Self {
        Self { left: lines, streams: <[State; 2]>::default(), end: None, beyond: 0 }
    }

    /// Returns the position of the first wanted entry of each stream.
    pub fn from(self) -> [Position; 2] {
        let end = self.end.unwrap_or_default();
        self.streams.map(|state| state.from.unwrap_or(end))
    }

    /// Reads a file from `end` to its beginning; returns `true` when nothing before it is of interest. Bytes without an
    /// end of line at the end of the last file are being written, and are no entry yet.
    /// line at the end of the last file are being written, and are no entry yet.
    pub fn read_file(&mut self, file: &File, index: usize, end: u64, is_last: bool) -> io::Result<bool> {
        self.end.get_or_insert(Position { file: index, at: end });
        let mut window = vec![0; WINDOW];
        let (mut end, mut is_written) = (end, is_last);
        while end > 0 && (is_written || !self.is_done()) {
            let start = end.saturating_sub(WINDOW as u64);
            let length = usize::try_from(end - start).unwrap_or(WINDOW);
            let bytes = &mut window[..length];
            match file.read_exact_at(bytes, start) {
                // The file was truncated meanwhile.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                read => read?,
            }
            let bytes = &*bytes;
            if is_written && !bytes.ends_with(b"\n") {
                end = match bytes.iter().rposition(|byte| *byte == b'\n') {
                    Some(last) => start + last as u64 + 1,
                    None => start,
                };
                self.end = Some(Position { file: index, at: end });
                continue;
            }
            is_written = false;
            // The window begins inside an entry, with which the next window ends.
            let first = match start {
                0 => 0,
                _ => bytes[..length - 1].iter().position(|byte| *byte == b'\n').map_or(length, |at| at + 1),
            };
            let mut entries = Vec::new();
            let mut at = first;
            while at < length {
                let next = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(length, |end| at + end);
                entries.push((at, next));
                at = next + 1;
            }
            for (at, next) in entries.into_iter().rev() {
                if let Some(entry) = Entry::parse(&bytes[at..next]) {
                    self.add(&entry, Position { file: index, at: start + at as u64 });
                }
            }
            // No logger writes an entry as long as a window; of such an entry the part with its head counts.
            end = if first == length { start } else { start + first as u64 };
            self.beyond += length as u64;
        }
        Ok(self.is_done())
    }

    fn add(&mut self, entry: &Entry<'_>, position: Position) {
        let state = &mut self.streams[entry.stream as usize];
        // A part of a line at the end of the log counts as a line for now.
        let ends = !entry.is_partial || !state.is_seen;
        state.is_seen = true;
        if ends {
            state.is_done |= self.left == 0;
            if self.left > 0 {
                self.left -= 1;
                self.beyond = 0;
            }
        }
        if !state.is_done {
            state.from = Some(position);
        }
    }

    /// Returns whether all lines are found with their first parts, or the search for these parts has gone far enough.
    fn is_done(&self) -> bool {
        let is_whole = |state: &State| state.is_done || state.from.is_none();
        self.left == 0 && (self.streams.iter().all(is_whole) || self.beyond > HELD_OUTPUT.most)
    }
}

const _: () = assert!(Stream::Stdout as usize == 0 && Stream::Stderr as usize == 1);
