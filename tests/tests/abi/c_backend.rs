//! Tests of a backend in C that uses only the header.

use std::process::Command;

use serde_json::json;
use stanchion_runtime::{
    ErrorKind, Health, Runtime as _, Version,
    testing::conformance::{self, ImageSource, Options},
};

use crate::{
    build::{self, c},
    open,
};

/// Checks the header's `_Static_assert`s, the counterpart of the crate's own assertions, in both languages.
#[test]
fn the_header_compiles_as_c_and_as_cplusplus() {
    let header = build::sources().join("../../crates/abi/include/stanchion_backend.h");
    for (compiler, language, standard) in [("cc", "c", "-std=c11"), ("c++", "c++", "-std=c++17")] {
        let mut command = Command::new(compiler);
        command.args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror", standard, "-x", language]).arg(&header);
        build::run(&mut command);
    }
}

#[tokio::test]
async fn a_backend_of_forty_lines_loads_and_supports_nothing() {
    let backend = open(&c("plain", &[]), "plain", json!({"anything": 1})).await.expect("it loads");
    assert_eq!((backend.library_version(), backend.built_by(), backend.abi()), ("0.1".into(), "cc".into(), (1, 0)));
    let error = backend.version().await.expect_err("it supports nothing");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(backend.health().await.expect("no library need know that call"), Health::default());
    assert_eq!(error.chain(), "plain version: a backend of forty lines does not do that");

    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { source: ImageSource::Pull { auth: None }, ..Options::pulling("none:1", dir.path()) };
    let transcript = conformance::run(&backend, &options).await;
    assert_eq!(transcript.unsupported().len(), transcript.cases.len(), "{transcript}");
}

/// Loads a backend of a later minor version: longer descriptor, unknown flags and fields.
#[tokio::test]
async fn a_backend_of_a_later_minor_version_loads() {
    let answer = r#"-DVERSION="{\"runtime\":\"c\",\"runtime_version\":\"9\",\"colour\":\"red\",\"capabilities\":{\"import\":true,\"flight\":true}}""#;
    let later = ["-DMINOR=99", "-DSIZE=sizeof(descriptor)", "-DFLAGS=UINT64_MAX", answer];
    let backend = open(&c("later", &later), "plain", json!({})).await.expect("it loads");
    assert_eq!(backend.abi(), (1, 99));
    let version = backend.version().await.expect("it says its version");
    let Version { runtime, runtime_version, capabilities } = version;
    assert_eq!((runtime.as_str(), runtime_version.as_str(), capabilities.import), ("c", "9", true));
}
