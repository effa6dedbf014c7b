//! Replay of a recording's steps on a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use stanchion_tests::{
    Node,
    ctr::Running,
    golden::{
        Words,
        compare::{self, Difference},
        socket, timeline, trace,
    },
    node::NODE_NAME,
    process,
    wait::{lock, pause},
};

use crate::{
    events,
    inside::{self, Inside},
    listed::Listed,
    sandbox,
    scenario::{Identity, Scenario},
    watch::{self, Watch},
};

/// Patience with steps that the kubelet does at once; the machine is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Patience until the node shows the recorded pod; [`LATER`] after a wait for `CrashLoopBackOff`, which the kubelet
/// shows only at a periodic sync.
const SOON: Duration = Duration::from_secs(8);
const LATER: Duration = Duration::from_secs(100);

/// Scenario that is replayed on a node.
pub struct Replay<'a> {
    node: &'a Node,
    scenario: &'a Scenario,
    listed: &'a Listed,
    words: Words,
    identity: Identity,
    socket: PathBuf,
    watch: Watch,
    /// Differences found; manifests written; answers from inside the containers.
    found: Mutex<Vec<Difference>>,
    written: Mutex<BTreeSet<String>>,
    seen: Mutex<BTreeMap<String, String>>,
    /// Times when the manifest was first written and first removed, in seconds since boot.
    begun: Mutex<Option<f64>>,
    removed: Mutex<Option<f64>>,
    waits: Mutex<Duration>,
}

impl<'a> Replay<'a> {
    pub fn new(node: &'a Node, scenario: &'a Scenario, listed: &'a Listed) -> Result<Self> {
        let words = words(node)?;
        let identity = scenario.identity()?;
        let socket = node.path("run/stanchion.sock");
        let watch = Watch::new(&socket, path(&words, &identity));
        Ok(Self {
            node,
            scenario,
            listed,
            words,
            identity,
            socket,
            watch,
            found: Mutex::default(),
            written: Mutex::default(),
            seen: Mutex::default(),
            begun: Mutex::default(),
            removed: Mutex::default(),
            waits: Mutex::new(SOON),
        })
    }

    pub fn run(self) -> Result<()> {
        let replayed = thread::scope(|scope| {
            scope.spawn(|| self.watch.run());
            let replayed = self.steps();
            self.watch.end();
            replayed
        });
        for file in lock(&self.written).iter() {
            self.node.remove(file)?;
        }
        replayed
    }

    fn steps(&self) -> Result<()> {
        for step in self.scenario.steps()? {
            self.step(&step).with_context(|| format!("step {step:?}"))?;
        }
        for (file, identity) in self.scenario.others()? {
            let shown = socket::get(&self.socket, &path(&self.words, &identity))?;
            let shown = shown.map_or(Value::Null, |mut view| view["pod"].take());
            self.note(compare::pods(&file, &self.scenario.json(&file)?, &self.words.pod(&shown)));
        }
        self.watch.close();
        self.note(timeline::differences(&self.scenario.timeline()?, &self.watch.entries()));
        self.note(self.events()?);
        self.note(self.inside()?);
        self.note(self.refusal()?);
        let found = std::mem::take(&mut *lock(&self.found));
        self.listed.meet(&self.scenario.name, &found);
        let unlisted = self.listed.unlisted(&self.scenario.name, found);
        let said: Vec<_> = unlisted.iter().map(|it| format!("  {it}")).collect();
        ensure!(said.is_empty(), "it differs:\n{}", said.join("\n"));
        self.listed.check(&self.scenario.name)
    }

    fn note(&self, found: impl IntoIterator<Item = Difference>) {
        lock(&self.found).extend(found);
    }

