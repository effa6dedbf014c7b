//! The agent's clock, set without changing the machine's.
//!
//! A small library is loaded into the agent before the C library (`LD_PRELOAD`). It adds an offset to the real-time
//! clock, read from a file that is mapped into memory. The monotonic clock stays as it is, as when an administrator
//! sets the time.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *seconds;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("STANCHION_SOAK_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) seconds = page;
    close(file);
}

static long long offset(void) { return seconds ? *seconds : 0; }

int clock_gettime(clockid_t clock, struct timespec *time) {
    long result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += offset();
    return (int)result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    long result = syscall(SYS_gettimeofday, time, zone);
    if (result == 0 && time) time->tv_sec += offset();
    return (int)result;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The library, and the file with the clock's offset.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Compiles the library in a new directory.
    pub(super) fn build(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (source, library, offset) = (dir.join("clock.c"), dir.join("clock.so"), dir.join("offset"));
        fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
        process::text(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source))
            .context("cannot compile the library that sets the agent's clock")?;
        let clock = Self { library, offset };
        clock.set(0)?;
        Ok(clock)
    }

    /// Returns the environment variables that give a program this clock.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let shown = |path: &Path| path.display().to_string();
        vec![("LD_PRELOAD".to_owned(), shown(&self.library)), ("STANCHION_SOAK_CLOCK".to_owned(), shown(&self.offset))]
    }

    /// Sets the clock this many seconds ahead of the machine's; negative: behind. Takes effect at once, also in running
    /// programs.
    pub(super) fn set(&self, seconds: i64) -> Result<()> {
        let failed = || format!("cannot write {}", self.offset.display());
        // The file is written in place, because it is mapped.
        let file = fs::File::options().create(true).truncate(false).write(true).open(&self.offset);
        file.with_context(failed)?.write_all_at(&seconds.to_ne_bytes(), 0).with_context(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Clock;
    use crate::process;

    #[test]
    fn the_clock_is_set_for_one_program_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::build(dir.path()).expect("cc works");
        let year = || {
            let mut date = Command::new("date");
            process::text(date.args(["-u", "+%Y"]).envs(clock.environment())).expect("date runs").trim().to_owned()
        };
        let own = jiff::Timestamp::now().to_string()[..4].to_owned();
        assert_eq!(year(), own);
        clock.set(366 * 24 * 3600 * 2).expect("the file is there");
        assert!(year() > own, "{} is not after {own}", year());
    }
}
