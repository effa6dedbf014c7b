//! Test that the program ignores no argument: it tries each on the program itself, with agents that record their
//! requests.
//!
//! # Layout
//! - [`no_argument_is_ignored`]: the walk over all commands. [`base`], [`trials`]: command lines and values to try; an
//!   unknown argument fails the test. [`Node`]: runs the program. [`agent`]: a fake agent.

mod agent;

use std::{
    collections::HashMap,
    process::{Command as Process, Stdio},
    sync::{Arc, Mutex},
};

use super::*;

/// Variable with the command line for [`the_program`], one word per line.
const LINE: &str = "STANCHION_TEST_LINE";
/// A manifest that is valid with a warning.
const DOUBTFUL: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec:\n  schedulerName: mine\n  containers:\n  - \
                        {name: a, image: b}\n";

/// Runs the program in a process that [`Node::run`] starts, and does nothing otherwise.
#[test]
fn the_program() {
    let Ok(line) = std::env::var(LINE) else { return };
    println!("{:?}", program(&line.split('\n').map(OsString::from).collect::<Vec<_>>()));
    #[expect(clippy::exit, reason = "the harness must print nothing after what the program has printed")]
    std::process::exit(0);
}

/// Observed result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    out: String,
    err: String,
    /// Requests that the agents received, each with the agent's name.
    asked: Vec<String>,
}

impl Outcome {
    fn is_failure(&self) -> bool {
        !self.out.contains(&format!("{:?}", ExitCode::SUCCESS))
    }

    /// Returns whether the command failed with an error that names the argument or its value.
    fn is_refusal(&self, trial: &Trial) -> bool {
        self.is_failure() && trial.names.iter().any(|name| self.err.contains(name))
    }
}

/// Directory with configurations, manifests and agents.
struct Node {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    seen: HashMap<Vec<String>, Outcome>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let asked = Arc::default();
        for name in ["one", "two", "three", "run-a", "run-b"] {
            let own = dir.path().join(name);
            std::fs::create_dir(&own).expect("made");
            match name {
                // A directory in place of the socket makes the agent fail there and end.
                "run-a" | "run-b" => std::fs::create_dir(own.join("stanchion.sock")).expect("made"),
                _ => agent::start(name, &own.join("stanchion.sock"), &asked),
            }
            let own = own.display();
            let settings = format!(
                "[agent]\nnode_name = \"{name}\"\nstate_dir = \"{own}/state\"\nrun_dir = \"{own}\"\nlog_dir = \"{own}/log\"\n"
            );
            // No library has this digest.
            let backend = format!("[backend.tried]\nlibrary = \"/tried.so\"\nsha256 = \"{}\"\n", "0".repeat(64));
            let settings = if name == "two" { settings + &backend } else { settings };
            std::fs::write(dir.path().join(format!("{name}.toml")), settings).expect("written");
        }
        std::fs::create_dir(dir.path().join("more")).expect("made");
        for file in ["web.yaml", "db.yaml", "more/twin.yaml"] {
            let name = file.trim_start_matches("more/").trim_end_matches(".yaml");
            std::fs::write(dir.path().join(file), DOUBTFUL.replace("NAME", name)).expect("written");
        }
        for file in ["one.so", "two.so"] {
            std::fs::write(dir.path().join(file), "no library").expect("written");
        }
        Self { dir, asked, seen: HashMap::new() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs a command to its end, only once for each line.
    fn run(&mut self, line: &[String]) -> Outcome {
        if let Some(outcome) = self.seen.get(line) {
            return outcome.clone();
        }
        let outcome = self.run_again(line);
        self.seen.insert(line.to_vec(), outcome.clone());
        outcome
    }

    /// Returns the problem of an argument, alone or beside another one.
    fn problem(&mut self, command: &str, base: &Words, trial: &Trial, other: Option<&Trial>) -> Option<String> {
        let others: Vec<_> = other.into_iter().collect();
        let without = self.run(&line(command, base, &others, Some(trial)));
        let both: Vec<_> = [trial].into_iter().chain(other).collect();
        let words = line(command, base, &both, None);
        let with = self.run(&words);
        let words = words.join(" ");
        if with == without {
            // The other argument may refuse the companions of this one by name.
            let mut options = trial.beside.iter().flat_map(|(_, words)| words).filter(|word| word.starts_with("--"));
            let is_told = without.is_failure() && options.any(|option| without.err.contains(option));
            return (!is_told).then(|| format!("{} is ignored in: {words}", trial.names.join(" ")));
        }
        let is_refused = with.is_failure() && !without.is_failure() && !with.err.is_empty();
        let is_named = both.iter().any(|trial| with.is_refusal(trial));
        (is_refused && !is_named).then(|| format!("no argument is named in: {words}: {}", with.err))
    }

    fn run_again(&self, line: &[String]) -> Outcome {
        let is_agent = line.first().is_some_and(|command| command == "run");
        let words: Vec<_> = ["stanchion"].into_iter().chain(line.iter().map(String::as_str)).collect();
        let output = Process::new(std::env::current_exe().expect("this program is a file"))
            .args(["--exact", "tests::the_program", "--nocapture", "--test-threads=1"])
            .env(LINE, words.join("\n"))
            .env("STANCHION_CONFIG", self.path(if is_agent { "run-a.toml" } else { "one.toml" }))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("it writes text"));
        // Hides the time of a log line.
        let err = if is_agent { err.replace(|char: char| char.is_ascii_digit(), "0") } else { err };
        Outcome { out, err, asked: std::mem::take(&mut *self.asked.lock().expect("nobody panicked")) }
    }
}

