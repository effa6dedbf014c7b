//! File names that editors and package managers leave behind.

/// Returns why a file with this name is no manifest; `None` if it is one.
pub(super) fn leftover(name: &str) -> Option<&'static str> {
    const ENDINGS: [(&str, &str); 12] = [
        ("~", "an editor's backup"),
        (".bak", "a backup"),
        (".orig", "a backup"),
        (".rej", "a rejected patch"),
        (".swp", "an editor's swap file"),
        (".swo", "an editor's swap file"),
        (".tmp", "a temporary file"),
        (".rpmsave", "a package manager's backup"),
        (".rpmorig", "a package manager's backup"),
        (".rpmnew", "a package manager's new version"),
        (".dpkg-old", "a package manager's backup"),
        (".dpkg-dist", "a package manager's new version"),
    ];
    if name.starts_with('#') && name.ends_with('#') {
        return Some("an editor's swap file");
    }
    if name == "4913" {
        return Some("an editor's probe");
    }
    ENDINGS.into_iter().find_map(|(ending, what)| name.ends_with(ending).then_some(what))
}

/// Returns whether a name ends as manifests' names do. Other files are read too, as a kubelet does, but with a warning
/// (R-FILE-4).
pub(super) fn is_usual(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::leftover;

    // R-FILE-4.
    #[test]
    fn leftovers_are_no_manifests() {
        for name in ["pod.yaml~", "pod.yaml.bak", "#pod.yaml#", "4913", "pod.yaml.rpmsave", "pod.yaml.swp"] {
            assert!(leftover(name).is_some(), "{name}");
        }
        for name in ["pod.yaml", "pod.yml", "pod", "bak.yaml", "README"] {
            assert!(leftover(name).is_none(), "{name}");
        }
    }
}
