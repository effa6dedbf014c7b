//! Reads one stream of a container's output and frames its lines in the CRI log format.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::Mutex,
};

use crate::{
    log::{self, Log},
    utc::Utc,
};

/// Longest text of one log line, bytes; a longer line is split into parts.
const LINE: usize = 16 * 1024;
/// Room around a line's text for time, stream, tag and newline, bytes.
const FRAME: usize = 64;

/// Name of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Name {
    /// Returns the name as a log line has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Reader of one stream. Its buffers are allocated once and never grow.
pub struct Stream {
    name: Name,
    from: File,
    /// Bytes read and not framed yet: the beginning of a line.
    input: Box<[u8]>,
    filled: usize,
    /// Framed whole lines that are not written yet.
    output: Vec<u8>,
}

impl Stream {
    /// Makes a reader of the stream on descriptor `from`.
    pub fn new(name: Name, from: File) -> Self {
        let input = vec![0; 2 * LINE].into_boxed_slice();
        Self { name, from, input, filled: 0, output: Vec::with_capacity(2 * LINE) }
    }

    /// Writes every line to `log`, until the stream ends.
    pub fn run(mut self, log: &Mutex<Log>) {
        loop {
            // Never empty: the buffer takes two lines, and framing leaves at most one.
            let room = &mut self.input[self.filled..];
            match self.from.read(room) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A pipe has no other errors; nothing more could be read in any case.
                Err(_) => break,
            }
            self.frame_lines(log);
            self.flush(log);
        }
        if self.filled > 0 {
            // A last line without a newline is a full line.
            self.frame(0, self.filled, "F", Utc::now(), log);
            self.flush(log);
        }
    }

    fn frame_lines(&mut self, log: &Mutex<Log>) {
        let now = Utc::now();
        let mut start = 0;
        loop {
            let rest = &self.input[start..self.filled];
            // One byte more than a line: the newline may follow right after the longest text.
            let window = &rest[..rest.len().min(LINE + 1)];
            if let Some(length) = window.iter().position(|&byte| byte == b'\n') {
                self.frame(start, start + length, "F", now, log);
                start += length + 1;
            } else if window.len() > LINE {
                self.frame(start, start + LINE, "P", now, log);
                start += LINE;
            } else {
                break;
            }
        }
        self.input.copy_within(start..self.filled, 0);
        self.filled -= start;
    }

    fn frame(&mut self, start: usize, end: usize, tag: &str, now: Utc, log: &Mutex<Log>) {
        if self.output.len() + (end - start) + FRAME > self.output.capacity() {
            self.flush(log);
        }
        let Self { input, output, name, .. } = self;
        // Writing to a vector cannot fail.
        write!(output, "{now} {} {tag} ", name.as_str()).expect("memory takes every write");
        output.extend_from_slice(&input[start..end]);
        output.push(b'\n');
    }

    fn flush(&mut self, log: &Mutex<Log>) {
        if !self.output.is_empty() {
            log::lock(log).append(&self.output);
            self.output.clear();
        }
    }
}
