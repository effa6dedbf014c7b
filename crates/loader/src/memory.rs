//! The memory that the agent and its libraries share: libc's heap.
//!
//! glibc gives every thread a heap of its own and keeps what was freed. Each library brings threads, and a burst of pods
//! makes all of them allocate once: on an idle node that would stay for ever. With another libc there is nothing to do.
#![cfg_attr(target_env = "gnu", allow(unsafe_code, reason = "settings of libc's allocator"))]

/// One heap for all threads of the process, those of libraries included. To be called before the first thread is
/// started; later it has an effect on new threads only.
#[cfg(target_env = "gnu")]
pub fn share_one_heap() {
    // SAFETY: sets a number in the allocator under its own lock; any value is valid (mallopt(3)).
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    if set == 0 {
        tracing::debug!("libc keeps a heap for each thread");
    }
}

/// Gives memory that is free back to the node.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: has no preconditions (malloc_trim(3)). Whether there was anything to give back does not matter.
    unsafe { libc::malloc_trim(0) };
}

/// One heap for all threads of the process.
#[cfg(not(target_env = "gnu"))]
pub fn share_one_heap() {}

/// Gives memory that is free back to the node.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
