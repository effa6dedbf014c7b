//! Shims that nobody knows of any more.
//!
//! containerd, cut off while it makes a task (its caller was killed), forgets the task, and sometimes the shim that it has
//! started for it. Such a shim has nothing to do and would stay until the node is restarted (invariant I6).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stanchion_untrusted::{KERNEL_FILE, Links, read, tree};

/// Ends the shims that were started for container `id`. Only to be called while no task is in the container's sandbox:
/// all containers of a pod share a shim, which has the id of one of them.
pub(crate) fn end(socket: &Path, namespace: &str, id: &str) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile is none.
        let Ok(command) = read(format!("/proc/{pid}/cmdline"), Links::Refuse, KERNEL_FILE) else { continue };
        if is_shim_of(&command, socket, namespace, id) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) => tracing::info!(pid, container = id, "ended a shim that containerd had forgotten"),
                Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Where runc keeps its records when containerd's shim calls it and no other root is configured.
const RUNC_RECORDS: &str = "/run/containerd/runc";

/// Removes runc's record of a container that its shim, which would have done it, has left. Its processes must have ended.
/// `root` is where runc keeps them, empty for its shim's own place.
pub(crate) fn remove_record(root: &str, namespace: &str, id: &str) -> io::Result<()> {
    let root = if root.is_empty() { RUNC_RECORDS } else { root };
    tree::remove(Path::new(root).join(namespace).join(id))
}

/// Whether a command line (`proc_pid_cmdline(5)`) is `containerd-shim-… -namespace NAMESPACE -id ID -address SOCKET`.
fn is_shim_of(command: &[u8], socket: &Path, namespace: &str, id: &str) -> bool {
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let value = |option: &str| {
        let at = words.iter().position(|word| word == option)?;
        words.get(at + 1).map(|value| value.as_ref())
    };
    let program = words.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
    program.starts_with("containerd-shim")
        && value("-namespace") == Some(namespace)
        && value("-id") == Some(id)
        && value("-address").is_some_and(|address| real(Path::new(address)) == real(socket))
}

/// The path without links, where it exists.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_shim_of, remove_record};

    #[test]
    fn a_record_is_removed_where_it_was_made() {
        let root = tempfile::tempdir().expect("a directory");
        let record = root.path().join("ours/main-0");
        std::fs::create_dir_all(&record).expect("made");
        for _ in 0..2 {
            remove_record(&root.path().display().to_string(), "ours", "main-0").expect("removed, or gone already");
            assert!(!record.exists());
        }
    }

    #[test]
    fn a_shim_is_known_by_namespace_id_and_socket() {
        let line = |words: &[&str]| words.join("\0").into_bytes();
        let shim =
            ["/usr/bin/containerd-shim-runc-v2", "-namespace", "ours", "-id", "main-0", "-address", "/run/c.sock", ""];
        let is = |words: &[&str]| is_shim_of(&line(words), Path::new("/run/c.sock"), "ours", "main-0");
        assert!(is(&shim));
        for (place, other) in [(0, "/bin/sh"), (2, "k8s.io"), (4, "main-01"), (6, "/run/k3s.sock")] {
            let mut words = shim;
            words[place] = other;
            assert!(!is(&words), "{words:?}");
        }
        assert!(!is(&shim[..5]) && !is(&[]));
    }
}