    fn step(&self, step: &str) -> Result<()> {
        let step = self.words.ours(&step.replace("<scenario>", self.scenario.short()));
        let words: Vec<_> = step.split(' ').collect();
        match words[..] {
            ["write", manifest, "into", "the", "manifest", "directory", "as", file] => {
                lock(&self.begun).get_or_insert(uptime()?);
                lock(&self.written).insert(file.to_owned());
                self.node.write(file, self.words.ours(&self.scenario.text(manifest)?))
            }
            ["remove", "the", "file"] => self.remove(&format!("{}.yaml", self.scenario.short())),
            ["remove", file] => self.remove(file),
            ["rename", from, "to", to] => {
                lock(&self.written).insert(to.to_owned());
                fs::rename(self.node.manifest(from), self.node.manifest(to)).context("renaming a manifest")
            }
            ["wait", seconds, "s"] => {
                pause(Duration::from_secs(seconds.parse().context("a number of seconds")?));
                Ok(())
            }
            ["wait", "until", ..] => self.until(&words[2..]),
            ["send", "signal", number, "to", "the", "first", "process", "of", ref whose @ ..] => {
                self.signal(number.parse().context("the number of a signal")?, whose)
            }
            ["remove", "the", "container", "of", container, "at", "the", "runtime,", "with", "force"] => {
                let running = self.running(container)?;
                self.node.view().destroy(&running.record.id)
            }
            ["make", ref directory @ .., "with", "a", "symbolic", "link", link, "to", target] => {
                self.make_link(&directory.join(" "), link, target)
            }
            ["prepare:", ..] => self.prepare(step.trim_start_matches("prepare: ")),
            ["make", "dir/,", ..] => self.make_files(),
            ["record", file] if file.ends_with(".json") => self.compare(file),
            ["record", "trace.txt", ..] => self.compare_trace(),
            ["then:"] => {
                self.watch.close();
                Ok(())
            }
            ["exec", "in", ..] | ["record", ..] | ["record:", ..] => {
                let question =
                    step.trim_start_matches("exec in ").trim_start_matches("record").trim_start_matches(": ");
                self.look(question)
            }
            _ => bail!("it is not understood"),
        }
    }

    fn remove(&self, file: &str) -> Result<()> {
        lock(&self.removed).get_or_insert(uptime()?);
        self.node.remove(file)
    }

    fn until(&self, words: &[&str]) -> Result<()> {
        let what = words.join(" ");
        let wait = |holds: &dyn Fn(&Value) -> bool| self.watch.until(&what, PATIENCE, holds);
        match *words {
            ["the", "pod", "is", "Ready"] => wait(&watch::is_ready),
            ["the", "pod", "is", "gone", ..] => wait(&watch::is_absent),
            ["its", "sandbox", "has", "stopped"] => {
                wait(&Value::is_null)?;
                let name = self.words.ours(&self.identity.name);
                self.node.until("its containers to be gone", || {
                    let running = self.node.view().of_pod(&name)?;
                    ensure!(running.is_empty(), "{running:?}");
                    Ok(())
                })
            }
            ["phase", "is", phase] => wait(&|pod| pod["status"]["phase"] == phase),
            ["ready", "of", name, "is", ready] => {
                let ready: bool = ready.parse().context("true or false")?;
                wait(&|pod| watch::status(pod, name)["ready"] == ready)
            }
            ["restartCount", "of", name, "is", count] => {
                let count: u64 = count.parse().context("a number of restarts")?;
                let what = format!("restart {count} of {name}");
                self.watch
                    .until(&what, LATER * 2, |pod| watch::status(pod, name)["restartCount"].as_u64() >= Some(count))
            }
            [name, "runs"] => wait(&|pod| !watch::status(pod, name)["state"]["running"].is_null()),
            [name, "is", "terminated"] => wait(&|pod| !watch::status(pod, name)["state"]["terminated"].is_null()),
            [name, "waits", "with", "reason", reason] => {
                // The kubelet shows the back-off only at a periodic sync, mostly the one that ends it.
                *lock(&self.waits) = if reason == "CrashLoopBackOff" { LATER } else { SOON };
                wait(&|pod| watch::status(pod, name)["state"]["waiting"]["reason"] == reason)
            }
            _ => bail!("it is not understood"),
        }
    }

    /// Returns the pod's running container with this name in the manifest.
    fn running(&self, name: &str) -> Result<Running> {
        let running = self.node.view().of_pod(&self.words.ours(&self.identity.name))?;
        let found = running.into_iter().find(|running| running.record.container() == name);
        found.with_context(|| format!("{name} does not run"))
    }

    fn signal(&self, number: i32, whose: &[&str]) -> Result<()> {
        match *whose {
            ["the", "pod", "sandbox"] => sandbox::lose(self.node, &self.words.ours(&self.identity.name)),
            [name] => {
                let pid = self.running(name)?.pid.to_string();
                process::text(Command::new("kill").args([&format!("-{number}"), &pid])).map(drop)
            }
            _ => bail!("nobody is meant"),
        }
    }

