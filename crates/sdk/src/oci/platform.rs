//! Platforms: the choice of a manifest for this node from an index, as in containerd's matcher
//! (`github.com/containerd/platforms`).

use serde::Deserialize;

use super::lenient;

/// Platform of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(deserialize_with = "lenient::or_default")]
    pub architecture: String,
    /// `linux`, …
    #[serde(deserialize_with = "lenient::or_default")]
    pub os: String,
    /// Variant of the architecture, e.g. `v3`.
    #[serde(deserialize_with = "lenient::or_default")]
    pub variant: String,
    /// Further features that the image needs of the operating system.
    #[serde(rename = "os.features", deserialize_with = "lenient::texts")]
    pub os_features: Vec<String>,
}

/// Returns the node's architecture under its OCI name.
#[must_use]
pub fn architecture() -> &'static str {
    named(std::env::consts::ARCH, cfg!(target_endian = "little"))
}

/// Converts Rust's name of an architecture to its OCI name.
fn named(architecture: &'static str, is_little: bool) -> &'static str {
    match (architecture, is_little) {
        ("x86_64", _) => "amd64",
        ("x86", _) => "386",
        ("aarch64", _) => "arm64",
        ("loongarch64", _) => "loong64",
        ("powerpc64", true) => "ppc64le",
        ("powerpc64", false) => "ppc64",
        (other, _) => other,
    }
}

impl Platform {
    /// Ranks the platform on this node: 0 is best, `None` cannot run.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        self.rank_on(architecture())
    }

    fn rank_on(&self, node: &str) -> Option<usize> {
        let os = self.os.to_lowercase();
        if !matches!(os.as_str(), "" | "linux") || !self.os_features.is_empty() {
            return None;
        }
        let (architecture, variant) = self.normal();
        let own = (architecture == node && variant == plain(node)).then_some(0);
        let others: &[(&str, &str)] = match node {
            "amd64" => &[("386", "")],
            "arm64" => &[("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
            "arm" => &[("arm", "v6"), ("arm", "v5")],
            _ => &[],
        };
        let other = || others.iter().position(|other| *other == (architecture.as_str(), variant.as_str()));
        own.or_else(|| other().map(|place| place + 1))
    }

    /// Returns architecture and variant in their canonical spelling.
    fn normal(&self) -> (String, String) {
        let (architecture, variant) = (self.architecture.to_lowercase(), self.variant.to_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", other) => ("amd64", other),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64", other) => ("arm64", other),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            same => same,
        };
        (architecture.to_owned(), variant.to_owned())
    }
}

/// Returns the baseline variant of an architecture.
fn plain(node: &str) -> &'static str {
    if node == "arm" { "v7" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_runs_what_containerd_would_run_on_it() {
        let of = |text: &str| {
            let mut words = text.split('/').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            Platform { os: next(), architecture: next(), variant: next(), os_features: Vec::new() }
        };
        for (node, platform, rank) in [
            ("amd64", "linux/amd64", Some(0)),
            ("amd64", "linux/amd64/v1", Some(0)),
            ("amd64", "Linux/x86_64", Some(0)),
            ("amd64", "/amd64", Some(0)),
            ("amd64", "linux/386", Some(1)),
            ("amd64", "linux/amd64/v2", None),
            ("amd64", "linux/amd64/v3", None),
            ("amd64", "windows/amd64", None),
            ("amd64", "linux/", None),
            ("amd64", "unknown/unknown", None),
            ("arm64", "linux/arm64/v8", Some(0)),
            ("arm64", "linux/arm64", Some(0)),
            ("arm64", "linux/aarch64/8", Some(0)),
            ("arm64", "linux/arm64/v9", None),
            ("arm64", "linux/arm/v7", Some(2)),
            ("arm64", "linux/arm", Some(2)),
            ("arm64", "linux/amd64", None),
            ("arm", "linux/arm/v7", Some(0)),
            ("arm", "linux/armel", Some(1)),
            ("riscv64", "linux/riscv64", Some(0)),
        ] {
            assert_eq!(of(platform).rank_on(node), rank, "{platform} on {node}");
        }
        let featured = Platform { os_features: vec!["erofs".to_owned()], ..of("linux/amd64") };
        assert_eq!(featured.rank_on("amd64"), None);
        assert_eq!((named("x86_64", true), named("powerpc64", true)), ("amd64", "ppc64le"));
    }
}
