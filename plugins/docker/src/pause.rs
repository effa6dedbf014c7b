//! Image of the pause process, which holds a pod's namespaces. It is made here, of one static program: no registry is
//! asked, and it can be made again whenever somebody has removed it (ADR 7).

use std::sync::{Arc, OnceLock};

use bollard::{body_full, query_parameters::CreateImageOptions};
use futures_util::TryStreamExt;
use hyper::body::Bytes;
use stanchion_sdk::{
    pause::PROGRAM,
    runtime::{Error, ErrorKind, Result},
};
use tokio::sync::Mutex;

use crate::{
    client::{Client, failed, is_gone},
    names,
};

/// Path of the program in the image.
pub(crate) const PATH: &str = "/pause";
/// Name of the image, without its tag. It is never pulled.
pub(crate) const REPOSITORY: &str = "stanchion.local/pause";

/// Maker of the image, once at a time: making it twice gives two images of the same name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pause(Arc<Mutex<()>>);

/// Returns the image's reference: another program has another one.
pub(crate) fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let program = String::from_utf8_lossy(PROGRAM);
        let id = names::id("", &[&program, &format!("{}", PROGRAM.len())], 0);
        format!("{REPOSITORY}:{}", id.trim_start_matches("0-"))
    })
}

impl Pause {
    /// Makes the image, unless it exists by now.
    pub async fn provide(&self, client: &Client) -> Result<()> {
        let _making = self.0.lock().await;
        let tried = || format!("making the image {}", image());
        match client.api().inspect_image(image()).await {
            Ok(_) => return Ok(()),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(failed(tried(), &error)),
        }
        let files = files().map_err(|error| Error::new(ErrorKind::Other, tried()).caused_by(&error))?;
        let tag = image().rsplit(':').next().map(str::to_owned);
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(REPOSITORY.to_owned()),
            tag,
            ..CreateImageOptions::default()
        };
        let made = client.api().create_image(Some(options), Some(body_full(files)), None);
        made.try_for_each(|_| std::future::ready(Ok(()))).await.map_err(|error| failed(tried(), &error))?;
        tracing::debug!(image = image(), "made the image that holds the pods' namespaces");
        Ok(())
    }
}

/// Returns the image's files, as tar.
fn files() -> std::io::Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_mtime(1);
    header.set_size(PROGRAM.len() as u64);
    let mut archive = tar::Builder::new(Vec::with_capacity(PROGRAM.len() + 2048));
    archive.append_data(&mut header, PATH.trim_start_matches('/'), PROGRAM)?;
    archive.into_inner().map(Bytes::from)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test measures")]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, Write as _},
        os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
        path::{Path, PathBuf},
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    #[test]
    fn the_image_has_the_program_and_a_name_of_its_own() {
        let files = files().expect("in memory");
        let mut archive = tar::Archive::new(&*files);
        let entries: Vec<_> = archive.entries().expect("a tar").map(|entry| entry.expect("an entry")).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path().expect("a path").to_string_lossy(), "pause");
        assert!(PROGRAM.starts_with(b"\x7fELF"));
        let tag = image().strip_prefix("stanchion.local/pause:").expect("a tag");
        assert_eq!(tag.len(), 12, "{tag}");
    }

    #[test]
    fn the_program_needs_no_library_and_ends_on_term() {
        let program = Program::write("ends");
        let path = &program.path;
        assert!(!names_an_interpreter(PROGRAM), "it is linked dynamically");
        let own = fs::read("/proc/self/exe").expect("this program");
        assert!(names_an_interpreter(&own), "a program that is linked dynamically looks the same");
        let mut child = Command::new(path).spawn().expect("it starts");
        let status = format!("/proc/{}/status", child.id());
        // The kernel says when its handler is installed.
        while !fs::read_to_string(&status).is_ok_and(|it| catches_child_signals(&it)) {
            std::thread::yield_now();
        }
        assert_eq!(child.try_wait().expect("looked"), None, "it ends by itself");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("signalled");
        let status = child.wait().expect("waited");
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }

    #[test]
    fn the_program_collects_what_has_lost_its_parent() {
        let program = Program::write("collects");
        // The shell becomes the program, so its child is the program's.
        let script = format!("sleep 1000 & echo $!; exec {}", program.path.display());
        let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it was piped");
        std::io::BufReader::new(out).read_line(&mut line).expect("the child's id");
        let orphan: i32 = line.trim().parse().expect("a process id");
        let status = format!("/proc/{}/status", child.id());
        while !fs::read_to_string(&status).is_ok_and(|it| catches_child_signals(&it)) {
            std::thread::yield_now();
        }
        kill_process(Pid::from_raw(orphan).expect("no zero"), Signal::KILL).expect("signalled");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Path::new(&format!("/proc/{orphan}")).exists() {
            assert!(
                Instant::now() < deadline,
                "it is a zombie: {:?}",
                fs::read_to_string(format!("/proc/{orphan}/stat"))
            );
            std::thread::yield_now();
        }
        assert_eq!(child.try_wait().expect("looked"), None, "it ended with its child");
        child.kill().expect("killed");
        child.wait().expect("waited");
    }

    /// The program as a file, removed on drop. One at a time: a process that another test is starting would have it
    /// open for writing for a moment.
    struct Program {
        path: PathBuf,
        _alone: std::sync::MutexGuard<'static, ()>,
    }

    impl Program {
        fn write(name: &str) -> Self {
            static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
            let alone = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let path = std::env::temp_dir().join(format!("stanchion-pause-{name}-{}", std::process::id()));
            let file = fs::File::options().write(true).create_new(true).mode(0o755).open(&path);
            file.and_then(|mut file| file.write_all(PROGRAM)).expect("a new file");
            Self { path, _alone: alone }
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            fs::remove_file(&self.path).ok();
        }
    }

    /// Returns whether a 64-bit program has a segment `PT_INTERP` (elf(5)).
    fn names_an_interpreter(program: &[u8]) -> bool {
        const PT_INTERP: u32 = 3;
        let short = |at: usize| usize::from(u16::from_ne_bytes([program[at], program[at + 1]]));
        let word = |at: usize| u32::from_ne_bytes(program[at..at + 4].try_into().expect("four bytes"));
        let (first, size, count) = (word(32) as usize, short(54), short(56));
        (0..count).any(|index| word(first + index * size) == PT_INTERP)
    }

    /// Returns whether the SIGCHLD handler is installed, which the program installs last.
    fn catches_child_signals(status: &str) -> bool {
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & (1 << 16) != 0)
    }
}