    /// Makes a directory, absolute or relative to [`host_dir`](Self::host_dir), with a symbolic link in it.
    fn make_link(&self, directory: &str, link: &str, target: &str) -> Result<()> {
        let directory = self.host_dir().join(directory.trim_matches(['"', '/']).trim_start_matches("./"));
        let directory = match directory.to_string_lossy().rsplit_once("golden-test/") {
            Some((_, below)) => self.node.path("golden-test").join(below),
            None => directory,
        };
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let link = directory.join(link.trim_matches('"'));
        symlink(target.trim_matches('"'), &link).with_context(|| format!("linking {}", link.display()))
    }

    /// Returns the directory of the scenario's `hostPath` volumes.
    fn host_dir(&self) -> PathBuf {
        self.node.path("golden-test").join(self.scenario.short())
    }

    fn prepare(&self, script: &str) -> Result<()> {
        let dir = self.host_dir();
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        process::text(Command::new("sh").args(["-c", script]).current_dir(&dir)).map(drop)
    }

    fn make_files(&self) -> Result<()> {
        let dir = self.host_dir();
        fs::create_dir_all(dir.join("dir")).with_context(|| format!("making {}", dir.display()))?;
        fs::write(dir.join("file"), "file\n").context("writing a file")?;
        fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o640)).context("protecting a file")?;
        UnixListener::bind(dir.join("sock")).map(drop).context("making a socket")
    }

    /// Compares the pod with the recording until they agree or the time is over, and notes the last differences.
    fn compare(&self, file: &str) -> Result<()> {
        let recorded = self.words.pod(&self.scenario.json(file)?);
        let (begun, within) = (Instant::now(), *lock(&self.waits));
        loop {
            let shown = self.watch.pod();
            let shown = if watch::is_absent(&shown) { Value::Null } else { self.words.pod(&shown) };
            let found = compare::pods(file, &recorded, &shown);
            let agrees = self.listed.unlisted(&self.scenario.name, found.clone()).is_empty();
            if agrees || begun.elapsed() > within {
                self.note(found);
                return Ok(());
            }
            pause(Duration::from_millis(100));
        }
    }

    fn compare_trace(&self) -> Result<()> {
        let (begun, removed) = (*lock(&self.begun), *lock(&self.removed));
        let since = if removed.is_some() { self.scenario.killed_at() } else { None };
        let recorded = trace::lines(&self.scenario.text("trace.txt")?, 1.0, since.unwrap_or(0.0));
        let path = self.host_dir().join("trace");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let found = trace::lines(&text, 1000.0, removed.or(begun).unwrap_or(0.0) * 1000.0);
        self.note(trace::differences(&recorded, &found));
        Ok(())
    }

    fn look(&self, question: &str) -> Result<()> {
        let pod = self.watch.pod();
        let host_dir = self.host_dir();
        let inside =
            Inside { node: self.node, words: &self.words, identity: &self.identity, pod: &pod, dir: &host_dir };
        let recorded = self.scenario.seen()?;
        lock(&self.seen).extend(inside.look(question, &recorded)?);
        Ok(())
    }

    /// Compares what the containers saw, line by line.
    fn inside(&self) -> Result<Vec<Difference>> {
        let (recorded, seen) = (self.scenario.seen()?, lock(&self.seen));
        let differ = |(question, text): (&String, &String)| {
            let lines = |text: Option<&String>| {
                let mut lines: Vec<_> = text.map(|text| inside::plain(text)).unwrap_or_default();
                // The order of stdout and stderr lines in a log is random.
                if question.starts_with("log of ") {
                    lines.sort();
                }
                json!(lines)
            };
            compare::pods(&format!("seen: {question}"), &lines(Some(text)), &lines(seen.get(question)))
        };
        Ok(recorded.iter().flat_map(differ).collect())
    }

    /// Compares the events of the scenario's pods, see [`events`].
    fn events(&self) -> Result<Vec<Difference>> {
        let recorded = self.scenario.events()?;
        let all = socket::get(&self.socket, "/v1/events")?.unwrap_or_default();
        let object = |it: &Identity| format!("Pod/{}/{}", it.namespace, self.words.ours(&it.name));
        // The recording has no events of pods that the kubelet did not run.
        let is_shown = |(file, _): &(String, Identity)| self.scenario.json(file).is_ok_and(|pod| !pod.is_null());
        let others: Vec<_> = self.scenario.others()?.into_iter().filter(is_shown).collect();
        let objects: Vec<_> = others.iter().map(|(_, other)| other).chain([&self.identity]).map(object).collect();
        let is_own = |event: &&Value| objects.iter().any(|object| event["object"] == object.as_str());
        let mut own: Vec<_> = all.as_array().into_iter().flatten().filter(is_own).collect();
        own.sort_by_key(|it| it["first"].as_str().map(str::to_owned));
        let words = self.words.of(&self.watch.pod());
        let text = |value: &Value| words.theirs(value.as_str().unwrap_or_default());
        let field = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let found = own
            .into_iter()
            .map(|it| [text(&it["type"]), text(&it["reason"]), field(text(&it["field"])), text(&it["message"])]);
        Ok(events::differences(recorded, found))
    }

    /// Compares the reason why a manifest was refused; `None` if the recording has no refusal or they agree.
    fn refusal(&self) -> Result<Option<Difference>> {
        if !self.scenario.json("pod.json")?.is_null() {
            return Ok(None);
        }
        let Ok(log) = self.scenario.text("log.txt") else { return Ok(None) };
        let quoted = log.lines().next().and_then(|line| line.split_once(" err=")).map(|(_, quoted)| quoted);
        let said: String = quoted.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let recorded = said.split_once(".yaml\": ").map_or(said.as_str(), |(_, why)| why);
        let sources = socket::get(&self.socket, "/v1/sources")?.unwrap_or_default();
        let file = self.node.manifest(&format!("{}.yaml", self.scenario.short()));
        let manifests = sources.as_array().into_iter().flatten().filter_map(|it| it["manifests"].as_array()).flatten();
        let manifest = manifests.into_iter().find(|it| it["path"] == file.to_string_lossy().as_ref());
        let problems = manifest.and_then(|it| it["problems"].as_array()).cloned().unwrap_or_default();
        let problem = |it: &Value| match (it["field"].as_str(), it["message"].as_str()) {
            (Some(field), Some(message)) => format!("{field}: {message}"),
            (_, message) => message.unwrap_or_default().to_owned(),
        };
        let found: Vec<_> = problems.iter().map(problem).collect();
        let found = self.words.theirs(&format!("invalid pod: [{}]", found.join(" ")));
        // Stanchion's message may say more, such as the place of a reference.
        let found = if found.contains(recorded) { recorded } else { &found };
        Ok(compare::place("log: refusal", &recorded.into(), &found.into()))
    }
}

