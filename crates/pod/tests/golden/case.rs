//! Recorded cases, and the list of intended differences.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

/// Manifest and the recorded answers to it.
pub struct Case {
    pub name: String,
    pub manifest: Vec<u8>,
    answer: Value,
}

impl Case {
    /// Returns the server's answer to the bytes themselves, if they were sent so, else the answer through a client.
    pub fn strict(&self) -> &Value {
        self.answer.get("strict_direct").unwrap_or(&self.answer)
    }

    /// Returns the answer of the usual way, through a client.
    pub fn client(&self) -> &Value {
        &self.answer
    }

    /// Copies the accepted pod into direct answers that say that it is the same.
    pub fn complete(mut answer: Value) -> Value {
        let defaulted = answer.get("defaulted").cloned();
        for direct in ["strict_direct", "lenient_direct"] {
            if let Some(answer) = answer.get_mut(direct)
                && answer.get("defaulted").is_some_and(|it| it == "same")
                && let Some(defaulted) = &defaulted
            {
                answer["defaulted"] = defaulted.clone();
            }
        }
        answer
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// Returns the cases of a folder, by name.
pub fn all(folder: &str) -> Vec<Case> {
    let directory = golden().join("apiserver-1.36").join(folder);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let case = |path: PathBuf| Case {
        name: path.file_stem().expect("a case has a name").to_string_lossy().into_owned(),
        manifest: read(&path),
        answer: Case::complete(serde_json::from_slice(&read(&path.with_extension("json"))).expect("answers are JSON")),
    };
    paths.into_iter().map(case).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    rules: Vec<Rule>,
    differences: Vec<Difference>,
    #[serde(rename = "kubelet")]
    _kubelet: serde::de::IgnoredAny,
}

/// Rule for manifests where Stanchion follows the client, not the server's answer to the bytes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "rule")]
    _rule: String,
    /// Line that a manifest has if the rule applies to it.
    line: String,
}

impl Rule {
    pub fn applies(&self, case: &Case) -> bool {
        let text = String::from_utf8_lossy(&case.manifest).replace('\r', "\n");
        let names_kind = |line: &str| line.starts_with("kind:") || line.contains("\"kind\"");
        match self.line.as_str() {
            "no kind" => !text.lines().any(names_kind),
            "---" => {
                // Before the first document there may be a separator, comments and directives.
                let is_content = |line: &&str| !line.trim().is_empty() && !line.starts_with(['#', '%']);
                text.lines().filter(is_content).skip(1).any(|line| line.starts_with("---"))
            }
            key => text.lines().any(|line| line.trim_start_matches(['-', ' ', '{']).starts_with(key)),
        }
    }

    pub fn follow<'a>(&self, case: &'a Case) -> &'a Value {
        case.client()
    }
}

/// Case in which Stanchion gives another answer on purpose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Folder and name.
    pub case: String,
    #[serde(rename = "rule")]
    _rule: String,
    #[serde(rename = "why")]
    _why: String,
}

fn list() -> List {
    let text = fs::read_to_string(golden().join("differences.yaml")).expect("the list of differences can be read");
    serde_yaml::from_str(&text).expect("the list of differences is well formed")
}

pub fn rules() -> Vec<Rule> {
    list().rules
}

pub fn differences() -> Vec<Difference> {
    list().differences
}
