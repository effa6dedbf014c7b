//! Search for rule ids, and for the tests that they belong to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::items::{self, Item};

/// Places of sources and documents, relative to the root.
const PLACES: [&str; 9] = ["crates", "plugins", "tests", "xtask", "examples", "docs", "config", "fuzz", "README.md"];
/// List of rules.
const LIST: &str = "docs/rules.md";
/// Recordings that prove rules: `R-VAL-20: invalid/no-containers`, `R-VOL-10: kubelet-1.36/volumes/downward-api`.
const RECORDED: &str = "tests/golden/rules.txt";
/// Directory of the recordings.
const RECORDINGS: &str = "tests/golden";
/// Directory below that with recorded verdicts, one file for each manifest. Other recordings are directories.
const VERDICTS: &str = "apiserver-1.36";

/// Rule ids found, and their tests.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Tests by rule id.
    pub tests: BTreeMap<String, Vec<String>>,
    /// All ids that are mentioned, each with a file.
    pub mentions: BTreeMap<String, String>,
    /// Ids in test code that no test uses.
    pub loose: Vec<String>,
}

/// Reads the workspace at `root`.
///
/// # Errors
/// If a file cannot be read, or a recording does not exist.
pub fn collect(root: &Path) -> Result<Evidence> {
    let mut found = Evidence::default();
    for path in files(root)? {
        let place = path.strip_prefix(root).context("a file is below the root")?.to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if place != LIST {
            found.mentions.extend(ids(&text).map(|id| (id.to_owned(), place.clone())));
        }
        if place.ends_with(".rs") {
            found.source(&place, &text);
        }
    }
    found.recorded(root)?;
    Ok(found)
}

impl Evidence {
    fn source(&mut self, place: &str, text: &str) {
        let lines: Vec<_> = text.lines().collect();
        let lines = &lines[start_of_tests(place, &lines)..];
        let (items, rest) = items::split(lines);
        let named = named_to_a_macro(&rest);
        let is_test = |item: &Item| item.is_test || named.contains(item.name.as_str()) || is_case(place, item);
        for item in &items {
            let carriers: Vec<_> = match is_test(item) {
                true => vec![item],
                false => items.iter().filter(|test| is_test(test) && uses(&items, test, item)).collect(),
            };
            for id in ids(&item.text) {
                if carriers.is_empty() {
                    self.loose.push(format!("{place}: {id} stands in {}, which no test uses", item.name));
                }
                for test in &carriers {
                    self.add(id, format!("{place}: {}", test.name));
                }
            }
        }
        self.loose.extend(ids(&rest.join("\n")).map(|id| format!("{place}: {id} stands outside of any test")));
    }

    /// Adds the recordings as evidence. One test replays them all; the file [`RECORDED`] says which of them prove a
    /// rule.
    fn recorded(&mut self, root: &Path) -> Result<()> {
        let path = root.join(RECORDED);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {RECORDED}"))?;
        for line in text.lines().filter(|line| line.starts_with("R-")) {
            let (id, cases) = line.split_once(':').with_context(|| format!("{RECORDED}: {line}: no colon"))?;
            for case in cases.split_whitespace() {
                let recordings = root.join(RECORDINGS);
                let verdict = recordings.join(VERDICTS).join(format!("{case}.json"));
                let found = verdict.exists() || recordings.join(case).is_dir();
                ensure!(found, "{RECORDED}: {id}: there is no recording {case} below {RECORDINGS}");
                self.add(id, format!("{RECORDINGS}: {case}"));
            }
        }
        Ok(())
    }

    fn add(&mut self, id: &str, test: String) {
        let tests = self.tests.entry(id.to_owned()).or_default();
        if !tests.contains(&test) {
            tests.push(test);
        }
    }
}

/// Returns the index of the first line of tests: 0 in files of tests, elsewhere the line of the test module.
fn start_of_tests(place: &str, lines: &[&str]) -> usize {
    let whole = place.contains("/tests/") || place.ends_with("/tests.rs") || is_suite(place);
    let module = || lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].ends_with('{'));
    if whole { 0 } else { module().unwrap_or(lines.len()) }
}

fn is_suite(place: &str) -> bool {
    place.starts_with("crates/runtime/src/testing/conformance")
}

