//! The log file: appending, rotation, and an account of what could not be written.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{arguments::Arguments, rotation, stream::Name, utc::Utc};

/// The current file and what is known of it.
pub struct Log {
    arguments: Arguments,
    /// `None` while it cannot be opened; every append tries again.
    file: Option<File>,
    /// Its length, as far as this process has written it.
    size: u64,
    /// Lines that were lost and not told of yet.
    lost: u64,
    /// Why the last of them was.
    why: Option<io::Error>,
}

/// Locks; a stream that panicked with the lock held stops neither the other nor the log.
pub fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// The log of these arguments, not opened yet.
    pub fn new(arguments: Arguments) -> Self {
        Self { arguments, file: None, size: 0, lost: 0, why: None }
    }

    /// Opens the file, or makes it. If it cannot, every append tries again.
    pub fn open(&mut self) {
        if let Err(error) = self.opened() {
            self.why = Some(error);
        }
    }

    /// Appends whole lines, each with its end. Never fails: what cannot be written is counted.
    pub fn append(&mut self, lines: &[u8]) {
        if !self.tell_losses() {
            self.lost += count_lines(lines);
        } else if let Err((written, error)) = self.write_chunks(lines) {
            self.lose(count_lines(&lines[written..]), error);
        }
    }

    /// The streams have ended: says what was lost to the last, if it can.
    pub fn finish(&mut self) {
        self.tell_losses();
    }

    /// Says how many lines are missing here, before the next one is written; `false` if it still cannot write.
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

    /// Writes lines, rotating between two of them wherever a file is full. On an error: how much was written, whole
    /// lines only.
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
                // At least one line a file, however small the limit.
                chunk = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
            }
            self.write(&rest[..chunk]).map_err(|(part, error)| (written + part, error))?;
            written += chunk;
        }
        Ok(())
    }

    /// Writes whole lines; on an error takes back the one that was written in part, and says how much stays.
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
        // Unless somebody else has cut or written the file meanwhile.
        if file.metadata().is_ok_and(|now| now.len() == size + written as u64) {
            // If that fails, the next line begins in the middle of one: a reader sees one bad line.
            file.set_len(size + whole as u64).ok();
        }
        self.size = size + whole as u64;
        Err((whole, error))
    }

    /// Moves on to a new file. Where that fails the old one grows on, and the next append tries again.
    fn rotate(&mut self) {
        let path = &self.arguments.path;
        if rotation::rotate(path, Utc::now()).is_ok() {
            (self.file, self.size) = (None, 0);
            // What cannot be removed now is removed with the next rotation.
            rotation::prune(path, self.arguments.max_files - 1).ok();
        }
    }

    /// The current file, opened again where it is not, and its length.
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

/// Length of the whole lines at the beginning.
fn after_last_line(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
