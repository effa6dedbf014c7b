//! containerd's shims: the processes that start containers, wait for them, and outlive containerd.

use std::{fs, io, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stanchion_untrusted::{KERNEL_FILE, Links, read};

/// Time limit for containerd to undo an earlier start whose caller was killed; the next start retries until then.
pub const TAKES_BACK: Duration = Duration::from_secs(15);

/// Options of a shim's command line that identify its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shim<'a> {
    /// `-namespace`: containerd's namespace.
    pub namespace: &'a str,
    /// `-address`: containerd's socket.
    pub address: &'a str,
}

/// Kills the shims of container `id` that `is_ours` accepts, and returns their number. Call it only if no process that
/// such a shim has started is needed. Blocks.
///
/// # Errors
/// `/proc` cannot be read, or a shim cannot be killed.
pub fn end(id: &str, is_ours: impl Fn(Shim<'_>) -> bool) -> io::Result<u32> {
    let mut ended = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile is no shim.
        let Ok(command) = read(format!("/proc/{pid}/cmdline"), Links::Refuse, KERNEL_FILE) else { continue };
        if is_shim_of(&command, id, &is_ours) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) => ended += 1,
                Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(ended)
}

/// Returns whether containerd's message says that it cannot create the task of container `id` because the bundle of an
/// earlier attempt still exists: the shim of that attempt is ending.
#[must_use]
pub fn has_bundle_of_earlier(said: &str, id: &str) -> bool {
    said.contains("mkdir ") && said.ends_with(&format!("/{id}: file exists"))
}

/// Returns whether a command line (`proc_pid_cmdline(5)`) is
/// `containerd-shim-… -namespace NAMESPACE -id ID -address SOCKET`.
fn is_shim_of(command: &[u8], id: &str, is_ours: impl Fn(Shim<'_>) -> bool) -> bool {
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let value = |option: &str| {
        let at = words.iter().position(|word| word == option)?;
        words.get(at + 1).map(|value| value.as_ref())
    };
    let program = words.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
    let shim = value("-namespace").zip(value("-address")).map(|(namespace, address)| Shim { namespace, address });
    program.starts_with("containerd-shim") && value("-id") == Some(id) && shim.is_some_and(is_ours)
}

#[cfg(test)]
mod tests {
    use super::{Shim, is_shim_of};

    #[test]
    fn a_shim_is_known_by_namespace_id_and_socket() {
        let line = |words: &[&str]| words.join("\0").into_bytes();
        let shim =
            ["/usr/bin/containerd-shim-runc-v2", "-namespace", "ours", "-id", "main-0", "-address", "/run/c.sock", ""];
        let ours = Shim { namespace: "ours", address: "/run/c.sock" };
        let is = |words: &[&str]| is_shim_of(&line(words), "main-0", |shim| shim == ours);
        assert!(is(&shim));
        for (place, other) in [(0, "/bin/sh"), (2, "k8s.io"), (4, "main-01"), (6, "/run/k3s.sock")] {
            let mut words = shim;
            words[place] = other;
            assert!(!is(&words), "{words:?}");
        }
        assert!(!is(&shim[..5]) && !is(&[]));
    }
}
