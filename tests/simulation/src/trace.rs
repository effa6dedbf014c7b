//! Trace of a schedule: its events in order, and a hash of them.

use std::fmt;

/// Events of a schedule, in order.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    /// The lines, if they are kept.
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Returns an empty trace. The lines are kept only if somebody wants to read them.
    #[must_use]
    pub fn new(is_kept: bool) -> Self {
        // FNV-1a, 64 bits.
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: is_kept.then(Vec::new) }
    }

    /// Adds a line.
    pub fn note(&mut self, line: impl fmt::Display) {
        let line = line.to_string();
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// Returns the hash of the lines.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the lines that were kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
