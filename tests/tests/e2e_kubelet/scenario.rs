//! Directory of one recording.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Recording of one scenario.
pub struct Scenario {
    /// Area and name, separated by a slash.
    pub name: String,
    dir: PathBuf,
}

/// Namespace of a pod, and its name in the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub namespace: String,
    pub name: String,
}

impl Scenario {
    pub fn read(root: &Path, dir: &Path) -> Result<Self> {
        let name = dir.strip_prefix(root).context("a recording is below the others' directory")?;
        Ok(Self { name: name.to_string_lossy().into_owned(), dir: dir.to_owned() })
    }

    /// Returns the name without the area, which is also the name of the manifest and the pod.
    pub fn short(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    pub fn text(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.dir.join(file)).with_context(|| format!("reading {file}"))
    }

    pub fn json(&self, file: &str) -> Result<Value> {
        serde_json::from_str(&self.text(file)?).with_context(|| format!("{file} is no JSON"))
    }

    /// Returns the steps in order.
    pub fn steps(&self) -> Result<Vec<String>> {
        let text = self.text("steps.txt")?;
        let step = |line: &str| line.split_once(". ").map_or(line, |(_, step)| step).to_owned();
        Ok(text.lines().map(step).collect())
    }

    pub fn timeline(&self) -> Result<Vec<Value>> {
        if !self.dir.join("timeline.json").exists() {
            return Ok(Vec::new());
        }
        Ok(self.json("timeline.json")?.as_array().cloned().unwrap_or_default())
    }

    /// Returns how long the scenario took on the kubelet, ms.
    pub fn length(&self) -> u64 {
        let entries = self.timeline().unwrap_or_default();
        entries.last().and_then(|entry| entry["t_ms"].as_u64()).unwrap_or(0)
    }

    /// Returns file and identity of other recorded pods: files `pod-<name>.json` that no step names.
    pub fn others(&self) -> Result<Vec<(String, Identity)>> {
        let steps = self.text("steps.txt")?;
        let files = fs::read_dir(&self.dir).context("reading a recording")?.flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let other = |file: String| {
            let name = file.strip_prefix("pod-")?.strip_suffix(".json")?;
            let identity = Identity { namespace: "default".to_owned(), name: format!("{name}-knode") };
            (!steps.contains(&file)).then_some((file.clone(), identity))
        };
        Ok(names.filter_map(other).collect())
    }

    /// Returns the scenario's pod, as the kubelet showed it or else by the scenario's name.
    pub fn identity(&self) -> Result<Identity> {
        let shown = self.json("pod.json")?;
        if let Some(name) = shown["metadata"]["name"].as_str() {
            let namespace = shown["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
            return Ok(Identity { namespace, name: name.to_owned() });
        }
        let name = format!("{}-knode", self.short());
        Ok(Identity { namespace: "default".to_owned(), name })
    }

    /// Returns type, reason, field and message of each event.
    pub fn events(&self) -> Result<Vec<[String; 4]>> {
        if !self.dir.join("events.txt").exists() {
            return Ok(Vec::new());
        }
        let text = self.text("events.txt")?;
        let event = |line: &str| {
            let mut parts = line.splitn(5, '\t').skip(1).map(str::to_owned);
            Some([parts.next()?, parts.next()?, parts.next()?, parts.next().unwrap_or_default()])
        };
        // A message may have several lines.
        let joined =
            text.lines().filter(|line| !line.starts_with('#')).fold(Vec::new(), |mut lines: Vec<String>, line| {
                let begins = line.split('\t').next().is_some_and(|at| at.parse::<u64>().is_ok());
                match lines.last_mut().filter(|_| !begins) {
                    Some(last) => {
                        last.push('\n');
                        last.push_str(line);
                    }
                    None => lines.push(line.to_owned()),
                }
                lines
            });
        Ok(joined.iter().filter_map(|line| event(line)).collect())
    }

    /// Returns the time of the first `Killing` event, ms.
    pub fn killed_at(&self) -> Option<f64> {
        let text = self.text("events.txt").ok()?;
        let line = text.lines().find(|line| line.split('\t').nth(2) == Some("Killing"))?;
        line.split('\t').next()?.parse().ok()
    }

    /// Returns what the containers saw, by question.
    pub fn seen(&self) -> Result<BTreeMap<String, String>> {
        let mut seen = BTreeMap::new();
        if !self.dir.join("seen.txt").exists() {
            return Ok(seen);
        }
        let mut about = String::new();
        for line in self.text("seen.txt")?.lines() {
            match line.strip_prefix("# ").filter(|line| is_question(line)) {
                Some(question) => {
                    about = question.to_owned();
                    seen.insert(about.clone(), String::new());
                }
                None => {
                    let body = seen.entry(about.clone()).or_default();
                    body.push_str(line);
                    body.push('\n');
                }
            }
        }
        Ok(seen.into_iter().map(|(question, body)| (question, body.trim_end().to_owned())).collect())
    }
}

fn is_question(line: &str) -> bool {
    let begins = ["log of ", "cgroup of ", "from the machine: ", "on the machine: "];
    let is_word = |word: &str| word.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
    begins.iter().any(|begin| line.starts_with(begin)) || line.split_once("$ ").is_some_and(|(who, _)| is_word(who))
}
