//! Tests of `stanchion validate` as called from a shell or from CI.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const GOOD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: good}\nspec:\n  containers:\n  - {name: a, image: b}\n";
const DOUBTFUL: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: doubtful}\nspec:\n  schedulerName: mine\n  \
                        containers:\n  - {name: a, image: b}\n";
const BAD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad}\nspec:\n  containers:\n  - {name: a, image: b}\n  \
                   restartPolicy: Perhaps\n";

/// Temporary directory of a test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("stanchion-validate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory can be made");
        for (name, content) in files {
            fs::write(path.join(name), content).expect("a file can be written");
        }
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the directory can be removed");
    }
}

fn validate(arguments: &[&str], input: &str) -> Output {
    validate_as("/nonexistent/stanchion.toml", arguments, input)
}

/// Runs `validate` with a configuration.
fn validate_as(config: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stanchion"))
        .args(["--config", config, "validate"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("stanchion starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads its input");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it writes text")
}

#[test]
fn a_directory_is_read_file_by_file_and_all_problems_are_told() {
    let directory = Directory::new("directory", &[("a.yaml", GOOD), ("b.yaml", BAD), (".hidden", BAD)]);
    let output = validate(&[&directory.path("")], "");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a.yaml: valid: default/good-"), "{said}");
    let problems: Vec<_> = said.lines().filter(|line| line.contains("b.yaml: error: line ")).collect();
    assert_eq!(problems.len(), 2, "R-VAL-3: {said}");
    assert!(problems[0].contains("line 3, column 12: metadata.name: Invalid value: \"Bad\""), "{said}");
    assert!(problems[1].contains("spec.restartPolicy: Unsupported value: \"Perhaps\""), "{said}");
    assert!(!said.contains(".hidden"), "R-FILE-3: {said}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_told() {
    let output = validate(&["-"], GOOD);
    let warning = "warning: cannot read the configuration /nonexistent/stanchion.toml";
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).starts_with(warning));
}

#[test]
fn standard_input_is_read() {
    assert!(validate(&["-"], GOOD).status.success());
    assert_eq!(validate(&["-"], BAD).status.code(), Some(1));
}

#[test]
fn warnings_are_errors_only_when_asked() {
    let output = validate(&["-"], DOUBTFUL);
    assert!(output.status.success() && said(&output).contains("warning: line 5"), "{}", said(&output));
    let output = validate(&["--strict", "-"], DOUBTFUL);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("-: invalid, since warnings are errors with --strict: default/doubtful-"), "{said}");
    assert!(!said.contains("-: valid"), "{said}");
}

#[test]
fn json_is_for_programs() {
    let directory = Directory::new("json", &[("good.yaml", GOOD), ("bad.yaml", BAD)]);
    let output = validate(&["-o", "json", &directory.path("good.yaml"), &directory.path("bad.yaml")], "");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&report[0]["valid"], &report[1]["valid"]), (&Value::Bool(true), &Value::Bool(false)), "{report}");
    let problem = &report[1]["problems"][1];
    assert_eq!(
        (problem["line"].as_u64(), problem["field"].as_str()),
        (Some(7), Some("spec.restartPolicy")),
        "{report}"
    );
}

#[test]
fn json_holds_no_control_characters() {
    // U+202E turns a line around.
    let bad =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: \"b\u{202e}31m\"}\nspec: {containers: [{name: a, image: b}]}\n";
    let directory = Directory::new("escapes", &[("\u{202e}.yaml", bad)]);
    let output = validate(&["-o", "json", &directory.path("")], "");
    let said = said(&output);
    let is_hidden = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!said.contains(is_hidden), "{said:?}");
    let report: Value = serde_json::from_str(&said).expect("it is JSON");
    assert!(report[0]["file"].as_str().is_some_and(|file| file.ends_with("\u{202e}.yaml")), "{report}");
    let message = report[0]["problems"][0]["message"].as_str().expect("a message");
    assert!(message.contains(r"b\u202e31m"), "{message}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let output = validate(&["/nonexistent/pod.yaml"], "");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/pod.yaml"));
}

#[test]
fn a_pod_has_the_name_of_the_node_in_its_own() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the kernel has it").trim().to_lowercase();
    for (config, node) in [("", host.as_str()), ("[agent]\nnode_name = \" Edge-7 \"\n", "edge-7")] {
        let directory = Directory::new("node-name", &[("stanchion.toml", config)]);
        let output = said(&validate_as(&directory.path("stanchion.toml"), &["-"], GOOD));
        assert!(output.ends_with(&format!("valid: default/good-{node}\n")), "R-ID-1: {output}");
    }
}
