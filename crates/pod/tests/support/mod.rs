//! Decodes manifests on a node called `node-1`.

use stanchion_pod::{Manifest, Problem, decode};

/// Returns the content of a valid manifest.
pub fn good(text: &str) -> Manifest {
    decode(text.as_bytes(), "node-1").unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Returns the problems of an invalid manifest.
pub fn bad(text: &str) -> Vec<Problem> {
    decode(text.as_bytes(), "node-1").expect_err("the manifest is wrong")
}

/// Returns the only problem of a manifest, as users read it.
pub fn one(text: &str) -> String {
    let problems = bad(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].to_string()
}
