//! Libraries that the loader refuses. Each error names the cause and the remedy.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use serde_json::json;
use stanchion_loader::{BackendSpec, load};
use stanchion_runtime::{ErrorKind, OpenRequest};

use crate::{
    build::{c, rust, scratch},
    open,
};

/// Checks that loading fails with this kind, and that the message contains the library's path and all of `words`.
async fn refused(library: &Path, name: &str, kind: ErrorKind, words: &[&str]) {
    let error = open(library, name, json!({})).await.err().unwrap_or_else(|| panic!("{} loads", library.display()));
    let said = error.chain();
    for word in words.iter().copied().chain([&*library.to_string_lossy()]) {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(error.kind(), kind, "{said}");
}

#[tokio::test]
async fn a_library_that_is_not_there() {
    let path = scratch().join("libnone.so");
    refused(&path, "plain", ErrorKind::NotFound, &["does not exist", "plugin_dir"]).await;
}

#[tokio::test]
async fn a_path_that_is_not_absolute() {
    refused(Path::new("libplain.so"), "plain", ErrorKind::Invalid, &["absolute"]).await;
}

#[tokio::test]
async fn a_directory() {
    let path = scratch().join("directory.so");
    fs::create_dir(&path).expect("a directory");
    refused(&path, "plain", ErrorKind::Invalid, &["not a regular file"]).await;
}

#[tokio::test]
async fn a_file_that_is_no_library() {
    let path = scratch().join("text.so");
    fs::write(&path, "this is not an ELF file, whatever its name says; it is long enough for a header\n")
        .expect("written");
    refused(&path, "plain", ErrorKind::Invalid, &["invalid ELF header"]).await;
}

#[tokio::test]
async fn a_library_without_the_symbol() {
    let library = c("symbol", &["-DSYMBOL=something_else"]);
    refused(&library, "plain", ErrorKind::Invalid, &["no backend \"plain\"", "stanchion_backend_plain"]).await;
}

#[tokio::test]
async fn a_library_of_another_name() {
    refused(&c("plain", &[]), "docker", ErrorKind::Invalid, &["no backend \"docker\""]).await;
    refused(&c("name", &["-DNAME=\"other\""]), "plain", ErrorKind::Invalid, &["\"other\"", "\"plain\""]).await;
}

#[tokio::test]
async fn another_magic_number() {
    refused(&c("magic", &["-DMAGIC=7"]), "plain", ErrorKind::Invalid, &["magic"]).await;
}

#[tokio::test]
async fn another_major_version() {
    refused(&c("major", &["-DMAJOR=2"]), "plain", ErrorKind::Invalid, &["ABI 2", "ABI 1", "rebuild"]).await;
}

#[tokio::test]
async fn a_descriptor_that_is_too_short() {
    refused(&c("short", &["-DSIZE=72"]), "plain", ErrorKind::Invalid, &["72 bytes"]).await;
}

#[tokio::test]
async fn a_library_whose_panics_abort() {
    refused(&c("flags", &["-DFLAGS=0"]), "plain", ErrorKind::Invalid, &["panic = \"abort\""]).await;
    refused(&rust("abort"), "fake", ErrorKind::Invalid, &["panic = \"abort\"", "unwinding"]).await;
}

#[tokio::test]
async fn another_checksum() {
    let library = c("plain", &[]);
    let sha256 = Some("00".repeat(32));
    let spec = BackendSpec { name: "plain".into(), library, sha256, open: OpenRequest::default() };
    let error = load(spec).await.expect_err("the checksum differs");
    assert!(error.chain().contains("SHA-256") && error.chain().contains(&"00".repeat(32)), "{}", error.chain());
}

/// Copies the good library into its own directory.
fn copy(test: &str) -> PathBuf {
    let dir = scratch().join(test);
    fs::create_dir(&dir).expect("a directory");
    let path = dir.join("libplain.so");
    fs::copy(c("plain", &[]), &path).expect("a copy");
    path
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
}

#[tokio::test]
async fn a_file_that_its_group_can_write() {
    let library = copy("group");
    allow(&library, 0o775);
    refused(&library, "plain", ErrorKind::Permission, &["mode 0775", "chmod go-w"]).await;
    allow(&library, 0o755);
    open(&library, "plain", json!({})).await.expect("the way out works");
}

#[tokio::test]
async fn a_directory_that_all_can_write() {
    let library = copy("parent");
    let dir = library.parent().expect("it is in a directory");
    // Sticky like /tmp: others cannot remove the file, but could create it first when it is reinstalled.
    allow(dir, 0o1777);
    refused(&library, "plain", ErrorKind::Permission, &[&dir.to_string_lossy(), "mode 1777"]).await;
}

#[tokio::test]
async fn a_link_into_a_directory_that_all_can_write() {
    let library = copy("target");
    let dir = library.parent().expect("it is in a directory");
    allow(dir, 0o777);
    let link = scratch().join("liblink.so");
    symlink(&library, &link).expect("a link");
    refused(&link, "plain", ErrorKind::Permission, &[&dir.to_string_lossy(), "mode 0777"]).await;
}

#[tokio::test]
async fn a_file_of_another_user() {
    let library = copy("owner");
    chown(&library, Some(65534), None).expect("root may");
    refused(&library, "plain", ErrorKind::Permission, &["user 65534", "chown root"]).await;
}
