//! Collects the contents of configMap, secret, downwardAPI and projected volumes.

use std::{borrow::Cow, cell::Cell, path::PathBuf};

use stanchion_pod::{Capacity, ObjectKind, Objects, Projected, Projection, Value};

use super::{
    publish::{self, File, Payload},
    volume::VolumeError,
};
use crate::limits::POD_FILES;

/// Collects the present files of a volume. `written` is the size of the files of the pod's volumes before this one,
/// bytes; this volume's size is added.
pub(super) fn payload<'a>(
    volume: &'a Projected,
    objects: &'a Objects,
    capacity: &Capacity,
    written: &Cell<u64>,
) -> Result<Payload<'a>, VolumeError> {
    let mut payload = Payload::new();
    let mut put = |path: &str, content: Cow<'a, [u8]>, mode: Option<u32>| {
        let mode = mode.unwrap_or(volume.default_mode);
        payload.insert(PathBuf::from(path), File { content, mode });
    };
    for source in &volume.sources {
        match source {
            Projection::Object { object, items, optional } => {
                let Some(found) = objects.get(object) else {
                    if *optional {
                        continue;
                    }
                    return Err(VolumeError::Missing(object.clone()));
                };
                let Some(items) = items else {
                    found.keys().into_iter().for_each(|key| put(key, found.get(key).unwrap_or_default().into(), None));
                    continue;
                };
                for item in items {
                    match found.get(&item.key) {
                        Some(content) => put(&item.path, content.into(), item.mode),
                        None if *optional => {}
                        None => return Err(missing_key(object.kind, &item.key)),
                    }
                }
            }
            Projection::Downward(files) => {
                for file in files {
                    let content = match &file.value {
                        Value::Literal(text) => text.as_bytes().into(),
                        Value::NodeLimit(limit) => limit.on(capacity).into_bytes().into(),
                        // Validation allows no other values in files.
                        _ => Cow::default(),
                    };
                    put(&file.path, content, file.mode);
                }
            }
        }
    }
    let size = payload.values().map(|file| file.content.len() as u64).fold(written.get(), u64::saturating_add);
    POD_FILES.check(size).map_err(VolumeError::TooLarge)?;
    written.set(size);
    match publish::conflict(&payload) {
        Some(path) => Err(VolumeError::Conflict(path.to_owned())),
        None => Ok(payload),
    }
}

fn missing_key(kind: ObjectKind, key: &str) -> VolumeError {
    let object = if kind == ObjectKind::Secret { "secret" } else { "config" };
    VolumeError::MissingKey { object, key: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stanchion_pod::{ConfigMap, Object, ObjectKey, Pod, Volume};

    use super::*;

    /// Returns a pod with a volume that has `paths` paths of one key.
    fn pod(paths: usize) -> Pod {
        let items: Vec<_> = (0..paths).map(|path| format!("{{key: k, path: p{path}}}")).collect();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: a}}], volumes: [{{name: v, \
             projected: {{sources: [{{configMap: {{name: big, items: [{}]}}}}]}}}}]}}\n",
            items.join(", ")
        );
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    fn big() -> Objects {
        let map = ConfigMap { binary_data: [("k".to_owned(), vec![7; 1 << 20])].into(), ..ConfigMap::default() };
        let key = ObjectKey { kind: ObjectKind::ConfigMap, namespace: "default".to_owned(), name: "big".to_owned() };
        [(key, Arc::new(Object::ConfigMap(map)))].into()
    }

    #[test]
    fn volumes_of_a_pod_have_a_limit_together() {
        let (pod, objects, written) = (pod(30), big(), Cell::new(0));
        let Volume::Projected(volume) = &pod.volumes["v"] else { panic!("it is projected") };
        let fits = |_| payload(volume, &objects, &Capacity::default(), &written).is_ok();
        assert_eq!([1, 2, 3].map(fits), [true, true, false]);
        assert_eq!(written.get(), 60 << 20, "what is not mounted does not count");
    }

    #[test]
    fn many_paths_of_a_key_share_its_content_and_have_a_limit_together() {
        let objects = big();
        for (paths, fits) in [(1, true), (64, true), (65, false), (800, false)] {
            let pod = pod(paths);
            let Volume::Projected(volume) = &pod.volumes["v"] else { panic!("it is projected") };
            match payload(volume, &objects, &Capacity::default(), &Cell::new(0)) {
                Ok(payload) => {
                    assert!(fits && payload.len() == paths, "{paths}");
                    assert!(payload.values().all(|it| matches!(it.content, Cow::Borrowed(_))), "nothing is copied");
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(!fits && error.ends_with("(limit \"files of a pod's volumes\")"), "{paths}: {error}");
                }
            }
        }
    }
}
