//! Builds the fixture libraries, each variant once per process.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use serde_json::Value;

/// Returns a directory for this test binary that only root can write to: the loader accepts libraries from no other.
pub fn scratch() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo's directory for tests is there"))
        .path()
}

/// Returns `tests/backends`.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backends")
}

/// Builds the C backend with these `-D` definitions.
pub fn c(variant: &str, definitions: &[&str]) -> PathBuf {
    once(&format!("c {variant}"), || {
        let library = scratch().join(format!("libc_{variant}.so"));
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/abi/include");
        let mut command = Command::new("cc");
        command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-I"]).arg(include);
        command.args(definitions).arg(sources().join("c/backend.c")).arg("-o").arg(&library);
        run(&mut command);
        library
    })
}

/// Builds the Rust backends with a profile of their own `Cargo.toml`.
pub fn rust(profile: &str) -> PathBuf {
    stranger(&sources().join("rust"), "fixture_backend", profile)
}

/// Builds `examples/backend-minimal`.
pub fn example() -> PathBuf {
    stranger(&sources().join("../../examples/backend-minimal"), "stanchion_minimal", "dev")
}

/// Builds the library of a package outside the workspace, as its author would.
fn stranger(dir: &Path, name: &str, profile: &str) -> PathBuf {
    once(&format!("{name} {profile}"), || {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--locked", "--message-format", "json-render-diagnostics", "--profile", profile]);
        // The target directory is kept between runs; the workspace's compiler settings must not reach the build.
        command.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("backends")).current_dir(dir);
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
            command.env_remove(variable);
        }
        let said = run(&mut command);
        let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let files = messages.filter(|message| message["target"]["name"] == name);
        let files = files.filter_map(|message| Some(message["filenames"].as_array()?.clone())).flatten();
        let library = files
            .filter_map(|file| file.as_str().map(PathBuf::from))
            .find(|file| file.extension().is_some_and(|extension| extension == "so"));
        library.expect("cargo names the library that it built")
    })
}

/// Runs a program and returns its standard output; panics if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("programs print text")
}

/// Returns a library, building it if this process has not built it yet.
fn once(what: &str, build: impl FnOnce() -> PathBuf) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    // Held while building: a second test that wants the library waits.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    match built.get(what) {
        Some(library) => library.clone(),
        None => built.entry(what.to_owned()).or_insert(build()).clone(),
    }
}
