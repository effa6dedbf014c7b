//! Output and exit code of `stanchion backend check` on backends without a real runtime.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    thread,
};

use stanchion_tests::tools;

use crate::build;

/// Runs `stanchion backend check`; returns its stdout and stderr as one text, and its exit code.
fn check(library: &Path, config: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, text) = (dir.path().join("stanchion.toml"), config.replace("DIR", &dir.path().to_string_lossy()));
    fs::write(&file, text).expect("it can be written");
    let program = tools::target_dir().expect("there is a target directory").join("debug/stanchion");
    assert!(program.is_file(), "{} has not been built: cargo build --workspace --all-targets", program.display());
    let mut command = Command::new(program);
    command.args(["backend", "check"]).arg(library).args(arguments).arg("--config").arg(file);
    let output = command.output().expect("it starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (said.concat(), output.status.code())
}

const AGENT: &str = "[agent]\nstate_dir = \"DIR/state\"\nrun_dir = \"DIR/run\"\nlog_dir = \"DIR/logs\"\n";
const IMAGE: &str = "registry.test/busybox:1";

/// Returns a configuration with the backend's table, with or without `library`.
fn table(name: &str, library: Option<&Path>) -> String {
    let library = library.map_or_else(String::new, |library| format!("library = {library:?}\n"));
    let publish = if name == "fake" { format!("publish = [{IMAGE:?}]\n") } else { String::new() };
    format!("{AGENT}[backend.{name}]\n{library}{publish}")
}

#[test]
fn a_backend_that_keeps_the_contract_passes() {
    let library = build::rust("dev");
    let (said, code) = check(&library, &table("fake", Some(&library)), &["--image", IMAGE]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("passed") && said.contains("exec.output") && said.contains(" 0 failed, in "), "{said}");
}

#[test]
fn cases_can_be_chosen_and_the_backend_named() {
    let library = build::rust("dev");
    let only = |cases| ["--image", IMAGE, "--name", "fake", "--only", cases];
    let (said, code) = check(&library, &table("fake", None), &only("exec.exit_code"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\n1 passed, 0 unsupported, 0 failed, in "), "{said}");
    let (said, code) = check(&library, &table("fake", None), &only("exce"));
    assert!(code == Some(1) && said.contains("no case has a name that begins with \"exce\""), "{said}");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let library = build::rust("dev");
    let (said, code) = check(&library, &table("fake", None), &["--image", IMAGE]);
    assert!(code == Some(1) && said.contains("or name the backend with --name NAME"), "{said}");
    let (said, code) = check(&library, &table("unruly", None), &["--name", "unruly"]);
    assert!(code == Some(1) && said.contains("tripped over version"), "{said}");
}

/// Checks the example that authors start from (plugins/README.md).
#[test]
fn of_the_example_nothing_is_wrong_and_most_is_to_be_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("minimal.sock");
    let daemon = UnixListener::bind(&socket).expect("a socket");
    // The thread ends with the test's process.
    thread::spawn(move || {
        for mut client in daemon.incoming().flatten() {
            thread::spawn(move || {
                while client.read(&mut [0; 64]).is_ok_and(|read| read > 0) && client.write_all(b"1.0\n").is_ok() {}
            });
        }
    });
    let library = build::example();
    let config = format!("{AGENT}[backend.minimal]\nlibrary = {library:?}\nsocket = {socket:?}\n");
    let (said, code) = check(&library, &config, &["--image", IMAGE]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("minimal 1.0, library 0.1.0"), "{said}");
    let line = |verdict: &str, case: &str| said.lines().any(|it| it.starts_with(verdict) && it.ends_with(case));
    assert!(line("passed", " version") && line("passed", " events.resync_first"), "{said}");
    assert!(line("unsupported", " container.start") && said.contains(" 0 failed, in "), "{said}");
}
