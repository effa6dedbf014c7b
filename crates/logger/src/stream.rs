//! One stream of a container's output, and its lines.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::Mutex,
};

use crate::{
    log::{self, Log},
    utc::Utc,
};

/// Longest text of one log line; a longer line comes in parts.
const LINE: usize = 16 * 1024;
/// Room for time, stream and tag before a line, and its end.
const FRAME: usize = 64;

/// Which stream.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Name {
    /// As it stands in a log line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Reads one stream to its end. Its buffers are made at once and never grow.
pub struct Stream {
    name: Name,
    from: File,
    /// What was read and is not framed: the beginning of a line.
    input: Box<[u8]>,
    filled: usize,
    /// Framed lines that are not written yet, whole ones only.
    output: Vec<u8>,
}

impl Stream {
    /// The stream on descriptor `from`.
    pub fn new(name: Name, from: File) -> Self {
        let input = vec![0; 2 * LINE].into_boxed_slice();
        Self { name, from, input, filled: 0, output: Vec::with_capacity(2 * LINE) }
    }

    /// Writes every line into `log`, to the end of the stream.
    pub fn run(mut self, log: &Mutex<Log>) {
        loop {
            // Never full here: what is longer than a line has been framed.
            let room = &mut self.input[self.filled..];
            match self.from.read(room) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A pipe has no other errors; there is nothing more to read in any case.
                Err(_) => break,
            }
            self.frame_lines(log);
            self.flush(log);
        }
        if self.filled > 0 {
            // A last line without its end is a line.
            self.frame(0, self.filled, "F", Utc::now(), log);
            self.flush(log);
        }
    }

    fn frame_lines(&mut self, log: &Mutex<Log>) {
        let now = Utc::now();
        let mut start = 0;
        loop {
            let rest = &self.input[start..self.filled];
            // One more than a line: its end may come right after the longest text.
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
