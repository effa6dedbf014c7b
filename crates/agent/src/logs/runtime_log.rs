//! Copies the log of a container whose runtime keeps the log itself, and returns all of it each time.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::Duration,
};

use stanchion_runtime::{ContainerId, Error, ErrorKind, Runtime};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use crate::clock::{elapsed, instant};

use super::{
    LastLines, LogOptions, Pieces,
    entry::{BUFFER, Entry, Splitter, Stream, Text},
};

/// The shortest pause between two readings of a followed log.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Length of the pause, in reading times: each reading reads the whole log, so reading takes at most one part in so
/// many of the time.
const PAUSE_FACTOR: u32 = 20;
/// The longest pause: a slow reader makes a reading long, too.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A log that a runtime keeps.
#[derive(Debug)]
pub(crate) struct RuntimeLog<R> {
    runtime: Arc<R>,
    id: ContainerId,
    options: LogOptions,
    text: Text,
    read: ReadPosition,
}

/// Position up to which the log was read, with marks that find it again: the log's beginning may have gone since, and
/// its entries have no numbers.
#[derive(Clone, Copy, Debug, Default)]
struct ReadPosition {
    /// Number of entries, from the first that is still there.
    count: u64,
    first: Option<u64>,
    last: Option<u64>,
    /// Number of entries at the end that equal the last one.
    run: u64,
}

impl ReadPosition {
    fn add(&mut self, digest: u64) {
        self.count += 1;
        self.first.get_or_insert(digest);
        self.run = if self.last == Some(digest) { self.run + 1 } else { 1 };
        self.last = Some(digest);
    }
}

impl<R: Runtime> RuntimeLog<R> {
    pub fn new(runtime: Arc<R>, id: ContainerId, options: LogOptions) -> Self {
        Self { runtime, id, options, text: Text::new(options), read: ReadPosition::default() }
    }

    /// Copies the log to `to`, and sends the first error there too.
    ///
    /// With `has_ended` it follows the log until that returns `true` and everything was read.
    pub async fn copy(mut self, has_ended: Option<impl Fn() -> bool>, to: &Pieces) {
        if let Err(error) = self.begin().await {
            drop(to.send(Err(io::Error::other(error))).await);
            return;
        }
        loop {
            let ended = has_ended.as_ref().is_none_or(|has_ended| has_ended());
            let begun = instant();
            match self.copy_new(to).await {
                Ok(()) if ended || to.is_closed() => break,
                Ok(()) => tokio::time::sleep((elapsed(begun) * PAUSE_FACTOR).clamp(MIN_PAUSE, MAX_PAUSE)).await,
                // The container is removed, and its log with it: there is nothing more to follow.
                Err(error) if error.kind() == ErrorKind::NotFound && self.read.count > 0 => break,
                Err(error) => {
                    drop(to.send(Err(io::Error::other(error))).await);
                    return;
                }
            }
        }
        let mut rest = Vec::new();
        self.text.release(&mut rest);
        drop(to.send(Ok(rest)).await);
    }

    /// Skips all but the last lines, if a tail is wanted.
    async fn begin(&mut self) -> Result<(), Error> {
        let Some(wanted) = self.options.tail else { return Ok(()) };
        let mut lines = Lines::default();
        read_entries(&*self.runtime, &self.id, None, |entry, _| lines.add(&entry)).await?;
        let surplus = lines.all().saturating_sub(wanted);
        let (mut lines, mut read) = (Lines::default(), ReadPosition::default());
        read_entries(&*self.runtime, &self.id, None, |entry, _| {
            if lines.ended < surplus || wanted == 0 {
                read.add(digest(&entry));
            }
            lines.add(&entry);
        })
        .await?;
        self.read = read;
        Ok(())
    }

