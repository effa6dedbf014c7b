//! Reads CRI log files (R-LOG-3): `<time> <stream> <P|F> <text>`, one a line, rotated beside the current file.

mod kept;

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use stanchion_untrusted::{Links, open};

pub(crate) use kept::kept;

/// How often a followed file is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// What to read of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// Only the last lines.
    pub tail: Option<usize>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
}

/// The text of a log and where the current file ends. Rotated files are read too, the oldest first (R-GAP-27).
///
/// # Errors
/// The current file cannot be read.
pub fn read(path: &Path, options: &LogOptions) -> io::Result<(String, u64)> {
    let mut lines = std::collections::VecDeque::new();
    for file in rotated(path)?.iter().map(PathBuf::as_path).filter(|file| *file != path) {
        // It may be rotated away at this moment.
        if let Ok(mut file) = open(file, Links::Refuse) {
            collect(&mut file, options, &mut lines)?;
        }
    }
    let mut current = open(path, Links::Refuse)?;
    collect(&mut current, options, &mut lines)?;
    let end = current.stream_position()?;
    Ok((lines.into_iter().collect(), end))
}

fn collect(file: &mut File, options: &LogOptions, lines: &mut std::collections::VecDeque<String>) -> io::Result<()> {
    let mut joined = Joined::default();
    let mut end = 0;
    let mut reader = BufReader::with_capacity(64 << 10, &mut *file);
    let mut raw = Vec::new();
    while reader.read_until(b'\n', &mut raw)? > 0 && raw.ends_with(b"\n") {
        end += raw.len() as u64;
        if let Some(line) = joined.add(&raw, options) {
            lines.push_back(line);
            if options.tail.is_some_and(|most| lines.len() > most) {
                lines.pop_front();
            }
        }
        raw.clear();
    }
    // A line that is being written is left for the next time.
    file.seek(SeekFrom::Start(end))?;
    Ok(())
}

/// Lines of a log that does not come from a file.
#[derive(Debug)]
struct Lines {
    options: LogOptions,
    after: Option<Timestamp>,
    last: Option<Timestamp>,
    joined: Joined,
    lines: std::collections::VecDeque<String>,
}

impl Lines {
    /// Takes those after a time.
    pub fn new(options: LogOptions, after: Option<Timestamp>) -> Self {
        Self { options, after, last: after, joined: Joined::default(), lines: std::collections::VecDeque::new() }
    }

    /// Takes a CRI line.
    pub fn add(&mut self, raw: &[u8]) {
        let time = raw.split(|byte| *byte == b' ').next().and_then(|time| std::str::from_utf8(time).ok());
        let time = time.and_then(|time| time.parse().ok());
        if time <= self.after && self.after.is_some() {
            return;
        }
        self.last = time.or(self.last);
        if let Some(line) = self.joined.add(raw, &self.options) {
            self.lines.push_back(line);
            if self.options.tail.is_some_and(|most| self.lines.len() > most) {
                self.lines.pop_front();
            }
        }
    }

    /// The text, and the time of the last line.
    pub fn finish(self) -> (String, Option<Timestamp>) {
        (self.lines.into_iter().collect(), self.last)
    }
}

/// Partial lines, joined.
#[derive(Debug, Default)]
struct Joined {
    text: String,
}

impl Joined {
    /// Takes a line of the file; the line of text that it completes.
    fn add(&mut self, raw: &[u8], options: &LogOptions) -> Option<String> {
        let raw = String::from_utf8_lossy(raw);
        let mut fields = raw.splitn(4, ' ');
        let (time, _stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if let Some(since) = options.since
            && time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return None;
        }
        if self.text.is_empty() && options.timestamps {
            self.text = format!("{time} ");
        }
        let is_partial = tag.split(':').next() == Some("P");
        self.text.push_str(if is_partial { text.trim_end_matches('\n') } else { text });
        (!is_partial).then(|| std::mem::take(&mut self.text))
    }
}

/// The files of one log, in order: rotated ones carry the time of their rotation, the current one comes last.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && !name.ends_with(".gz") && !name.ends_with(".tmp") {
            files.push(entry.path());
        }
    }
    files.sort();
    files.push(path.to_owned());
    Ok(files)
}

/// A log that is read as it grows.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
    options: LogOptions,
    at: u64,
}

impl Follow {
    /// Goes on at a place in the current file.
    #[must_use]
    pub fn new(path: PathBuf, at: u64, timestamps: bool) -> Self {
        let file = open(&path, Links::Refuse).ok();
        Self { path, file, options: LogOptions { timestamps, ..LogOptions::default() }, at }
    }

    /// The next text; `None` when the log is over and all was read.
    ///
    /// *Cancel-safe:* the place moves only with what is returned.
    pub async fn next(&mut self, is_over: &(dyn Fn() -> bool + Send + Sync)) -> Option<io::Result<String>> {
        loop {
            let over = is_over();
            match self.step() {
                Ok(text) if !text.is_empty() => return Some(Ok(text)),
                Ok(_) if over => return None,
                Ok(_) => tokio::time::sleep(PERIOD).await,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn step(&mut self) -> io::Result<String> {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = &mut self.file else { return Ok(String::new()) };
        file.seek(SeekFrom::Start(self.at))?;
        let mut lines = std::collections::VecDeque::new();
        collect(file, &self.options, &mut lines)?;
        self.at = file.stream_position()?;
        if lines.is_empty() {
            // Rotated: the path is another file now, and this one was read to its end.
            let (own, there) = (file.metadata()?, fs::metadata(&self.path));
            if there.is_ok_and(|there| there.ino() != own.ino()) {
                self.file = open(&self.path, Links::Refuse).ok();
                self.at = 0;
            }
        }
        Ok(lines.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{LogOptions, read};

    // R-LOG-3, R-LOG-7, R-LOG-9.
    #[test]
    fn partial_lines_rotated_files_and_tails_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let time = "2026-01-01T00:00:00.000000001Z";
        let old = format!("{time} stdout F one\n");
        std::fs::write(directory.path().join("0.log.20260101-000000"), old).expect("written");
        let new = format!("{time} stdout P tw\n{time} stdout F o\n{time} stderr F three\n{time} stdout F unfin");
        std::fs::write(&path, new).expect("written");
        let text = |options: LogOptions| read(&path, &options).expect("read").0;
        assert_eq!(text(LogOptions::default()), "one\ntwo\nthree\n");
        assert_eq!(text(LogOptions { tail: Some(2), ..LogOptions::default() }), "two\nthree\n");
        assert_eq!(
            text(LogOptions { tail: Some(1), timestamps: true, ..LogOptions::default() }),
            format!("{time} three\n")
        );
        let since = "2026-01-02T00:00:00Z".parse().ok();
        assert_eq!(text(LogOptions { since, ..LogOptions::default() }), "");
    }
}