/// Returns whether a function of the conformance suite is one of its cases.
fn is_case(place: &str, item: &Item) -> bool {
    is_suite(place) && item.text.lines().any(|line| line.starts_with("pub(super) async fn"))
}

/// Returns the names of the functions that `on_each_runtime!` makes tests of.
fn named_to_a_macro<'a>(lines: &[&'a str]) -> BTreeSet<&'a str> {
    let block = lines.iter().skip_while(|line| !line.contains("on_each_runtime! {"));
    let block = block.take_while(|line| !line.starts_with('}'));
    block.flat_map(|line| line.split(|char: char| char != '_' && !char.is_alphanumeric())).collect()
}

/// Returns whether the code of a test uses an item, directly or through other items of the file.
fn uses(items: &[Item], test: &Item, item: &Item) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![test];
    while let Some(from) = open.pop() {
        for other in items.iter().filter(|other| words(&from.code).any(|word| word == other.name)) {
            if other.name == item.name {
                return true;
            }
            if seen.insert(&other.name) {
                open.push(other);
            }
        }
    }
    false
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| char != '_' && !char.is_alphanumeric())
}

/// Finds the ids in a text: `R-`, letters, `-`, digits.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("R-").filter_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || char == '-' || char == '_') {
            return None;
        }
        let rest = &text[at + 2..];
        let letters = rest.find(|char: char| !char.is_ascii_uppercase())?;
        let digits = rest[letters..].strip_prefix('-')?;
        let length = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
        (letters > 0 && length > 0).then(|| &text[at..at + 2 + letters + 1 + length])
    })
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<_> = PLACES.iter().map(|place| root.join(place)).filter(|path| path.exists()).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            // Recordings and build directories hold no text of this project.
            if path == root.join(RECORDINGS) || path.file_name().is_some_and(|name| name == "target") {
                continue;
            }
            for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
                open.push(entry?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = concat!("R", "-X-1");

    fn tests_of(place: &str, text: &str) -> (Vec<String>, usize) {
        let mut found = Evidence::default();
        found.source(place, text);
        (found.tests.remove(ID).unwrap_or_default(), found.loose.len())
    }

    #[test]
    fn ids_are_found_and_others_are_not() {
        let text = format!("({ID}, {ID}2) {ID}: XR-A-1 R-1 R-A R-a-1 R-A-");
        assert_eq!(ids(&text).collect::<Vec<_>>(), [ID, &format!("{ID}2"), ID]);
    }

    #[test]
    fn an_id_belongs_to_the_test_around_it_or_to_those_that_use_its_item() {
        let inside = format!(
            "fn code() {{\n    // {ID}\n}}\n#[cfg(test)]\nmod tests {{\n    #[test]\n    fn it() {{\n        // {ID}\n    }}\n}}\n"
        );
        assert_eq!(tests_of("crates/a/src/a.rs", &inside), (vec!["crates/a/src/a.rs: it".to_owned()], 0));
        let helped = format!(
            "const ROWS: [u8; 1] = [\n    1, // {ID}\n];\nfn by() {{\n    ROWS\n}}\n#[test]\nfn it() {{\n    by();\n}}\n#[test]\nfn no() {{\n}}\n"
        );
        assert_eq!(tests_of("crates/a/tests/b.rs", &helped), (vec!["crates/a/tests/b.rs: it".to_owned()], 0));
        let spoken = format!(
            "// {ID}\nfn helper() {{\n}}\n#[test]\nfn it() {{\n    // Not the helper.\n    say(\"helper\");\n}}\n\
             #[test]\nfn formats() {{\n    format!(\"{{helper}}\");\n}}\n"
        );
        assert_eq!(tests_of("crates/a/tests/b.rs", &spoken), (vec!["crates/a/tests/b.rs: formats".to_owned()], 0));
        let each = format!(
            "stanchion_tests::on_each_runtime! {{\n    it,\n}}\n/// {ID}\nfn it(on: Backend) {{\n}}\n/// {ID}\nfn lost() {{\n}}\n"
        );
        assert_eq!(tests_of("tests/tests/c.rs", &each), (vec!["tests/tests/c.rs: it".to_owned()], 1));
        assert_eq!(tests_of("tests/tests/d.rs", &format!("//! {ID}\n")), (Vec::new(), 1));
    }
}
