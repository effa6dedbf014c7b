use std::{os::unix::fs::symlink, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use stanchion_runtime::{ErrorKind, clock};

use super::{Call, Plugins};

/// Runs the plugin for tests, which behaves as this key says.
fn run(test: &str) -> stanchion_runtime::Result<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cni/fixtures/plugin.sh");
    symlink(script, directory.path().join("plugin")).expect("linked");
    let plugins = Plugins { directories: vec![directory.path().to_owned()], limit: Duration::from_secs(30) };
    let call = Call { command: "ADD", sandbox: "a", namespace: None, arguments: "" };
    plugins.run("plugin", call, &json!({ "test": test }))
}

#[test]
fn a_plugin_that_prints_without_end_is_killed_at_once() {
    for flood in ["flood", "flood errors"] {
        let begun = clock::instant();
        let error = run(flood).expect_err("it prints for ever");
        assert_eq!(error.kind(), ErrorKind::Other, "{error:?}");
        assert!(error.chain().contains("limit \"answer of a CNI plugin\""), "{}", error.chain());
        assert!(begun.elapsed() < Duration::from_secs(20), "{flood}: {:?}", begun.elapsed());
    }
}

#[test]
fn an_answer_longer_than_a_pipe_is_whole_and_a_grandchild_holds_up_nothing() {
    let begun = clock::instant();
    let printed = run("long").expect("it succeeds");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let last = printed.get(1_000_000..).expect("it is whole");
    let grandchild: i32 = std::str::from_utf8(last).expect("a number").trim().parse().expect("a number");
    kill(Pid::from_raw(grandchild), Signal::SIGKILL).expect("it runs");
}
