//! Plays containerd's shim, and reads the log files.

use std::{
    fs::{self, File},
    io::{PipeWriter, Read, Write, pipe},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running logger and the container's ends of its pipes.
pub struct Logger {
    child: Child,
    pub stdout: Option<PipeWriter>,
    pub stderr: Option<PipeWriter>,
}

impl Logger {
    /// Starts the logger for the file `log`, and waits until it is ready.
    pub fn start(log: &Path, more: &[&str]) -> Self {
        let (out_reader, stdout) = pipe().expect("a pipe");
        let (err_reader, stderr) = pipe().expect("a pipe");
        let (mut ready, ready_writer) = pipe().expect("a pipe");
        // std passes on descriptors 0 to 2 only; the shell moves them to 3 to 5, as the shim has them.
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4<&1 5>&2 0</dev/null 1>/dev/null 2>/dev/null"])
            .arg(env!("CARGO_BIN_EXE_stanchion-logger"))
            .args(more)
            .arg("log")
            .arg(log)
            .stdin(Stdio::from(out_reader))
            .stdout(Stdio::from(err_reader))
            .stderr(Stdio::from(ready_writer));
        let child = command.spawn().expect("the logger starts");
        // Closes our copies of the logger's ends of the pipes.
        drop(command);
        let mut said = Vec::new();
        ready.read_to_end(&mut said).expect("the ready pipe");
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
        Self { child, stdout: Some(stdout), stderr: Some(stderr) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&mut self, text: &str) {
        self.stdout.as_mut().expect("open").write_all(text.as_bytes()).expect("the logger reads");
    }

    pub fn err(&mut self, text: &str) {
        self.stderr.as_mut().expect("open").write_all(text.as_bytes()).expect("the logger reads");
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(kill.expect("kill runs").success());
    }

    /// Closes both streams, and waits until the logger exits with code 0.
    pub fn end(self) {
        assert_eq!(self.end_code(), Some(0));
    }

    pub fn end_code(mut self) -> Option<i32> {
        self.stdout = None;
        self.stderr = None;
        self.child.wait().expect("the logger ends").code()
    }
}

/// One line of a log.
pub struct Line {
    pub time: String,
    pub stream: String,
    pub tag: String,
    pub text: String,
}

/// Reads the lines of a log file; every one must be whole.
pub fn read(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", path.display());
    let line = |line: &str| {
        let mut fields = line.splitn(4, ' ').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_else(|| panic!("a bad line in {}: {line:.200}", path.display()));
        Line { time: next(), stream: next(), tag: next(), text: next() }
    };
    text.lines().map(line).collect()
}

/// Returns the log files in a directory, oldest first.
pub fn logs_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").path());
    let mut rotated: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it != "bak")).collect();
    rotated.sort();
    // The current file sorts first, and is the newest.
    rotated.rotate_left(1);
    rotated
}

/// tmpfs of a given size; dropping it unmounts it.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts it. Without the right to mount, prints that and returns `None`.
    pub fn mount(bytes: u64) -> Option<Self> {
        if fs::metadata("/proc/self").expect("procfs").uid() != 0 {
            println!("SKIPPED: a small disk is a tmpfs, and only root may mount one");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).status();
        assert!(mount.expect("mount runs").success());
        Some(Self { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills the file system; returns the file that takes up the space.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut filler = File::create(&path).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failed test may have left a logger with an open file.
        let umount = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !umount.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}
