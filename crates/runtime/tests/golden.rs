//! Tests of the wire form: one file per message in `golden/`. No field in these files is ever renamed or retyped.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use stanchion_runtime::{
    ContainerConfig, ContainerInfo, ContainerState, DiskUsage, Error, ErrorKind, Event, EventKind, ExecRequest,
    ExitStatus, Health, Image, ImageDetails, ImageStore, ImportImages, Inventory, OpenRequest, PullImage, PullProgress,
    SandboxConfig, SandboxInfo, SandboxState, Stats, TerminalSize, UnusedImage, Version,
};

/// Decodes a message and encodes it again.
type Echo = fn(&Value) -> Result<Value, String>;

/// Every file with its message type.
const MESSAGES: [(&str, Echo); 35] = [
    ("container_config", echo::<ContainerConfig>),
    ("container_config_least", echo::<ContainerConfig>),
    ("container_info_created", echo::<ContainerInfo>),
    ("container_info_exited", echo::<ContainerInfo>),
    ("container_info_lost", echo::<ContainerInfo>),
    ("container_info_running", echo::<ContainerInfo>),
    ("disk_usage", echo::<DiskUsage>),
    ("error", echo_error),
    ("event_exited", echo::<Event>),
    ("event_out_of_memory", echo::<Event>),
    ("event_resync", echo::<Event>),
    ("event_sandbox_changed", echo::<Event>),
    ("event_started", echo::<Event>),
    ("exec_request", echo::<ExecRequest>),
    ("exec_request_plain", echo::<ExecRequest>),
    ("exit_status", echo::<ExitStatus>),
    ("health", echo::<Health>),
    ("health_failover", echo::<Health>),
    ("image", echo::<Image>),
    ("image_details", echo::<ImageDetails>),
    ("image_store", echo::<ImageStore>),
    ("import_images", echo::<ImportImages>),
    ("inventory", echo::<Inventory>),
    ("open_request", echo::<OpenRequest>),
    ("pull_image", echo::<PullImage>),
    ("pull_image_anonymous", echo::<PullImage>),
    ("pull_progress", echo::<PullProgress>),
    ("sandbox_config", echo::<SandboxConfig>),
    ("sandbox_config_host_network", echo::<SandboxConfig>),
    ("sandbox_info", echo::<SandboxInfo>),
    ("sandbox_info_not_ready", echo::<SandboxInfo>),
    ("stats", echo::<Stats>),
    ("terminal_size", echo::<TerminalSize>),
    ("unused_image", echo::<UnusedImage>),
    ("version", echo::<Version>),
];

fn echo<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let decoded: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(&decoded).map_err(|error| error.to_string())
}

fn echo_error(value: &Value) -> Result<Value, String> {
    let error = Error::from_body(ErrorKind::Unavailable.code(), value.to_string().as_bytes());
    serde_json::from_slice(&error.to_body()).map_err(|error| error.to_string())
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(name: &str) -> Value {
    let path = golden().join(format!("{name}.json"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn messages_survive_decoding_and_encoding() {
    for (name, echo) in MESSAGES {
        let wire = read(name);
        assert_eq!(echo(&wire), Ok(wire), "{name}");
    }
}

/// Checks that fields of a newer peer are ignored, at any depth.
#[test]
fn unknown_fields_are_ignored() {
    for (name, echo) in MESSAGES {
        let wire = read(name);
        let mut newer = wire.clone();
        add_unknown(&mut newer, name == "open_request");
        assert_ne!(newer, wire, "{name}");
        assert_eq!(echo(&newer), Ok(wire), "{name}");
    }
}

/// Adds a field to every object that is a message; labels and a backend's own configuration are not messages.
fn add_unknown(value: &mut Value, has_config: bool) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                if key != "labels" && !(has_config && key == "config") {
                    add_unknown(field, false);
                }
            }
            fields.insert("added_in_1_7".to_owned(), json!({ "any": ["thing"] }));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| add_unknown(item, false)),
        _ => {}
    }
}

#[test]
fn every_file_is_a_message() {
    let files = fs::read_dir(golden()).expect("the directory of golden files");
    let names = files.map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"));
    let found: BTreeSet<_> = names.map(|name| name.trim_end_matches(".json").to_owned()).collect();
    assert_eq!(found, MESSAGES.map(|(name, _)| name.to_owned()).into());
}

/// Checks that kinds and states of a newer backend are not errors.
#[test]
fn unknown_variants_are_kept_as_unknown() {
    let newer = json!({ "kind": "frozen", "since": 7 });
    let event: Event = serde_json::from_value(newer.clone()).expect("an event");
    assert_eq!(event.kind, EventKind::Unknown);
    let state: ContainerState = serde_json::from_value(newer.clone()).expect("a container's state");
    assert_eq!(state, ContainerState::Unknown);
    let state: SandboxState = serde_json::from_value(newer).expect("a sandbox's state");
    assert_eq!(state, SandboxState::Unknown);
    assert_eq!(ErrorKind::from_code(4711), ErrorKind::Other);
}

/// Checks that all fields have a default except these, because an older peer may leave them out.
#[test]
fn only_identities_are_required() {
    let required = [
        ("container_config_least", vec!["image", "name", "sandbox"]),
        ("container_info_exited", vec!["created_at", "id", "name", "sandbox", "state"]),
        ("exec_request", vec!["command", "container", "id"]),
        ("image", vec!["digest", "reference"]),
        ("open_request", vec![]),
        ("pull_image", vec!["reference"]),
        ("sandbox_config", vec!["name", "namespace", "uid"]),
        ("sandbox_info", vec!["created_at", "id", "state"]),
        ("version", vec!["runtime", "runtime_version"]),
    ];
    for (name, required) in required {
        let Value::Object(fields) = read(name) else { panic!("{name} is no object") };
        let (_, echo) = MESSAGES.into_iter().find(|(message, _)| *message == name).expect("a message of that name");
        let missing = |key: &String| {
            let rest: Map<_, _> = fields.clone().into_iter().filter(|(other, _)| other != key).collect();
            echo(&Value::Object(rest)).is_err()
        };
        let mut found: Vec<_> = fields.keys().filter(|key| missing(key)).map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, required, "{name}");
    }
}

/// Checks that the error codes of the boundary stay the same.
#[test]
fn error_codes_are_fixed() {
    let codes = [
        (1, ErrorKind::Other),
        (2, ErrorKind::NotFound),
        (3, ErrorKind::AlreadyExists),
        (4, ErrorKind::Conflict),
        (5, ErrorKind::Unavailable),
        (6, ErrorKind::Invalid),
        (7, ErrorKind::Permission),
        (8, ErrorKind::Timeout),
        (9, ErrorKind::Unsupported),
        (10, ErrorKind::Cancelled),
        (11, ErrorKind::Crashed),
    ];
    for (code, kind) in codes {
        assert_eq!((kind.code(), ErrorKind::from_code(code)), (code, kind));
    }
}

/// Checks that a body that is not JSON, as from a backend in C, becomes the message.
#[test]
fn an_error_body_may_be_plain_text() {
    let error = Error::from_body(5, b"the daemon is away");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "the daemon is away"));
}
