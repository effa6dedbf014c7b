//! Tests of the workspace's structure as in ARCHITECTURE.md: dependencies between crates, places for `unsafe`, length
//! of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use stanchion_tests::{limits, rules::Proof, tools::workspace_dir as root};

/// Most lines of a source file, tests included.
const LINES: usize = 600;

/// Crates of the workspace that each crate may depend on. For plugins see [`allowed`].
const INSIDE: [(&str, &[&str]); 16] = [
    ("stanchion-pod", &[]),
    ("stanchion-runtime", &[]),
    ("stanchion-plan", &["stanchion-pod", "stanchion-runtime"]),
    ("stanchion-abi", &[]),
    ("stanchion-logger", &[]),
    ("stanchion-untrusted", &[]),
    ("stanchion-sdk", &["stanchion-abi", "stanchion-runtime", "stanchion-untrusted"]),
    ("stanchion-network", &["stanchion-runtime", "stanchion-untrusted"]),
    ("stanchion-registry", &["stanchion-runtime", "stanchion-sdk", "stanchion-untrusted"]),
    ("stanchion-loader", &["stanchion-abi", "stanchion-runtime"]),
    ("stanchion-board", &["stanchion-pod", "stanchion-runtime", "stanchion-untrusted"]),
    (
        "stanchion-agent",
        &["stanchion-board", "stanchion-plan", "stanchion-pod", "stanchion-runtime", "stanchion-untrusted"],
    ),
    (
        "stanchion",
        &[
            "stanchion-abi",
            "stanchion-agent",
            "stanchion-board",
            "stanchion-loader",
            "stanchion-pod",
            "stanchion-runtime",
            "stanchion-sdk",
            "stanchion-untrusted",
        ],
    ),
    (
        "stanchion-simulation",
        &[
            "stanchion-agent",
            "stanchion-board",
            "stanchion-plan",
            "stanchion-pod",
            "stanchion-runtime",
            "stanchion-tests",
        ],
    ),
    // xtask depends on it, and must build before any tool is installed.
    ("stanchion-tests", &[]),
    ("xtask", &["stanchion-tests"]),
];

/// External crates that only one crate of the workspace may use.
const HOMES: [(&str, &str); 5] = [
    ("libloading", "crates/loader"),
    ("serde_yaml", "crates/pod"),
    ("config", "crates/stanchion"),
    ("bollard", "plugins/docker"),
    ("containerd-client", "plugins/containerd"),
];

/// Crates without I/O, clock and tasks: they get everything that they know as arguments.
const PURE: [&str; 2] = ["stanchion-plan", "stanchion-pod"];
/// Modules of std that reach outside of the process, or of the thread.
const OUTSIDE: [&str; 6] = ["env", "fs", "io", "os", "process", "thread"];
/// Foreign crates that do I/O or run tasks.
const IMPURE: [&str; 6] = ["futures-util", "libc", "nix", "rustix", "tokio", "tracing"];

/// Crates and single files that may use `unsafe`.
const UNSAFE: [&str; 7] = [
    "crates/abi",
    "crates/sdk",
    "crates/loader",
    "crates/logger/src/inherited.rs",
    // Programs in user namespaces, ID-mapped mounts and realtime signals have no safe interface.
    "crates/network/src/namespaces/users.rs",
    // Its allocator counts the memory that decoding takes.
    "crates/pod/tests/bounds.rs",
    // It replaces the C library's source of randomness.
    "tests/simulation/src/fixed.rs",
];
/// The one module per plugin that may use `unsafe`, to make or enter namespaces.
const UNSAFE_IN_PLUGIN: &str = "namespaces/users.rs";
const UNSAFE_IN_PLUGIN_LINES: usize = 200;

/// Member of the workspace.
struct Member {
    name: String,
    /// Its directory, relative to the root.
    dir: PathBuf,
    /// Name and kind (`normal`, `dev`, `build`) of each dependency.
    dependencies: Vec<(String, String)>,
    crate_types: BTreeSet<String>,
}