/// Words of a command line by argument, in order.
type Words = Vec<(&'static str, Vec<String>)>;

/// An argument with a value to try.
#[derive(Clone, Debug)]
struct Trial {
    /// Arguments that must be present for this one to matter.
    beside: Words,
    id: &'static str,
    words: Vec<String>,
    /// Names by which an error may refer to it.
    names: Vec<String>,
}

impl Trial {
    fn set(&self, words: &mut Words) {
        set(words, self.id, self.words.clone());
    }

    /// Returns whether the other argument changes a companion of this one.
    fn is_bound_to(&self, other: &Self) -> bool {
        self.id == other.id || self.beside.iter().any(|(id, _)| *id == other.id)
    }
}

fn set(words: &mut Words, id: &'static str, value: Vec<String>) {
    match words.iter_mut().find(|(it, _)| *it == id) {
        Some((_, words)) => *words = value,
        None => words.push((id, value)),
    }
}

/// Builds the command line with these trials, and with the companions, but not the argument, of `without`.
fn line(command: &str, base: &Words, with: &[&Trial], without: Option<&Trial>) -> Vec<String> {
    let mut words = base.clone();
    with.iter()
        .copied()
        .chain(without)
        .flat_map(|it| &it.beside)
        .for_each(|(id, value)| set(&mut words, id, value.clone()));
    let mut with = with.to_vec();
    with.sort_by_key(|trial| trial.id);
    with.iter().for_each(|trial| trial.set(&mut words));
    // All words after -- belong to the program in the container.
    words.sort_by_key(|(id, _)| *id == "command");
    command.split(' ').map(str::to_owned).chain(words.into_iter().flat_map(|(_, words)| words)).collect()
}

fn owned<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Returns the minimal command lines of a command; for `get` one per kind.
fn base(node: &Node, command: &str) -> Vec<Words> {
    let pod = || ("pod", owned(["web"]));
    match command {
        "run" | "events" | "backends" | "images prune" | "doctor" => vec![Vec::new()],
        "validate" => vec![vec![("files", vec![node.path("web.yaml")])]],
        "get" => ["pods", "nodes", "events", "manifests", "backends"].map(|kind| vec![("kind", owned([kind]))]).into(),
        "describe" => vec![vec![("kind", owned(["pod"])), ("name", owned(["web"]))]],
        "logs" | "restart" => vec![vec![pod()]],
        "exec" => vec![vec![pod(), ("command", owned(["--", "ls"]))]],
        "backend check" => vec![vec![("library", vec![node.path("one.so")])]],
        other => panic!("say here how {other:?} is called"),
    }
}

/// Returns the values to try for an argument of a command.
fn trials(node: &Node, command: &str, base: &Words, argument: &clap::Arg) -> Vec<Trial> {
    let kind = base.iter().find(|(id, _)| command == "get" && *id == "kind").map_or("", |(_, words)| words[0].as_str());
    let option = argument.get_long().map(|long| format!("--{long}"));
    let flag = || vec![Vec::new()];
    let one = |value: &str| vec![owned([value])];
    let mut beside: Words = Vec::new();
    let (id, values): (_, Vec<Vec<String>>) = match (command, argument.get_id().as_str()) {
        ("run", "config") => ("config", one(&node.path("run-b.toml"))),
        (_, "config") => ("config", one(&node.path("two.toml"))),
        (_, "socket") => ("socket", one(&node.path("three/stanchion.sock"))),
        ("run", "log_format") => ("log_format", one("json")),
        ("validate", "files") => ("files", ["db.yaml", "more"].map(|file| vec![node.path(file)]).into()),
        ("validate", "strict") => ("strict", flag()),
        ("validate", "output") => ("output", one("json")),
        ("get", "kind") => ("kind", one(if kind == "nodes" { "backends" } else { "nodes" })),
        ("get", "name") => (
            "name",
            one(match kind {
                "pods" => "web",
                "manifests" => "one.yaml",
                "backends" => "docker",
                // There is one node, and events have no names.
                _ => "missing",
            }),
        ),
        ("get", "namespace") => ("namespace", one("other")),
        ("get", "all_namespaces") => {
            // It is the default without --namespace too, so it needs one to have an effect.
            if matches!(kind, "pods" | "events") {
                beside.push(("namespace", owned(["--namespace", "other"])));
            }
            ("all_namespaces", flag())
        }
        ("get" | "backends", "output") => ("output", ["wide", "json", "yaml", "name"].map(|form| owned([form])).into()),
        ("get" | "events", "watch") => ("watch", flag()),
        ("get", "show_removed") => ("show_removed", flag()),
        ("describe", "kind") => ("kind", one("node")),
        ("describe", "name") => ("name", one("db")),
        ("describe" | "logs" | "exec" | "restart", "namespace") => {
            // Two pods have that name.
            beside.push((if command == "describe" { "name" } else { "pod" }, owned(["twin"])));
            ("namespace", one("other"))
        }
        ("logs" | "exec" | "restart", "pod") => ("pod", one("db")),
        ("logs", "container_name") => ("container_name", one("side")),
        ("logs" | "exec" | "restart", "container") => ("container", one("side")),
        ("logs", "follow") => ("follow", flag()),
        ("logs", "previous") => ("previous", flag()),
        ("logs", "tail") => ("tail", ["0", "5"].map(|lines| owned([lines])).into()),
        ("logs", "since") => ("since", one("1h30m")),
        ("logs", "since_time") => ("since_time", one("2026-01-31T08:00:00Z")),
        ("logs", "timestamps") => ("timestamps", flag()),
        ("exec", "stdin") => ("stdin", flag()),
        ("exec", "tty") => ("tty", flag()),
        ("exec", "command") => ("command", vec![owned(["--", "id"]), owned(["--", "ls", "-l"])]),
        ("images prune", "dry_run") => ("dry_run", flag()),
        ("images prune", "output") => ("output", ["json", "yaml"].map(|form| owned([form])).into()),
        ("backend check", "library") => ("library", one(&node.path("two.so"))),
        ("backend check", "name") => ("name", one("tried")),
        // These need a backend that can be loaded: see `the_suite_heeds_its_arguments`.
        ("backend check", "image" | "only") => return Vec::new(),
        (command, id) => {
            panic!("say here what the argument {id:?} of {command:?} is tried with, and heed or refuse it")
        }
    };
    let short = argument.get_short().map(|short| format!("-{short}"));
    let name = option.clone().unwrap_or_else(|| id.to_uppercase());
    let trial = |value: Vec<String>| {
        let names =
            value.iter().filter(|word| *word != "--").cloned().chain(short.clone()).chain([name.clone()]).collect();
        Trial { beside: beside.clone(), id, words: option.clone().into_iter().chain(value).collect(), names }
    };
    values.into_iter().map(trial).collect()
}

/// Collects all commands that do something, with their arguments and the global ones of the commands above them.
fn commands<'a>(
    command: &'a clap::Command,
    path: &str,
    above: &[&'a clap::Arg],
    found: &mut Vec<(String, Vec<&'a clap::Arg>)>,
) {
    let own = || command.get_arguments().filter(|it| !matches!(it.get_id().as_str(), "help" | "version"));
    if !command.has_subcommands() {
        found.push((path.trim().to_owned(), own().chain(above.iter().copied()).collect()));
        return;
    }
    let global: Vec<_> = own().chain(above.iter().copied()).collect();
    assert!(global.iter().all(|it| it.is_global_set()), "try the arguments of {path:?} that are not global");
    command.get_subcommands().for_each(|it| commands(it, &format!("{path} {}", it.get_name()), &global, found));
}

/// Checks that each argument of each command has an effect or is refused by name, alone and beside each other one.
#[test]
fn no_argument_is_ignored() {
    let program = Arguments::command();
    let mut all = Vec::new();
    commands(&program, "", &[], &mut all);
    assert!(all.len() > 10, "{all:?}");
    let mut node = Node::new();
    let mut wrong = Vec::new();
    for (command, arguments) in &all {
        for base in base(&node, command) {
            let plain = line(command, &base, &[], None);
            assert_eq!(node.run(&plain), node.run_again(&plain), "{command}: chance decides");
            let mut heeded: Vec<Trial> = Vec::new();
            for argument in arguments {
                let tried = trials(&node, command, &base, argument);
                wrong.extend(tried.iter().filter_map(|trial| node.problem(command, &base, trial, None)));
                // An argument that is refused alone needs no test beside others.
                let is_heeded = |trial: &&Trial| {
                    let without = node.run(&line(command, &base, &[], Some(trial)));
                    let with = node.run(&line(command, &base, &[trial], None));
                    !with.is_refusal(trial) || without.is_refusal(trial)
                };
                heeded.extend(tried.iter().find(is_heeded).cloned());
            }
            for (trial, other) in heeded.iter().flat_map(|it| heeded.iter().map(move |other| (it, other))) {
                if !trial.is_bound_to(other) && !other.is_bound_to(trial) {
                    wrong.extend(node.problem(command, &base, trial, Some(other)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// Global options may stand before a command's name or after it.
#[test]
fn no_option_is_forgotten_for_a_later_one() {
    let mut node = Node::new();
    for (option, values) in [("--config", ["one.toml", "two.toml"]), ("--socket", ["one/s", "three/stanchion.sock"])] {
        let [first, second] = values.map(|value| node.path(value));
        let joined = format!("{option}={second}");
        for words in [&[option, &first, "get", "pods", option, &second][..], &[option, &first, "backends", &joined]] {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            let outcome = node.run(&words);
            assert!(outcome.is_failure() && outcome.err.contains(option), "{words:?}: {}", outcome.err);
            assert!(outcome.asked.is_empty(), "{words:?}");
        }
        let words = owned(["exec", "web", option, &second, "--", "ls", option, &first]);
        assert!(!node.run(&words).is_failure(), "what comes after -- is not ours");
    }
}

#[test]
fn the_suite_heeds_its_arguments() {
    let suite = |words: &[&str]| {
        let words = ["stanchion", "backend", "check", "one.so"].into_iter().chain(words.iter().copied());
        let Command::Backend(commands::backend::Action::Check(check)) =
            Arguments::try_parse_from(words).expect("clap takes it").command
        else {
            panic!("it is backend check")
        };
        let suite = commands::backend::suite(&check, false, std::path::Path::new("/suite"));
        suite.map(|suite| (suite.image, suite.only)).map_err(|error| error.to_string())
    };
    assert!(suite(&[]).is_err_and(|error| error.contains("--image")));
    assert_eq!(suite(&["--image", "i"]), Ok(("i".to_owned(), None)));
    assert_eq!(suite(&["--image", "i", "--only", "o"]), Ok(("i".to_owned(), Some("o".to_owned()))));
}
