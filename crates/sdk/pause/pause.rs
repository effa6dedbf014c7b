//! The first process of every pod on Docker. It holds the pod's namespaces, and does nothing else.
//!
//! `build.rs` builds it as a static program, and the backend puts it into an image (ADR 7). It ends on SIGTERM and
//! SIGINT. In a pod with a shared PID namespace it is the init process, and reaps processes that have lost their
//! parent.

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
    // The kernel delivers to an init process only the signals that it has a handler for.
    // SAFETY: C's `signal`; both handlers do only what a handler may, and live as long as the program.
    unsafe {
        signal(SIGTERM, end);
        signal(SIGINT, end);
        signal(SIGCHLD, collect);
    }
    // Reaps processes that ended before the handler was set.
    collect(SIGCHLD);
    loop {
        // SAFETY: no memory is involved. Every signal interrupts it.
        unsafe { sleep(c_uint::MAX) };
    }
}
