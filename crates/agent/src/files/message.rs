//! Files for termination messages of containers (`terminationMessagePath`, R-TMSG).

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use stanchion_untrusted::{Links, open};

use super::{PodFiles, directory, ignore_absent};

/// Number of bytes that are read from a file's end (R-TMSG-2).
const MAX_MESSAGE: i64 = 4096;

impl PodFiles {
    fn message_file(&self, container: &str, attempt: u32) -> PathBuf {
        self.container(container).join(format!("{attempt:08x}"))
    }

    /// Creates an empty message file for a container that is about to run; anyone in the container may write the file.
    /// Of earlier attempts it keeps only the last one's file.
    pub fn make_message(&self, container: &str, attempt: u32) -> io::Result<PathBuf> {
        directory(0o755, &self.container(container))?;
        if let Some(old) = attempt.checked_sub(2) {
            ignore_absent(fs::remove_file(self.message_file(container, old)))?;
        }
        let path = self.message_file(container, attempt);
        // An earlier container's file is never used again, as that container can still write it.
        ignore_absent(fs::remove_file(&path))?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// Removes the termination messages of all containers of the pod.
    pub(super) fn remove_messages(&self) -> io::Result<()> {
        let list = |path: PathBuf| match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.collect::<io::Result<Vec<_>>>(),
        };
        for container in list(self.containers())? {
            for entry in list(container.path())? {
                if u32::from_str_radix(&entry.file_name().to_string_lossy(), 16).is_ok() {
                    ignore_absent(fs::remove_file(entry.path()))?;
                }
            }
        }
        Ok(())
    }

    /// Returns the latest attempt of a container that had a message file.
    pub fn latest(&self, container: &str) -> io::Result<Option<u32>> {
        let entries = match fs::read_dir(self.container(container)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut latest = None;
        for entry in entries {
            latest = latest.max(u32::from_str_radix(&entry?.file_name().to_string_lossy(), 16).ok());
        }
        Ok(latest)
    }

    /// Returns the end of a container's termination message; empty if there is none.
    pub fn message(&self, container: &str, attempt: u32) -> io::Result<String> {
        let mut file = match open(self.message_file(container, attempt), Links::Refuse) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length > MAX_MESSAGE.unsigned_abs() {
            file.seek(SeekFrom::End(-MAX_MESSAGE))?;
        }
        let mut content = Vec::new();
        file.take(MAX_MESSAGE.unsigned_abs()).read_to_end(&mut content)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}
