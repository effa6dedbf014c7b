use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, symlink},
        },
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{CWD, mkdirat, renameat},
    mount::{UnmountFlags, mount_bind, unmount},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::*;

/// Depth that exceeds a path of 4,096 bytes, a stack of 8 MiB and 1,024 descriptors.
const DEEP: usize = 20_000;

/// Makes a directory in memory, where thousands of directories take no time.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory")
}

/// Makes nested directories, and a file of 64 KiB in the innermost one.
fn deepen(top: &Path, levels: usize) {
    let mut at = open_top(top).expect("it is there");
    for _ in 0..levels {
        mkdirat(&at, "d", Mode::RWXU).expect("made");
        at = open_child(&at, c"d").expect("it is there");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&at, "file", flags, Mode::RUSR).expect("made");
    rustix::io::write(&file, &[1; 1 << 16]).expect("written");
}

/// Returns the lowest free descriptor: it tells how many are open.
fn lowest_free() -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("opened"))
}

#[test]
fn a_tree_deeper_than_any_path_is_measured_visited_and_removed() {
    let dir = scratch();
    let top = dir.path().join("top");
    fs::create_dir(&top).expect("made");
    deepen(&top, DEEP);
    let each = fs::metadata(&top).expect("it is there").blocks() * 512;
    assert!(usage(&top) >= DEEP as u64 * each + (1 << 16), "{}", usage(&top));
    let (mut directories, mut files, before, mut most) = (0, 0, lowest_free(), 0);
    walk(&top, |found| {
        match found {
            Found::Directory(_) => directories += 1,
            _ => files += 1,
        }
        most = most.max(lowest_free());
        Ok(())
    })
    .expect("it is walked");
    assert_eq!((directories, files), (DEEP + 1, 1));
    // Other tests have descriptors open too.
    assert!(most - before < 200, "{most} descriptors");
    // The removal runs on a small stack.
    let removing = std::thread::Builder::new().stack_size(256 << 10).spawn(move || remove(top)).expect("it is started");
    removing.join().expect("it ends").expect("it is removed");
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
}

#[test]
fn a_broad_tree_with_names_of_any_bytes_goes_and_nothing_that_links_lead_to() {
    let dir = scratch();
    let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
    fs::create_dir_all(&outside).expect("made");
    fs::write(outside.join("theirs"), "").expect("written");
    fs::create_dir(&top).expect("made");
    for part in 0..40_u8 {
        let part = top.join(OsStr::from_bytes(&[b'\n', 0xff, b'a' + part]));
        fs::create_dir(&part).expect("made");
        for file in 0..250_u8 {
            fs::write(part.join(file.to_string()), "").expect("written");
            fs::create_dir_all(part.join(format!("d{file}/e"))).expect("made");
        }
        symlink(&outside, part.join("way-out")).expect("linked");
        rustix::fs::mknodat(CWD, part.join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("made");
    }
    remove(&top).expect("it is removed");
    assert!(!top.exists() && outside.join("theirs").exists());
    remove(&top).expect("what is gone is removed");
    symlink(&outside, &top).expect("linked");
    remove(&top).expect("a link is removed");
    assert!(top.symlink_metadata().is_err() && outside.join("theirs").exists());
    assert!(remove("/").is_err() && remove_at(CWD, Path::new("..")).is_err());
}

#[test]
fn what_is_mounted_stays_and_is_named_and_the_rest_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (top, theirs) = (dir.path().join("top"), dir.path().join("theirs"));
    for path in [top.join("a/b/mounted"), top.join("a/other/more"), theirs.join("sub")] {
        fs::create_dir_all(path).expect("made");
    }
    fs::write(theirs.join("sub/file"), vec![1; 1 << 20]).expect("written");
    fs::write(top.join("a/b/file"), "").expect("written");
    let (busy, busy_file) = (top.join("a/b/mounted"), top.join("a/b/file"));
    mount_bind(&theirs, &busy).expect("mounted");
    mount_bind(theirs.join("sub/file"), &busy_file).expect("mounted");
    let used = usage(&top);
    let mut visited = 0;
    walk(&top, |_| {
        visited += 1;
        Ok(())
    })
    .expect("it is walked");
    let through = remove(&busy).expect_err("it is mounted itself");
    let error = remove(&top).expect_err("something is mounted");
    let left = [busy.exists(), busy_file.exists(), theirs.join("sub/file").exists(), top.join("a/other").exists()];
    unmount(&busy_file, UnmountFlags::DETACH).expect("unmounted");
    unmount(&busy, UnmountFlags::DETACH).expect("unmounted");
    assert!(used < 1 << 20, "{used}");
    assert_eq!(visited, 5, "the top, a, b, other and more");
    assert_eq!((through.kind(), error.kind()), (io::ErrorKind::ResourceBusy, io::ErrorKind::ResourceBusy));
    assert!(error.to_string().contains("something is mounted on"), "{error}");
    assert_eq!(left, [true, true, true, false]);
    remove(&top).expect("it is removed now");
    assert!(theirs.join("sub/file").exists());
}

