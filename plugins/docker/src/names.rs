//! Labels in Docker. They alone tell the owner of a container.

use std::collections::{BTreeMap, HashMap};

pub(crate) use stanchion_sdk::names::{id, is_identifier};

/// Kind of a container of Docker: `sandbox`, `container`, or [`HOLDER`].
pub(crate) const KIND: &str = "stanchion.dev/kind";
/// Kind of a container that never runs, and keeps the files of an image that another container has mounted.
pub(crate) const HOLDER: &str = "image";
/// Backend that owns a container: its configured namespace.
pub(crate) const OWNER: &str = "stanchion.dev/namespace";
/// Attempt of a sandbox or container.
pub(crate) const ATTEMPT: &str = "stanchion.dev/attempt";
/// Sandbox of a container.
pub(crate) const SANDBOX: &str = "stanchion.dev/sandbox";
/// Attempt of the sandbox of a container.
pub(crate) const SANDBOX_ATTEMPT: &str = "stanchion.dev/sandbox-attempt";
/// Name of a container in its pod.
pub(crate) const NAME: &str = "stanchion.dev/name";
/// Cgroup of the pod, from the root of the hierarchy.
pub(crate) const CGROUP: &str = "stanchion.dev/cgroup";
/// PID namespace of a sandbox's containers: `container`, `pod` or `host`.
pub(crate) const PID: &str = "stanchion.dev/pid";
/// Reference of a container's image, as requested: Docker forgets it when the tag moves on.
pub(crate) const IMAGE: &str = "stanchion.dev/image";
/// Images that a container has mounted, as JSON.
pub(crate) const IMAGES: &str = "stanchion.dev/images";
/// Names of the caller's labels, as JSON: Docker adds those of the image.
pub(crate) const GIVEN: &str = "stanchion.dev/labels";

/// Joins the caller's labels with ours.
pub(crate) fn labels(
    given: &BTreeMap<String, String>,
    ours: impl IntoIterator<Item = (&'static str, String)>,
) -> HashMap<String, String> {
    let names = serde_json::Value::from(given.keys().cloned().collect::<Vec<_>>()).to_string();
    let ours = ours.into_iter().chain([(GIVEN, names)]).map(|(label, value)| (label.to_owned(), value));
    given.clone().into_iter().chain(ours).collect()
}

/// Returns the caller's labels.
pub(crate) fn given(labels: &HashMap<String, String>) -> BTreeMap<String, String> {
    let names = labels.get(GIVEN).and_then(|names| serde_json::from_str::<Vec<String>>(names).ok());
    let found = names.unwrap_or_default().into_iter().filter_map(|name| labels.get_key_value(&name));
    found.map(|(label, value)| (label.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_image_are_not_given() {
        let wanted = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("ä\"".to_owned(), String::new())]);
        let mut kept = labels(&wanted, [(KIND, "sandbox".to_owned())]);
        kept.insert("maintainer".to_owned(), "somebody".to_owned());
        assert_eq!(kept.get(KIND).map(String::as_str), Some("sandbox"));
        assert_eq!(given(&kept), wanted);
    }
}
