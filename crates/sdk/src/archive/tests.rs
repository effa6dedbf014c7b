use std::{fs, path::PathBuf};

use flate2::{Compression as Level, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::*;

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header
}

struct Draft(Builder<GzEncoder<File>>);

impl Draft {
    fn new(path: &Path) -> Self {
        Self(Builder::new(GzEncoder::new(File::create(path).expect("a file"), Level::fast())))
    }

    fn file(&mut self, name: &str, size: u64) {
        let zeros = io::repeat(0).take(size);
        self.0.append_data(&mut header(EntryType::Regular, size), name, zeros).expect("written");
    }

    fn raw(&mut self, kind: EntryType, size: u64) {
        self.0.append(&header(kind, size), io::repeat(b'a').take(size)).expect("written");
    }

    fn end(self) {
        self.0.into_inner().expect("ended").finish().expect("written");
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("archive");
    (dir, path)
}

#[test]
fn files_and_links_of_archives_are_found_plain_and_compressed_and_nothing_stays() {
    let (dir, path) = place();
    let write = |to: &mut dyn Write| {
        let mut archive = Builder::new(to);
        let mut header = header(EntryType::Regular, 4);
        archive.append_data(&mut header, "./a/layer.tar", &b"file"[..]).expect("written");
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "b/layer.tar", "../a/layer.tar").expect("written");
        let mut large = Header::new_gnu();
        large.set_size(1 << 20);
        archive.append_data(&mut large, "large", io::repeat(b'x').take(1 << 20)).expect("written");
        archive.finish().expect("written");
    };
    let work = dir.path().join("work");
    let check = |path: &Path| {
        let unpacked = Unpacked::of(path, &work).expect("an archive");
        let small = Limit::new("small", 4);
        for name in ["a/layer.tar", "b/layer.tar"] {
            assert_eq!(unpacked.read(name, small).expect("it is there"), b"file", "{name}");
        }
        assert_eq!(unpacked.read("large", small).expect_err("it is large").kind(), io::ErrorKind::FileTooLarge);
        let mut bytes = Vec::new();
        unpacked.reader(unpacked.part("large").expect("there")).read_to_end(&mut bytes).expect("read");
        assert!(bytes.len() == 1 << 20 && bytes.iter().all(|byte| *byte == b'x'));
        assert!(unpacked.part("none").expect_err("none").to_string().contains("lacks none"));
    };
    write(&mut File::create(&path).expect("a file"));
    check(&path);
    assert!(!work.exists(), "a plain archive is read where it is");
    let mut gzip = GzEncoder::new(File::create(&path).expect("a file"), Level::fast());
    write(&mut gzip);
    gzip.finish().expect("written");
    check(&path);
    assert_eq!(fs::read_dir(&work).expect("it was made").count(), 0, "nothing has a name in it");
}

#[test]
fn a_header_that_unpacks_to_very_much_is_not_read() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let (dir, path) = place();
        let mut draft = Draft::new(&path);
        // The unread rest of an entry does not count for the next header.
        draft.file("first", 64 << 20);
        draft.raw(kind, 32 << 20);
        draft.file("last", 1);
        draft.end();
        for unpacked in [
            Unpacked::of(&path, dir.path()).map(drop),
            each(open_archive(&path).expect("a file"), u64::MAX, dir.path(), |_, _| Ok(())),
        ] {
            let error = unpacked.expect_err("it is refused").to_string();
            assert!(error.contains("limit \"header in an archive\""), "{kind:?}: {error}");
        }
    }
}

#[test]
fn an_archive_has_no_more_than_there_is_room_for() {
    let (dir, path) = place();
    let mut draft = Draft::new(&path);
    draft.file("a", 6 << 20);
    // Directories have no content, but their headers may give a size.
    draft.raw(EntryType::Directory, 6 << 20);
    draft.end();
    let mut seen = Vec::new();
    let visit = |name: &str, _: &mut Entry<'_>| {
        seen.push(name.to_owned());
        Ok(())
    };
    let error = each(open_archive(&path).expect("a file"), 10 << 20, dir.path(), visit).expect_err("there is no room");
    assert_eq!((error.kind(), seen), (io::ErrorKind::StorageFull, vec!["a".to_owned()]));
    assert!(error.to_string().contains("no space left on device"), "{error}");
    assert!(room(dir.path()).expect("told") > 0);
}

#[test]
fn an_archive_has_no_more_entries_than_are_kept() {
    let (dir, path) = place();
    let mut draft = Draft::new(&path);
    for number in 0..=limits::ARCHIVE_ENTRIES.most {
        draft.file(&number.to_string(), 0);
    }
    draft.end();
    let error = Unpacked::of(&path, dir.path()).expect_err("they are too many").to_string();
    assert!(error.contains("limit \"entries of an archive\""), "{error}");
}