    /// Copies the entries that it has not read before.
    async fn copy_new(&mut self, to: &Pieces) -> Result<(), Error> {
        let Self { text, read, runtime, id, .. } = self;
        let (known, mut seen, mut finder) = (*read, ReadPosition::default(), Finder::new(*read));
        read_entries(&**runtime, id, Some(to), |entry, out| {
            let digest = digest(&entry);
            seen.add(digest);
            if known.count > 0 && seen.first != known.first {
                finder.add(digest);
            } else if seen.count > known.count {
                text.add(entry, out);
            }
        })
        .await?;
        if known.count > 0 && seen.count > 0 && seen.first != known.first {
            // The runtime has rotated its log, so that the entries that were read end at another place now.
            let skipped = finder.after.unwrap_or(0);
            seen = ReadPosition::default();
            read_entries(&**runtime, id, Some(to), |entry, out| {
                if finder.after.is_none() && seen.count == 0 {
                    text.add(Entry::gap(), out);
                }
                seen.add(digest(&entry));
                if seen.count > skipped {
                    text.add(entry, out);
                }
            })
            .await?;
        }
        if seen.count > 0 {
            *read = seen;
        }
        Ok(())
    }
}

/// Search for the last read entry, among those that are still there.
struct Finder {
    read: ReadPosition,
    count: u64,
    run: u64,
    /// Number of entries up to and including that entry.
    after: Option<u64>,
}

impl Finder {
    fn new(read: ReadPosition) -> Self {
        Self { read, count: 0, run: 0, after: None }
    }

    fn add(&mut self, digest: u64) {
        self.count += 1;
        self.run = if Some(digest) == self.read.last { self.run + 1 } else { 0 };
        if self.run > 0 && self.run <= self.read.run {
            self.after = Some(self.count);
        }
    }
}

/// Counter of lines.
#[derive(Default)]
struct Lines {
    ended: usize,
    is_inside: [bool; 2],
}

impl Lines {
    fn add(&mut self, entry: &Entry<'_>) {
        self.ended += usize::from(!entry.is_partial);
        self.is_inside[entry.stream as usize] = entry.is_partial;
    }

    /// Returns the number of lines; a line without an end counts for now.
    fn all(&self) -> usize {
        self.ended + self.is_inside.iter().filter(|is_inside| **is_inside).count()
    }
}

fn digest(entry: &Entry<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (entry.time, entry.stream == Stream::Stdout, entry.is_partial, entry.text).hash(&mut hasher);
    hasher.finish()
}

/// Has the runtime write its log, passes each entry to `visit`, and sends the output of `visit` to `to`.
async fn read_entries<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    to: Option<&Pieces>,
    mut visit: impl FnMut(Entry<'_>, &mut Vec<u8>),
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::new(ErrorKind::Other, "a pipe for a log").caused_by(&error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    let from = pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
    let receive = async {
        // Closed after the last read, so that the runtime stops writing.
        let mut from = from;
        let (mut splitter, mut buffer, mut filled) = (Splitter::default(), vec![0; BUFFER], 0);
        let mut out = Vec::new();
        loop {
            let count = from.read(&mut buffer[filled..]).await?;
            filled += count;
            match count {
                0 => {
                    splitter.end(&buffer[..filled], |_, entry| visit(entry, &mut out));
                    filled = 0;
                }
                _ => {
                    let used = splitter.split(&buffer[..filled], |_, entry| visit(entry, &mut out));
                    buffer.copy_within(used..filled, 0);
                    filled -= used;
                }
            }
            if let Some(to) = to
                && !out.is_empty()
                && to.send(Ok(std::mem::take(&mut out))).await.is_err()
            {
                // The receiver is gone, and nobody needs the rest of the log.
                return Ok(());
            }
            out.clear();
            if count == 0 {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let (copied, received) = tokio::join!(runtime.logs(id.clone(), writer.into()), receive);
    copied?;
    received.map_err(failed)
}

/// Returns the last `lines` lines of such a log, and of those at most the last `bytes` bytes.
pub(crate) async fn end_of_runtime_log<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    lines: usize,
    bytes: usize,
) -> Result<Vec<u8>, Error> {
    let (mut text, mut end) = (Text::new(LogOptions::default()), LastLines::new(lines, bytes));
    read_entries(runtime, id, None, |entry, out| {
        text.add(entry, out);
        end.add(out);
        out.clear();
    })
    .await?;
    let mut rest = Vec::new();
    text.release(&mut rest);
    end.add(&rest);
    Ok(end.finish())
}
