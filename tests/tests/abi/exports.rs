//! Symbols that a backend library exports.

use std::{collections::BTreeSet, path::Path, process::Command};

use stanchion_tests::tools;

use crate::build;

fn exported(library: &Path) -> BTreeSet<String> {
    let said = build::run(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    said.lines().filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect()
}

/// Checks the exported symbols: two libraries in one process could clash through nothing else.
#[test]
fn a_library_exports_its_descriptors_and_nothing_else() {
    for profile in ["dev", "release"] {
        let wanted = ["stanchion_backend_fake", "stanchion_backend_unruly"].map(str::to_owned);
        assert_eq!(exported(&build::rust(profile)), BTreeSet::from(wanted), "profile {profile}");
    }
    assert_eq!(exported(&build::example()), BTreeSet::from(["stanchion_backend_minimal".to_owned()]));
    let target = tools::target_dir().expect("there is a target directory");
    // The K3s library contains the containerd backend.
    for (name, offered) in
        [("containerd", &["containerd"][..]), ("docker", &["docker"]), ("k3s", &["containerd", "k3s"])]
    {
        let wanted: BTreeSet<_> = offered.iter().map(|name| format!("stanchion_backend_{name}")).collect();
        assert_eq!(exported(&target.join(format!("debug/libstanchion_{name}.so"))), wanted, "{name}");
    }
}
