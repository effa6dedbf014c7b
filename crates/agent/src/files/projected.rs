//! What is in the files of configMap, secret, downwardAPI and projected volumes.

use std::path::PathBuf;

use stanchion_pod::{Capacity, ObjectKind, Objects, Projected, Projection, Value};

use super::{
    publish::{self, File, Payload},
    volume::VolumeError,
};

/// The files of a volume as they are to be now.
pub(super) fn payload(volume: &Projected, objects: &Objects, capacity: &Capacity) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    let mut put = |path: &str, content: &[u8], mode: Option<u32>| {
        let mode = mode.unwrap_or(volume.default_mode);
        payload.insert(PathBuf::from(path), File { content: content.to_vec(), mode });
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
                    found.keys().into_iter().for_each(|key| put(key, found.get(key).unwrap_or_default(), None));
                    continue;
                };
                for item in items {
                    match found.get(&item.key) {
                        Some(content) => put(&item.path, content, item.mode),
                        None if *optional => {}
                        None => return Err(missing_key(object.kind, &item.key)),
                    }
                }
            }
            Projection::Downward(files) => {
                for file in files {
                    let content = match &file.value {
                        Value::Literal(text) => text.clone(),
                        Value::NodeLimit(limit) => limit.on(capacity),
                        // Validation: a file has nothing else.
                        _ => String::new(),
                    };
                    put(&file.path, content.as_bytes(), file.mode);
                }
            }
        }
    }
    match publish::conflict(&payload) {
        Some(path) => Err(VolumeError::Conflict(path.to_owned())),
        None => Ok(payload),
    }
}

fn missing_key(kind: ObjectKind, key: &str) -> VolumeError {
    let object = if kind == ObjectKind::Secret { "secret" } else { "config" };
    VolumeError::MissingKey { object, key: key.to_owned() }
}
