//! Parses a log's entries, `<time> <stream> <P|F> <text>` (R-LOG-3), and assembles the container's output from them.

use jiff::Timestamp;

use super::LogOptions;
use crate::limits::HELD_OUTPUT;

/// An output stream of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

/// A line, or a part of a line that goes on in a later entry of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// RFC 3339; empty in the agent's own entries.
    pub time: &'a [u8],
    pub stream: Stream,
    pub is_partial: bool,
    /// The text without the end of line.
    pub text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Parses an entry without its end of line; `None` if it is not one.
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        let mut fields = raw.splitn(4, |byte| *byte == b' ');
        let time = fields.next()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // More tags may follow, after colons.
        let is_partial = fields.next()?.split(|byte| *byte == b':').next() == Some(b"P");
        Some(Self { time, stream, is_partial, text: fields.next().unwrap_or_default() })
    }

    /// Returns the entry that stands for lost entries.
    pub const fn gap() -> Self {
        let text = b"stanchion: lines may be missing here: the log was rotated faster than it was read";
        Self { time: b"", stream: Stream::Stderr, is_partial: false, text }
    }
}

/// Maximum length of an entry that is passed on whole, bytes. Loggers cut at 16 KiB; a longer entry is passed on in
/// parts.
pub(super) const BUFFER: usize = 64 << 10;

/// Splitter of a log's bytes into entries.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Stream of an entry that is longer than a buffer, and whether the entry is a part of a line; `None` outside of
    /// such an entry.
    long: Option<(Stream, bool)>,
}

impl Splitter {
    /// Passes the whole entries of `bytes` with their offsets to `each`, and returns how many bytes it has used. Of an
    /// entry that fills a whole buffer it passes on the bytes at hand.
    pub fn split(&mut self, bytes: &[u8], mut each: impl FnMut(usize, Entry<'_>)) -> usize {
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            self.pass_on(used, &bytes[used..used + length], true, &mut each);
            used += length + 1;
        }
        if used == 0 && bytes.len() >= BUFFER {
            self.pass_on(0, bytes, false, &mut each);
            used = bytes.len();
        }
        used
    }

