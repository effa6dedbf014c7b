//! Log file: appends lines, rotates the file and counts the lines that it could not write.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{arguments::Arguments, rotation, stream::Name, utc::Utc};

/// Current log file, and the lines lost since the last successful write.
pub struct Log {
    arguments: Arguments,
    /// `None` while the file is not open; every append tries to open it.
    file: Option<File>,
    /// Length of the file when it was opened, plus what this process has written since, bytes.
    size: u64,
    /// Lost lines that the log does not report yet.
    lost: u64,
    /// Last error of opening or writing the file.
    why: Option<io::Error>,
}

/// Locks the log, even after a panic of the thread that held the lock: the other stream must go on.
pub fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Makes a log; its file is not open yet.
    pub fn new(arguments: Arguments) -> Self {
        Self { arguments, file: None, size: 0, lost: 0, why: None }
    }

    /// Opens or creates the file. If that fails, every append tries again.
    pub fn open(&mut self) {
        if let Err(error) = self.opened() {
            self.why = Some(error);
        }
    }

    /// Appends whole lines, each with its newline. Never fails: it counts the lines that it cannot write.
    pub fn append(&mut self, lines: &[u8]) {
        if !self.tell_losses() {
            self.lost += count_lines(lines);
        } else if let Err((written, error)) = self.write_chunks(lines) {
            self.lose(count_lines(&lines[written..]), error);
        }
    }

    /// Reports the last lost lines, if it can, after both streams have ended.
    pub fn finish(&mut self) {
        self.tell_losses();
    }

    /// Writes how many lines are missing here, if any; returns `false` if it still cannot write.
    fn tell_losses(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let (now, stderr, lost) = (Utc::now(), Name::Stderr.as_str(), self.lost);
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let notice = format!("{now} {stderr} F stanchion-logger: {lost} lines of output are missing here{why}\n");
        match self.write_chunks(notice.as_bytes()) {
            Ok(()) => {
                (self.lost, self.why) = (0, None);
                true
            }
            Err((_, error)) => {
                self.why = Some(error);
                false
            }
        }
    }

    /// Writes lines, and rotates between two of them when the file is full. The error has the number of bytes written,
    /// whole lines only.
    fn write_chunks(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < lines.len() {
            let rest = &lines[written..];
            let room = usize::try_from(self.arguments.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let mut chunk = if rest.len() <= room { rest.len() } else { after_last_line(&rest[..room]) };
            if chunk == 0 {
                if self.size > 0 {
                    self.rotate();
                }
                // A file takes at least one line, however small the limit is.
                chunk = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
            }
            self.write(&rest[..chunk]).map_err(|(part, error)| (written + part, error))?;
            written += chunk;
        }
        Ok(())
    }

    /// Writes whole lines. On an error it removes the partly written line; the error has the number of bytes that stay.
    fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let (mut file, size) = self.opened().map_err(|error| (0, error))?;
        let mut written = 0;
        let error = loop {
            match file.write(&lines[written..]) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if written == lines.len() {
                self.size = size + written as u64;
                return Ok(());
            }
        };
        let whole = after_last_line(&lines[..written]);
        // Not if somebody else has truncated or extended the file meanwhile.
        if file.metadata().is_ok_and(|now| now.len() == size + written as u64) {
            // If this fails, the next line follows the partial one: a reader sees one bad line.
            file.set_len(size + whole as u64).ok();
        }
        self.size = size + whole as u64;
        Err((whole, error))
    }

    /// Renames the file; the next write opens a new one. If renaming fails, the old file grows on and the next append
    /// tries again.
    fn rotate(&mut self) {
        let path = &self.arguments.path;
        if rotation::rotate(path, Utc::now()).is_ok() {
            (self.file, self.size) = (None, 0);
            // The next rotation removes files that cannot be removed now.
            rotation::prune(path, self.arguments.max_files - 1).ok();
        }
    }

    /// Returns the current file and its length; opens it if it is not open.
    fn opened(&mut self) -> io::Result<(&File, u64)> {
        if self.file.is_none() {
            let path = &self.arguments.path;
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o640);
            let file = match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(dir) = path.parent() {
                        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
                    }
                    options.open(path)?
                }
                opened => opened?,
            };
            self.size = file.metadata().map_or(0, |metadata| metadata.len());
            self.file = Some(file);
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((file, self.size))
    }

    fn lose(&mut self, lines: u64, why: io::Error) {
        self.lost += lines;
        self.why = Some(why);
    }
}

/// Returns the length of the whole lines at the beginning.
fn after_last_line(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
