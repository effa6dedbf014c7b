//! The first process of every pod on Docker: holds the pod's namespaces, and does nothing.
//!
//! Built by `build.rs` as a static program and put into an image by the backend (ADR 7). It ends on SIGTERM and SIGINT,
//! and collects processes that have lost their parent, whose init it is where a pod shares one PID namespace.

use std::ffi::{c_int, c_uint};

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

unsafe extern "C" {
    fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn sleep(seconds: c_uint) -> c_uint;
    fn _exit(code: c_int) -> !;
}

extern "C" fn end(_: c_int) {
    // SAFETY: may be called in a signal handler (signal-safety(7)), and does not return.
    unsafe { _exit(0) }
}

extern "C" fn collect(_: c_int) {
    // SAFETY: may be called in a signal handler; a null status is not written.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    // A kernel gives init only the signals that it has a handler for.
    // SAFETY: C's `signal`; both handlers do only what a handler may, and live as long as the program.
    unsafe {
        signal(SIGTERM, end);
        signal(SIGINT, end);
        signal(SIGCHLD, collect);
    }
    // What ended before the handler was there.
    collect(SIGCHLD);
    loop {
        // SAFETY: no memory is involved. Every signal interrupts it.
        unsafe { sleep(c_uint::MAX) };
    }
}
