//! Memory that the agent and its libraries share: libc's heap and mapped code.
//!
//! glibc gives every thread a heap of its own and keeps freed memory. Each library brings threads, and a burst of pods
//! makes all of them allocate once: on an idle node that memory would stay for ever. So would code: most of it is for
//! starts and pulls, and the kernel maps sixteen pages for each one touched. With another libc there is nothing to do.
#![cfg_attr(target_env = "gnu", allow(unsafe_code, reason = "libc's allocator and its list of loaded objects"))]

/// Flag of a writable segment (elf(5)).
#[cfg(target_env = "gnu")]
const PF_W: u32 = 2;

/// Makes all threads of the process, those of libraries included, share one heap. Call it before the first thread
/// starts; later it affects new threads only.
#[cfg(target_env = "gnu")]
pub fn share_one_heap() {
    // SAFETY: sets a number in the allocator under its own lock; any value is valid (mallopt(3)).
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    if set == 0 {
        tracing::debug!("libc keeps a heap for each thread");
    }
}

/// Returns unused memory to the node: free heap, and mapped code. The code stays in the page cache; code that is needed
/// again is mapped again, in about a microsecond for sixteen pages.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: has no preconditions (malloc_trim(3)). Whether there was anything to give back does not matter.
    unsafe { libc::malloc_trim(0) };
    // SAFETY: the callback takes what dl_iterate_phdr(3) passes and keeps nothing of it.
    unsafe { libc::dl_iterate_phdr(Some(give_back_code), std::ptr::null_mut()) };
}

/// Drops the mapped pages of an object's read-only segments.
#[cfg(target_env = "gnu")]
unsafe extern "C" fn give_back_code(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a valid object, and holds the lock that keeps it loaded during this call.
    let object = unsafe { &*object };
    if object.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the object's own count of its own headers.
    let segments = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for segment in segments {
        // A segment that was ever writable may differ from its file, also relocated data that is read-only by now.
        if segment.p_type != libc::PT_LOAD || segment.p_flags & PF_W != 0 {
            continue;
        }
        let page = rustix::param::page_size();
        let address = |offset: u64| usize::try_from(object.dlpi_addr + offset).expect("it is mapped");
        let begin = address(segment.p_vaddr).next_multiple_of(page);
        let end = address(segment.p_vaddr + segment.p_memsz) / page * page;
        if end > begin {
            // SAFETY: the range is a loaded segment that nobody writes to: its pages come back from the file with the same
            // content at the next access (madvise(2)). On failure they stay mapped.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
        }
    }
    0
}

/// Does nothing: only glibc has a heap per thread.
#[cfg(not(target_env = "gnu"))]
pub fn share_one_heap() {}

/// Does nothing: only glibc needs it.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::fs;

    /// Returns how much of this program's code is mapped, KiB.
    fn mapped_code() -> u64 {
        let program = std::env::current_exe().expect("the test's program");
        let program = program.to_str().expect("its path is text");
        let smaps = fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut lines = smaps.lines().skip_while(|line| !(line.contains(" r-xp ") && line.ends_with(program)));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).expect("an Rss");
        rss.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn code_that_is_not_used_goes_back_and_is_there_when_needed() {
        let long = (0..100).map(|i| format!("{i:03}")).collect::<String>();
        let before = mapped_code();
        super::give_back();
        let after = mapped_code();
        assert!(after < before, "{after} KiB are mapped, {before} before");
        assert_eq!((0..100).map(|i| format!("{i:03}")).collect::<String>(), long);
    }
}