/// Returns the API path of a pod.
fn path(words: &Words, identity: &Identity) -> String {
    format!("/v1/pods/{}/{}", identity.namespace, words.ours(&identity.name))
}

/// Returns the translation between this node's names, paths and ports and those in the recordings.
fn words(node: &Node) -> Result<Words> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let resolver = fs::read_to_string("/etc/resolv.conf").context("reading /etc/resolv.conf")?;
    let nameserver = resolver.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap_or("none");
    let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let mut pairs = vec![
        (text(node.path("golden-test")), "/var/lib/golden-test".to_owned()),
        (text(node.path("state")), "<kubelet-root>".to_owned()),
        (text(node.path("manifests")), "<manifests>".to_owned()),
        (node.names().cgroup.clone(), "/kubepods".to_owned()),
        (NODE_NAME.to_owned(), "knode".to_owned()),
        (nameserver.to_owned(), "<nodeNameserver>".to_owned()),
        (format!("size={}k", memory.unwrap_or("0")), "size=<memory>".to_owned()),
    ];
    // RLIMIT_NPROC is half of the threads that the kernel has memory for; the recorder's node had another amount.
    if let Some(processes) = getrlimit(Resource::Nproc).maximum {
        pairs.push((processes.to_string(), "96365".to_owned()));
    }
    pairs.extend((0..4).map(|which| (node.names().port(which).to_string(), format!("1843{which}"))));
    Ok(Words::new(pairs))
}

/// Returns the seconds since boot, the clock that containers write to their trace.
fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).context("/proc/uptime has no time")
}
