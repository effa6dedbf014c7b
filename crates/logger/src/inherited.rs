//! Descriptors that containerd's shim passes by number, and signals that this process ignores.

#![allow(unsafe_code, reason = "descriptors are inherited as numbers, and std has no call that ignores a signal")]

use std::{
    ffi::c_int,
    fs::{self, File},
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

/// Descriptors of a `binary://` logger of containerd.
pub struct Inherited {
    /// Container's standard output.
    pub stdout: File,
    /// Container's standard error.
    pub stderr: File,
    /// Pipe to the shim; closing it says that the logger is ready.
    pub ready: OwnedFd,
}

impl Inherited {
    /// Takes the descriptors. Call it once, first in `main`.
    pub fn take() -> Result<Self, String> {
        Ok(Self { stdout: take(3, "stdout")?.into(), stderr: take(4, "stderr")?.into(), ready: take(5, "ready")? })
    }
}

fn take(fd: RawFd, what: &str) -> Result<OwnedFd, String> {
    // This check opens nothing: a descriptor that is not open must never reach `from_raw_fd`.
    if let Err(error) = fs::symlink_metadata(format!("/proc/self/fd/{fd}"))
        && error.kind() == io::ErrorKind::NotFound
    {
        return Err(format!("descriptor {fd} ({what}) is not open"));
    }
    // SAFETY: it is open, and nothing in this process has opened or owns a descriptor of this number: it is inherited,
    // `main` takes each once, before anything else is opened.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ignores the signals that end a session or a service: the logger must read until the container's output ends.
pub fn ignore_signals() {
    const SIGHUP: c_int = 1;
    const SIGINT: c_int = 2;
    const SIGTERM: c_int = 15;
    /// `SIG_IGN`
    const IGNORE: usize = 1;

    unsafe extern "C" {
        fn signal(signal: c_int, handler: usize) -> usize;
    }

    for number in [SIGHUP, SIGINT, SIGTERM] {
        // SAFETY: C's `signal`, as every libc that std links has it; SIG_IGN installs no code.
        unsafe { signal(number, IGNORE) };
    }
}
