//! Tests replaced files with a reader that reads all the time, and after a crash at any point.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tempfile::TempDir;

use super::*;

fn payload<'a>(files: &[(&str, &'a str)]) -> Payload<'a> {
    let file = |(path, content): &(&str, &'a str)| {
        (PathBuf::from(path), File { content: content.as_bytes().into(), mode: 0o640 })
    };
    files.iter().map(file).collect()
}

fn names(volume: &Path) -> Vec<String> {
    let entries = fs::read_dir(volume).expect("the volume can be read");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Asserts that the volume has one directory of files, its link, and only these visible names.
fn assert_tidy(volume: &Path, visible: &[&str]) {
    let names = names(volume);
    assert_eq!(names.iter().filter(|name| name.starts_with("..2")).count(), 1, "{names:?}");
    let rest: Vec<_> = names.iter().filter(|name| !name.starts_with("..")).collect();
    assert_eq!(rest, visible, "{names:?}");
    assert_eq!(names.len(), visible.len() + 2, "{names:?}");
}

#[test]
fn files_are_written_changed_and_removed() {
    let volume = TempDir::new().expect("a directory");
    let volume = volume.path();
    publish(volume, &payload(&[("a", "1"), ("deep/b", "2")]), None, &Points::default()).expect("they can be published");
    assert_tidy(volume, &["a", "deep"]);
    assert_eq!(fs::read_to_string(volume.join("deep/b")).expect("it is there"), "2");
    let mode = |path: &str| fs::metadata(volume.join(path)).expect("it is there").mode() & 0o7777;
    assert_eq!((mode("a"), mode("deep"), mode("..data")), (0o640, 0o755, 0o755), "R-VOL-8");
    let first = fs::read_link(volume.join(DATA)).expect("a link");
    publish(volume, &payload(&[("a", "1"), ("deep/b", "2")]), None, &Points::default()).expect("nothing is to be done");
    assert_eq!(fs::read_link(volume.join(DATA)).expect("a link"), first, "the same files are left alone");
    publish(volume, &payload(&[("a", "3")]), Some(2500), &Points::default()).expect("they can be published");
    assert_tidy(volume, &["a"]);
    assert_eq!(fs::read_to_string(volume.join("a")).expect("it is there"), "3");
    let entry = fs::metadata(volume.join("a")).expect("it is there");
    assert_eq!((entry.gid(), entry.mode() & 0o777), (2500, 0o640), "R-VOL-8");
    publish(volume, &Payload::new(), None, &Points::default()).expect("nothing can be published");
    assert_tidy(volume, &[]);
}

#[test]
fn a_reader_sees_all_of_the_old_or_all_of_the_new() {
    let directory = TempDir::new().expect("a directory");
    let (volume, done) = (directory.path(), AtomicBool::new(false));
    let of = |value: usize| -> Payload<'static> {
        let file =
            |name: &str| (PathBuf::from(name), File { content: value.to_string().into_bytes().into(), mode: 0o640 });
        ["a", "b", "c"].map(file).into()
    };
    publish(volume, &of(0), None, &Points::default()).expect("they can be published");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // An application reads several files of one state through the directory in force.
                let data = volume.join(fs::read_link(volume.join(DATA)).expect("..data is always there"));
                let read = |name: &str| fs::read_to_string(data.join(name));
                // The directory may have gone since.
                if let (Ok(a), Ok(b), Ok(c)) = (read("a"), read("b"), read("c")) {
                    assert!(a == b && b == c && !a.is_empty(), "{a:?} {b:?} {c:?}");
                }
                assert!(fs::read_link(volume.join("a")).is_ok(), "a is always there");
            }
        });
        for value in 1..200 {
            publish(volume, &of(value), None, &Points::default()).expect("they can be published");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_tidy(volume, &["a", "b", "c"]);
}