    /// Passes on the last entry, which has no end of line and will not get one.
    pub fn end(&mut self, bytes: &[u8], mut each: impl FnMut(usize, Entry<'_>)) {
        if !bytes.is_empty() || self.long.is_some() {
            self.pass_on(0, bytes, true, &mut each);
        }
    }

    fn pass_on(&mut self, at: usize, bytes: &[u8], ends: bool, each: &mut impl FnMut(usize, Entry<'_>)) {
        let entry = match self.long {
            Some((stream, is_partial)) => Some(Entry { time: b"", stream, is_partial, text: bytes }),
            None => Entry::parse(bytes),
        };
        let Some(entry) = entry else { return };
        self.long = (!ends).then_some((entry.stream, entry.is_partial));
        each(at, Entry { is_partial: entry.is_partial || !ends, ..entry });
    }
}

/// Assembler of the container's output: no line is cut in two by the other stream's output.
#[derive(Debug)]
pub(super) struct Text {
    options: LogOptions,
    /// Stream whose line has begun in the output and has not ended.
    open: Option<Stream>,
    streams: [State; 2],
}

#[derive(Debug, Default)]
struct State {
    /// Output that waits for the end of the other stream's line.
    held: Vec<u8>,
    /// `true` if its last entry was a part of a line.
    is_inside: bool,
    /// `true` if the line began before [`LogOptions::since`].
    is_skipped: bool,
}

impl Text {
    pub fn new(options: LogOptions) -> Self {
        Self { options, open: None, streams: <[State; 2]>::default() }
    }

    /// Adds an entry, and writes the output that is ready to `out`.
    pub fn add(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) {
        let Entry { time, stream, is_partial, text } = entry;
        let is_old = || self.options.since.is_some_and(|since| parsed(time).is_some_and(|time| time < since));
        let begins = !self.streams[stream as usize].is_inside;
        let is_skipped = if begins { is_old() } else { self.streams[stream as usize].is_skipped };
        let is_held = self.open.is_some_and(|open| open != stream);
        let state = &mut self.streams[stream as usize];
        (state.is_inside, state.is_skipped) = (is_partial, is_skipped);
        if is_skipped {
            return;
        }
        let to = if is_held { &mut state.held } else { &mut *out };
        if begins && self.options.timestamps && !time.is_empty() {
            to.extend_from_slice(time);
            to.push(b' ');
        }
        to.extend_from_slice(text);
        if !is_partial {
            to.push(b'\n');
        }
        if is_held {
            if state.held.len() > HELD_OUTPUT.size() {
                out.append(&mut state.held);
            }
        } else {
            self.open = is_partial.then_some(stream);
            if !is_partial {
                self.switch_to(stream.other(), out);
            }
        }
    }

    /// Writes the held output of a stream whose line comes next.
    fn switch_to(&mut self, stream: Stream, out: &mut Vec<u8>) {
        let state = &mut self.streams[stream as usize];
        out.append(&mut state.held);
        if state.is_inside && !state.is_skipped {
            self.open = Some(stream);
        }
    }

    /// Writes all held output, as the line that it waited for does not end.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.streams.iter_mut().for_each(|state| out.append(&mut state.held));
    }
}

fn parsed(time: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(time).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(log: &[u8], options: LogOptions) -> Vec<u8> {
        let (mut splitter, mut text, mut out) = (Splitter::default(), Text::new(options), Vec::new());
        // As from files: a buffer at a time, and incomplete entries again.
        let mut at = 0;
        while at < log.len() {
            let used = splitter.split(&log[at..log.len().min(at + BUFFER)], |_, entry| text.add(entry, &mut out));
            if used == 0 {
                break;
            }
            at += used;
        }
        splitter.end(&log[at..], |_, entry| text.add(entry, &mut out));
        text.release(&mut out);
        out
    }

    // R-LOG-3.
    #[test]
    fn each_stream_keeps_its_own_lines() {
        let log = b"T stdout P one \nT stderr F wrong\nT stdout P two \nT stderr P also\nT stdout F three\nT stderr F  wrong\n";
        assert_eq!(text(log, LogOptions::default()), b"one two three\nwrong\nalso wrong\n");
        let stamped = text(log, LogOptions { timestamps: true, ..LogOptions::default() });
        assert_eq!(stamped, b"T one two three\nT wrong\nT also wrong\n");
    }

    #[test]
    fn a_line_that_does_not_end_is_put_out_and_not_held() {
        let mut text = Text::new(LogOptions::default());
        let entry = |stream, text| Entry { time: b"T", stream, is_partial: true, text };
        let part = vec![b'x'; 16 << 10];
        let mut out = Vec::new();
        for _ in 0..1000 {
            text.add(entry(Stream::Stdout, &part), &mut out);
        }
        assert_eq!(out.len(), 1000 * part.len());
        let mut out = Vec::new();
        for _ in 0..1000 {
            text.add(entry(Stream::Stderr, &part), &mut out);
            assert!(text.streams[1].held.len() <= HELD_OUTPUT.size() + part.len(), "the other stream waits for ever");
        }
        text.release(&mut out);
        assert_eq!(out.len(), 1000 * part.len());
    }

    #[test]
    fn bytes_are_as_the_program_wrote_them() {
        let log = b"T stdout P \xe2\x82\nT stdout F \xac\xff\r\x00\nT stdout F \nT stdout F\nno entry\n\nT stdin F x\n";
        assert_eq!(text(log, LogOptions::default()), b"\xe2\x82\xac\xff\r\x00\n\n\n");
    }

    #[test]
    fn an_entry_longer_than_a_buffer_comes_in_parts() {
        let line = vec![b'y'; 3 * BUFFER + 17];
        for end in [&b"\n"[..], b""] {
            let log = [b"T stdout F ", &line[..], end].concat();
            assert_eq!(text(&log, LogOptions::default()), [&line[..], b"\n"].concat());
        }
    }

    // R-LOG-7.
    #[test]
    fn a_line_is_as_old_as_its_beginning() {
        let log =
            b"2026-01-01T00:00:01Z stdout P ol\n2026-01-01T00:00:03Z stdout F d\n2026-01-01T00:00:03Z stdout F new\n";
        let since = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(text(log, LogOptions { since, ..LogOptions::default() }), b"new\n");
    }
}