impl Member {
    fn is_plugin(&self) -> bool {
        self.dir.starts_with("plugins")
    }
}

fn members() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let members: Vec<_> = list(&metadata["packages"]).iter().map(member).collect();
    assert!(members.len() > INSIDE.len(), "cargo metadata names {} packages", members.len());
    members
}

fn member(package: &Value) -> Member {
    let manifest = Path::new(text(&package["manifest_path"]));
    let dir = manifest.parent().and_then(|dir| dir.strip_prefix(root()).ok()).expect("a member is in the workspace");
    let dependencies = list(&package["dependencies"])
        .iter()
        .map(|it| (text(&it["name"]).to_owned(), it["kind"].as_str().unwrap_or("normal").to_owned()));
    let crate_types = list(&package["targets"]).iter().flat_map(|target| list(&target["crate_types"]));
    Member {
        name: text(&package["name"]).to_owned(),
        dir: dir.to_owned(),
        dependencies: dependencies.collect(),
        crate_types: crate_types.map(|it| text(it).to_owned()).collect(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata has text here")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("cargo metadata has a list here")
}

/// Returns whether member `from` may depend on member `on`.
fn allowed(from: &Member, on: &Member, kind: &str) -> bool {
    if kind == "dev" {
        // Tests may depend on more, but only stanchion-tests on plugins and the binary.
        return from.name == "stanchion-tests" || !(on.is_plugin() || on.name == "stanchion");
    }
    if from.is_plugin() {
        // The K3s backend builds on the containerd backend.
        let shared = ["stanchion-network", "stanchion-registry", "stanchion-sdk", "stanchion-untrusted"];
        let is_shared = shared.contains(&on.name.as_str());
        return is_shared || (from.dir.ends_with("k3s") && on.dir.ends_with("containerd"));
    }
    INSIDE.iter().any(|(name, may)| *name == from.name && may.contains(&on.name.as_str()))
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let members = members();
    let by_name: BTreeMap<_, _> = members.iter().map(|member| (member.name.as_str(), member)).collect();
    let mut wrong = Vec::new();
    for from in &members {
        let known = from.is_plugin() || INSIDE.iter().any(|(name, _)| *name == from.name);
        assert!(known, "{} is new: say in this test what it may depend on", from.name);
        for (name, kind) in &from.dependencies {
            if let Some(on) = by_name.get(name.as_str())
                && !allowed(from, on, kind)
            {
                wrong.push(format!("{} may not depend on {name} ({kind})", from.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn libraries_with_one_home_are_used_nowhere_else() {
    let mut wrong = Vec::new();
    for member in members() {
        for (name, _) in &member.dependencies {
            if let Some((_, home)) = HOMES.iter().find(|(library, _)| library == name)
                && member.dir != Path::new(home)
            {
                wrong.push(format!("{name} belongs to {home}, but {} depends on it", member.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_that_decide_are_pure() {
    let mut wrong = Vec::new();
    for member in members().iter().filter(|member| PURE.contains(&member.name.as_str())) {
        let dependencies = member.dependencies.iter().filter(|(_, kind)| kind == "normal");
        for (name, _) in dependencies.filter(|(name, _)| IMPURE.contains(&name.as_str())) {
            wrong.push(format!("{} depends on {name}", member.name));
        }
        let is_code = |path: &&PathBuf| path.starts_with(member.dir.join("src")) && !path.ends_with("tests.rs");
        for path in sources().iter().filter(is_code) {
            let source = fs::read_to_string(root().join(path)).expect("a source file is text");
            let used = names_in_std(&source).into_iter().filter(|name| OUTSIDE.contains(name));
            wrong.extend(used.map(|name| format!("{} uses std::{name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns every name that stands in a path below `std`, alone or in a list.
fn names_in_std(source: &str) -> BTreeSet<&str> {
    let is_name = |char: char| char.is_alphanumeric() || char == '_';
    let paths = source.split("std::").skip(1).map(|text| {
        let end = if text.starts_with('{') { text.find(';') } else { text.find(|char| !is_name(char)) };
        &text[..end.unwrap_or(text.len())]
    });
    paths.flat_map(|path| path.split(move |char| !is_name(char))).filter(|name| !name.is_empty()).collect()
}

#[test]
fn names_in_std_are_found_alone_and_in_lists() {
    let source = "use std::{\n    cmp,\n    fs::{self, File},\n};\nstd::process::exit(1);\nlet env = 1;";
    assert_eq!(names_in_std(source).into_iter().collect::<Vec<_>>(), ["File", "cmp", "fs", "process", "self"]);
}

#[test]
fn every_crate_keeps_the_workspaces_lints() {
    for member in members() {
        let path = root().join(&member.dir).join("Cargo.toml");
        let manifest = fs::read_to_string(&path).expect("a member has a manifest");
        let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
        let kept = lines.next() == Some("workspace = true");
        assert!(kept, "{}: [lints] workspace = true is missing", path.display());
    }
}

#[test]
fn plugins_are_loaded_and_linked() {
    for plugin in members().iter().filter(|member| member.is_plugin()) {
        for wanted in ["cdylib", "rlib"] {
            assert!(plugin.crate_types.contains(wanted), "{} is no {wanted}", plugin.name);
        }
    }
}

#[test]
fn no_file_is_longer_than_its_idea() {
    let mut wrong = Vec::new();
    for path in sources() {
        let lines = fs::read_to_string(root().join(&path)).expect("a source file is text").lines().count();
        if lines > LINES {
            wrong.push(format!("{} has {lines} lines, at most {LINES}: split it by ideas", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Calls in `Worker::sync`, in the order of its documentation: (number of the step there, the call).
const SYNC: [(&str, &str); 16] = [
    ("1. `apply_results`", "self.apply_results("),
    ("2. `mark_observations`", "self.inbox.mark_observations("),
    ("3. `settle`", "self.location.settle("),
    ("4. `snapshot`", "self.snapshot("),
    ("5. `apply_restarts`", "self.apply_restarts("),
    ("6. `search`", "self.location.search("),
    ("7. `read_records`", "self.recall.sync("),
    ("7. `read_records`", "self.recall.count("),
    ("7. `read_records`", "lifecycle::recall("),
    ("7. `read_records`", "messages::read("),
    ("8. `projections`", "self.projections.sync("),
    ("8. `projections`", "self.usage.sync("),
    ("9. `decide`", "self.decide("),
    ("10. `lifecycle`", "self.lifecycle.sync("),
    ("11. `announce`", "self.announce("),
    ("11. `announce`", "self.show("),
];

#[test]
fn a_sync_of_the_worker_has_its_steps_in_the_order_that_is_written_above_it() {
    let source = fs::read_to_string(root().join("crates/agent/src/worker.rs")).expect("the worker");
    let (before, after) = source.split_once("    async fn sync(&mut self)").expect("the worker syncs");
    let (_, documentation) = before.rsplit_once("\n\n").expect("it is documented");
    let body = after.split_once("\n    }\n").expect("it ends").0;
    // The seventh step has a function of its own.
    let (_, read_records) = source.split_once("    async fn read_records(&mut self").expect("the worker reads records");
    let body = body.replacen(
        "self.read_records(&snapshot).await;",
        read_records.split_once("\n    }\n").expect("it ends").0,
        1,
    );
    let mut text = documentation;
    let mut code = body.as_str();
    for (step, call) in SYNC {
        text = &text[text.find(step).unwrap_or_else(|| panic!("{step} is not documented, or later"))..];
        code = code.split_once(call).unwrap_or_else(|| panic!("{call} is not called, or earlier")).1;
    }
    let steps = documentation.lines().filter(|line| line.trim_start_matches([' ', '/']).starts_with(char::is_numeric));
    assert_eq!(steps.count(), 11, "a step has no row in this test");
}

/// Files of the agent that read the board: they answer users, or show.
const READERS: [&str; 3] = ["api", "health.rs", "worker/show.rs"];

#[test]
fn nothing_that_decides_reads_the_board() {
    let agent = Path::new("crates/agent/src");
    let reads =
        ["pod(", "pods(", "watch(", "sources(", "backends(", "node(", "changes("].map(|it| format!("board.{it}"));
    for path in sources().into_iter().filter(|path| path.starts_with(agent) && !path.ends_with("tests.rs")) {
        let name = path.strip_prefix(agent).expect("it is there").display().to_string();
        if READERS.iter().any(|reader| name.starts_with(reader)) {
            continue;
        }
        let source = fs::read_to_string(root().join(&path)).expect("a source");
        let read = reads.iter().find(|read| source.contains(*read));
        assert_eq!(read, None, "{name} reads the board, and is none of {READERS:?}");
    }
}

#[test]
fn ids_of_rules_are_in_their_list_and_belong_to_tests() {
    let proof = Proof::collect(&root()).expect("the list of rules and the sources can be read");
    assert!(proof.problems.is_empty(), "{}", proof.problems.join("\n"));
}

#[test]
fn every_limit_is_on_its_page() {
    let limits = limits::collect(&root()).expect("the limits can be read");
    assert!(limits.len() > 30, "only {} limits were found", limits.len());
    let page = fs::read_to_string(root().join("docs/limits.md")).expect("there is a page");
    assert!(page == limits::page(&limits), "docs/limits.md is not what the modules say: run `cargo xtask limits`");
}

#[test]
fn unsafe_code_stays_at_the_boundaries() {
    let mut wrong = Vec::new();
    let mut in_plugins: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in sources() {
        let source = fs::read_to_string(root().join(&path)).expect("a source file is text");
        if !uses_unsafe(&source) || UNSAFE.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        let small = source.lines().count() <= UNSAFE_IN_PLUGIN_LINES;
        if path.starts_with("plugins") && path.ends_with(UNSAFE_IN_PLUGIN) && small {
            in_plugins.entry(path.components().take(2).collect()).or_default().push(path);
        } else {
            wrong.push(format!("{} uses unsafe", path.display()));
        }
    }
    for (plugin, files) in in_plugins.into_iter().filter(|(_, files)| files.len() > 1) {
        wrong.push(format!("{} uses unsafe in more than one module: {files:?}", plugin.display()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the project's source files, relative to the root.
fn sources() -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    let mut dirs: Vec<_> = ["crates", "plugins", "tests", "xtask"].map(|dir| root.join(dir)).into();
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("an entry of a directory").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(&root).expect("it is below the root").to_owned());
            }
        }
    }
    assert!(found.len() > 50, "only {} source files were found", found.len());
    found
}

/// Returns whether `unsafe` occurs in code, not in comments or strings.
fn uses_unsafe(source: &str) -> bool {
    source.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        // Every second piece is inside quotes.
        let outside = code.split('"').step_by(2);
        outside
            .flat_map(|piece| piece.split(|char: char| char != '_' && !char.is_alphanumeric()))
            .any(|it| it == "unsafe")
    })
}

#[test]
fn the_search_for_unsafe_finds_it() {
    let keyword = "unsafe";
    for (line, uses) in [
        (format!("let it = {keyword} {{ call() }};"), true),
        (format!("{keyword}impl Send for X {{}}"), false),
        (format!("{keyword} impl Send for X {{}}"), true),
        (format!("#![allow({keyword}_code)]"), false),
        (format!("let it = 1; // {keyword} is not needed"), false),
        (format!("let text = \"{keyword} text\";"), false),
        (format!("call(\"text\", {keyword} {{ it }});"), true),
    ] {
        assert_eq!(uses_unsafe(&line), uses, "{line}");
    }
}
