//! What a backend library shows to the process that loads it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use stanchion_tests::tools;

use crate::build;

fn exported(library: &Path) -> BTreeSet<String> {
    let said = build::run(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    said.lines().filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect()
}

/// Two libraries in one process can only be in each other's way through symbols.
#[test]
fn a_library_exports_its_descriptors_and_nothing_else() {
    for profile in ["dev", "release"] {
        let wanted = ["stanchion_backend_fake", "stanchion_backend_unruly"].map(str::to_owned);
        assert_eq!(exported(&build::rust(profile)), BTreeSet::from(wanted), "profile {profile}");
    }
    assert_eq!(exported(&build::example()), BTreeSet::from(["stanchion_backend_minimal".to_owned()]));
}

/// One may have others in it, as K3s's has containerd's; more than descriptors none has.
#[test]
fn a_library_that_is_shipped_exports_descriptors_and_nothing_else() {
    let built = tools::target_dir().expect("there is a target directory").join("debug");
    let plugins = fs::read_dir(build::sources().join("../../plugins")).expect("plugins are there");
    let names: BTreeSet<_> = plugins
        .map(|entry| entry.expect("it can be read"))
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    let symbol = |name: &String| format!("stanchion_backend_{name}");
    let descriptors: BTreeSet<_> = names.iter().map(symbol).collect();
    for name in &names {
        let found = exported(&built.join(format!("libstanchion_{name}.so")));
        assert!(found.contains(&symbol(name)) && found.is_subset(&descriptors), "{name} exports {found:?}");
    }
}