#[test]
fn what_a_killed_agent_left_is_put_right() {
    type Leave = fn(&Path);
    let old = payload(&[("a", "1"), ("b", "1")]);
    let new = payload(&[("a", "2"), ("c", "2")]);
    let half = |volume: &Path| {
        fs::create_dir(volume.join("..2026_01_01_00_00_00.1")).expect("it can be made");
        fs::write(volume.join("..2026_01_01_00_00_00.1/a"), "2").expect("it can be written");
    };
    let leaves: [(&str, Leave); 5] = [
        ("nothing", |_| {}),
        ("half of the files", half),
        ("all of the files and the next link", |volume| {
            write(&volume.join("..2026_01_01_00_00_00.1"), &payload(&[("a", "2"), ("c", "2")]), None).expect("written");
            symlink("..2026_01_01_00_00_00.1", volume.join(NEXT)).expect("linked");
        }),
        ("the new files in force, the names not yet", |volume| {
            write(&volume.join("..2026_01_01_00_00_00.1"), &payload(&[("a", "2"), ("c", "2")]), None).expect("written");
            symlink("..2026_01_01_00_00_00.1", volume.join(NEXT)).expect("linked");
            fs::rename(volume.join(NEXT), volume.join(DATA)).expect("renamed");
        }),
        ("a link to nothing", |volume| {
            fs::remove_file(volume.join(DATA)).expect("removed");
            symlink("..2026_01_01_00_00_00.9", volume.join(DATA)).expect("linked");
        }),
    ];
    for (left, leave) in leaves {
        let directory = TempDir::new().expect("a directory");
        let volume = directory.path();
        publish(volume, &old, None, &Points::default()).expect("they can be published");
        leave(volume);
        publish(volume, &new, None, &Points::default()).unwrap_or_else(|error| panic!("{left}: {error}"));
        assert_tidy(volume, &["a", "c"]);
        assert_eq!(fs::read_to_string(volume.join("c")).expect("it is there"), "2", "{left}");
    }
}

#[test]
fn on_a_full_disk_the_old_files_stay_in_force_and_nothing_is_left_of_the_new() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    let directory = TempDir::new().expect("a directory");
    let volume = directory.path();
    mount("tmpfs", volume, "tmpfs", MountFlags::empty(), Some(c"size=64k")).expect("mounted");
    publish(volume, &payload(&[("a", "1")]), None, &Points::default()).expect("they can be published");
    let large = "2".repeat(1 << 20);
    let error = publish(volume, &payload(&[("a", &large)]), None, &Points::default()).expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_tidy(volume, &["a"]);
    assert_eq!(fs::read_to_string(volume.join("a")).expect("it is there"), "1");
    publish(volume, &payload(&[("a", "3")]), None, &Points::default()).expect("there is room for that");
    unmount(volume, UnmountFlags::DETACH).expect("unmounted");
}

#[test]
fn a_path_cannot_be_a_file_and_a_directory() {
    assert_eq!(conflict(&payload(&[("a", ""), ("b/c", "")])), None);
    assert_eq!(conflict(&payload(&[("a", ""), ("a/b", "")])), Some(Path::new("a/b")));
}

/// Returns mount points at these paths in a volume.
fn points(paths: &[&str]) -> Points {
    Points { whole: paths.iter().map(PathBuf::from).collect(), ..Points::default() }
}

#[test]
fn what_is_mounted_on_stays_while_the_files_change() {
    let volume = TempDir::new().expect("a directory");
    let volume = volume.path();
    let points = points(&["deep/point", "empty/er/point", "file"]);
    let old = payload(&[("deep/a", "1"), ("deep/er/b", "1"), ("plain/c", "1")]);
    publish(volume, &old, None, &points).expect("they can be published");
    crate::files::make_point(volume, Path::new("deep/point"), true).expect("made");
    crate::files::make_point(volume, Path::new("empty/er/point"), true).expect("made");
    crate::files::make_point(volume, Path::new("file"), false).expect("made");
    let inode = |path: &str| fs::symlink_metadata(volume.join(path)).expect("it is there").ino();
    let places = ["deep", "deep/point", "empty/er/point", "file"];
    let before = places.map(inode);
    publish(volume, &payload(&[("deep/a", "2"), ("plain/c", "2"), ("new", "2")]), None, &points).expect("published");
    assert_eq!(places.map(inode), before);
    for path in ["deep/a", "plain/c", "new"] {
        assert_eq!(fs::read_to_string(volume.join(path)).expect("it is there"), "2", "{path}");
    }
    assert!(fs::symlink_metadata(volume.join("deep/er")).is_err(), "what is not wanted any more goes");
    assert!(fs::symlink_metadata(volume.join("deep/a")).expect("it is there").is_symlink(), "it changes at once");
    assert_tidy(volume, &["deep", "empty", "file", "new", "plain"]);
}

#[test]
fn a_link_becomes_a_directory_when_something_is_mounted_in_it() {
    let volume = TempDir::new().expect("a directory");
    let (volume, files) = (volume.path(), payload(&[("deep/a", "1")]));
    publish(volume, &files, None, &Points::default()).expect("they can be published");
    assert!(fs::symlink_metadata(volume.join("deep")).expect("it is there").is_symlink());
    for points in [points(&["deep/point"]), Points::default()] {
        publish(volume, &files, None, &points).expect("they can be published");
        let found = fs::symlink_metadata(volume.join("deep")).expect("it is there");
        assert_eq!(found.is_dir(), !points.whole.is_empty());
        assert_eq!(fs::read_to_string(volume.join("deep/a")).expect("it is there"), "1");
    }
}
