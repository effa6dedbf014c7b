use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use tempfile::TempDir;

use super::*;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n";

fn reader(path: &Path, state: &Path) -> Reader {
    Reader::new(&FileSource { path: path.to_owned(), kubelet: None }, "node", state)
}

// R-FILE-6.
#[test]
fn a_fifo_that_takes_a_manifests_place_at_any_moment_holds_nobody_up() {
    let (manifests, state) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let (path, fifo) = (manifests.path().join("a.yaml"), manifests.path().join(".fifo"));
    fs::write(&path, POD).expect("written");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &path, CWD, &fifo, RenameFlags::EXCHANGE).expect("exchanged");
            }
        });
        let (send, ended) = mpsc::channel();
        let (source, state) = (manifests.path().to_owned(), state.path().to_owned());
        thread::spawn(move || {
            let mut reader = reader(&source, &state);
            for _ in 0..2000 {
                reader.read(&HashSet::new());
            }
            send.send(reader.pods().count()).expect("somebody waits for it");
        });
        let pods = ended.recv_timeout(Duration::from_secs(60));
        done.store(true, Ordering::Relaxed);
        assert_eq!(pods, Ok(1), "the last good content stays in force");
    });
}

// R-FILE-12.
#[test]
fn a_file_beyond_the_limit_is_refused_by_its_size() {
    let (manifests, state) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let file = fs::File::create(manifests.path().join("a.yaml")).expect("made");
    file.set_len(1 << 40).expect("it is a terabyte");
    let mut reader = reader(manifests.path(), state.path());
    reader.read(&HashSet::new());
    let problem = reader.files().next().map(|(_, file)| file.problems[0].to_string()).unwrap_or_default();
    assert!(problem.contains("has 1099511627776 bytes or more: a manifest must be smaller than 10 MiB"), "{problem}");
}