#[test]
fn a_tree_whose_directories_are_moved_about_leads_nowhere_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
    fs::create_dir_all(&outside).expect("made");
    for name in 0..50 {
        fs::write(outside.join(name.to_string()), "").expect("written");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut moves = 0_u64;
            while !done.load(Ordering::Relaxed) {
                // Moves a directory out of the tree while it is walked, and in again.
                let inner = (0..25).fold(top.clone(), |path, _| path.join("d"));
                for (from, to) in [(&inner, &outside.join("moved")), (&outside.join("moved"), &inner)] {
                    moves += u64::from(renameat(CWD, from, CWD, to).is_ok());
                }
            }
            moves
        });
        for _ in 0..100 {
            fs::create_dir_all(&top).expect("made");
            deepen_over(&top, 60);
            let _lower_bound = usage(&top);
            // A directory may have been moved away, or in again.
            if let Err(error) = remove(&top) {
                assert_ne!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            }
        }
        done.store(true, Ordering::Relaxed);
        mover.join().expect("it ends");
    });
    let theirs = fs::read_dir(&outside).expect("it is there").flatten().filter(|entry| entry.file_name() != "moved");
    assert_eq!(theirs.count(), 50, "nothing outside was removed");
}

/// Makes nested directories while somebody else moves them about.
fn deepen_over(top: &Path, levels: usize) {
    let mut at = open_top(top).expect("it is there");
    for _ in 0..levels {
        let _is_there = mkdirat(&at, "d", Mode::RWXU);
        match open_child(at.as_fd(), c"d") {
            Ok(child) => at = child,
            Err(_) => return,
        }
    }
}

#[test]
fn a_directory_that_was_moved_away_is_not_followed_upwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
    fs::create_dir_all(&outside).expect("made");
    fs::create_dir_all(&top).expect("made");
    fs::write(outside.join("theirs"), "").expect("written");
    deepen(&top, 100);
    let moved = (0..50).fold(top.clone(), |path, _| path.join("d"));
    let mut seen = Vec::new();
    let error = walk(&top, |found| {
        if matches!(found, Found::File(_)) {
            fs::rename(&moved, outside.join("moved")).expect("moved");
        }
        if let Found::Directory(directory) = found {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
            seen.push(fs::read_link(path).expect("it has a path"));
        }
        Ok(())
    });
    assert_eq!(error.expect_err("it was moved").kind(), io::ErrorKind::ResourceBusy);
    assert!(!seen.contains(&outside), "{seen:?}");
    assert!(seen.contains(&top) && outside.join("theirs").exists());
}

#[test]
fn few_descriptors_are_enough() {
    let dir = scratch();
    let top = dir.path().join("top");
    fs::create_dir(&top).expect("made");
    deepen(&top, 2_000);
    let own = std::env::current_exe().expect("this program");
    let of_child = std::process::Command::new(own)
        .args(["--exact", "tree::tests::removes_what_its_environment_names", "--nocapture"])
        .env("REMOVE", &top)
        .status();
    assert!(of_child.expect("it runs").success());
    assert!(!top.exists());
}

/// Removes a tree in a process of its own, which [`few_descriptors_are_enough`] starts.
#[test]
fn removes_what_its_environment_names() {
    let Some(top) = std::env::var_os("REMOVE") else { return };
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).expect("set");
    assert!(usage(&top) >= 1 << 16);
    remove(&top).expect("it is removed");
}
