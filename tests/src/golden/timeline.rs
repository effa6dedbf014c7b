//! Order in which the states of a pod were seen.
//!
//! Two observers who look every 50 ms do not see the same short states. Each state that one of them saw for a while
//! must have been seen by the other too, in the same order, of the pod as a whole and of each container.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::compare::Difference;

/// How long one side sees a state that the other side must have seen too, in ms. A kubelet notices the end of a
/// container up to a second late.
const LASTS: u64 = 2000;

/// Returns the visible state of a pod. A pod with a `deletionTimestamp` counts as absent: a kubelet shows it no more.
#[must_use]
pub fn visible(pod: Option<&Value>) -> Value {
    let Some(pod) = pod.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) else {
        return json!({ "absent": true });
    };
    let status = &pod["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let holding: Vec<_> = conditions.filter(|it| it["status"] == "True").map(|it| it["type"].clone()).collect();
    json!({
        "uid": pod["metadata"]["uid"], "phase": status["phase"], "conditions": holding,
        "init": containers(&status["initContainerStatuses"]), "containers": containers(&status["containerStatuses"]),
    })
}

fn containers(statuses: &Value) -> Value {
    let one = |status: &Value| {
        let (kind, state) = status["state"].as_object()?.iter().next()?;
        let last = &status["lastState"]["terminated"];
        let last = (!last.is_null()).then(|| json!({ "reason": last["reason"], "exitCode": last["exitCode"] }));
        let seen = json!({
            "state": kind, "reason": state["reason"], "exitCode": state["exitCode"], "ready": status["ready"],
            "started": status["started"], "restartCount": status["restartCount"], "last": last,
        });
        Some((status["name"].as_str()?.to_owned(), seen))
    };
    statuses.as_array().into_iter().flatten().filter_map(one).collect::<serde_json::Map<_, _>>().into()
}

/// States in order, each with how long it was seen, in ms.
type Track = Vec<(String, u64)>;

/// Returns the differences of two series of entries (`t_ms` and what was visible then).
#[must_use]
pub fn differences(recorded: &[Value], found: &[Value]) -> Vec<Difference> {
    let (recorded, found) = (tracks(recorded), tracks(found));
    let names: BTreeSet<_> = recorded.keys().chain(found.keys()).collect();
    let none = Track::new();
    let line = |(state, ms): &(String, u64)| format!("{state} ({ms} ms)");
    let list = |track: &Track| Value::from(track.iter().map(line).collect::<Vec<_>>());
    let mut differences = Vec::new();
    for name in names {
        let (recorded, found) = (recorded.get(name).unwrap_or(&none), found.get(name).unwrap_or(&none));
        let lacking = missing(recorded, found).into_iter().map(|state| format!("- {state}"));
        let added = missing(found, recorded).into_iter().map(|state| format!("+ {state}"));
        differences.extend(lacking.chain(added).map(|state| Difference {
            path: format!("timeline: {name}: {state}"),
            recorded: list(recorded),
            found: list(found),
        }));
    }
    differences
}

/// Returns the lasting states of `one` that `other` lacks or has in another order.
fn missing(one: &Track, other: &Track) -> Vec<String> {
    let (mut at, mut missing) = (0_usize, Vec::new());
    let last = one.len().saturating_sub(1);
    let lasting = one.iter().enumerate().filter(|(place, (_, ms))| *ms >= LASTS || *place == last);
    for (_, (state, _)) in lasting {
        // The search includes the state found last: a state that was interrupted for a moment here may have lasted
        // there.
        let from = at.saturating_sub(1);
        match other[from..].iter().position(|(other, _)| other == state) {
            Some(found) => at = from + found + 1,
            None => missing.push(state.clone()),
        }
    }
    missing
}

fn tracks(entries: &[Value]) -> BTreeMap<String, Track> {
    let mut uids: Vec<Value> = Vec::new();
    let mut tracks: BTreeMap<String, Track> = BTreeMap::new();
    let shown: Vec<_> = entries.iter().filter(|entry| entry["step"].is_null()).collect();
    for (place, entry) in shown.iter().enumerate() {
        let time = |entry: &Value| entry["t_ms"].as_u64().unwrap_or(0);
        let lasted = shown.get(place + 1).map_or(0, |next| time(next).saturating_sub(time(entry)));
        let mut add = |name: String, state: String| {
            let track = tracks.entry(name).or_default();
            match track.last_mut() {
                Some((last, ms)) if *last == state => *ms += lasted,
                _ => track.push((state, lasted)),
            }
        };
        if entry["absent"] == true {
            add("pod".to_owned(), "absent".to_owned());
            continue;
        }
        if !uids.contains(&entry["uid"]) {
            uids.push(entry["uid"].clone());
        }
        let number = uids.iter().position(|uid| *uid == entry["uid"]).unwrap_or(0) + 1;
        let conditions: Vec<_> =
            entry["conditions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let phase = entry["phase"].as_str().unwrap_or_default();
        // The time at which the sandbox of a finished pod is stopped is not compared here.
        let is_over = matches!(phase, "Failed" | "Succeeded");
        let conditions: Vec<_> =
            conditions.into_iter().filter(|it| !is_over || *it != "PodReadyToStartContainers").collect();
        add("pod".to_owned(), format!("#{number} {phase} {}", conditions.join(" ")));
        for (kind, prefix) in [("init", "init."), ("containers", "")] {
            for (name, container) in entry[kind].as_object().into_iter().flatten() {
                add(format!("{prefix}{name}"), state(container));
            }
        }
    }
    tracks
}

/// Returns a container's state; in back-off, the state of its end, see [`compare`](super::compare).
fn state(container: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (last, count) = (&container["last"], text(&container["restartCount"]));
    let end = |end: &Value| format!("{} {}", text(&end["reason"]), text(&end["exitCode"]));
    let ready = text(&container["ready"]);
    match (container["state"].as_str(), text(&container["reason"]).as_str()) {
        (Some("waiting"), "CrashLoopBackOff") => format!("ended {} restarts {count} ready {ready}", end(last)),
        (Some("terminated"), _) => format!("ended {} restarts {count} ready {ready}", end(container)),
        (kind, reason) => {
            let last = if last.is_null() { String::new() } else { format!(" after {}", end(last)) };
            let (kind, started) = (kind.unwrap_or_default(), text(&container["started"]));
            format!("{kind} {reason} restarts {count} ready {ready} started {started}{last}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(states: &[(u64, &str)]) -> Vec<Value> {
        states.iter().map(|(ms, phase)| json!({ "t_ms": ms, "uid": "u", "phase": phase, "conditions": [] })).collect()
    }

    #[test]
    fn what_lasts_must_have_been_seen_by_both() {
        let recorded = series(&[(0, "Pending"), (300, "Running"), (5000, "Failed")]);
        assert!(differences(&recorded, &series(&[(0, "Running"), (100, "Failed")])).is_empty());
        assert!(!differences(&recorded, &series(&[(0, "Failed")])).is_empty(), "Running lasted");
        let other = series(&[(0, "Running"), (100, "Unknown"), (4000, "Failed")]);
        assert!(!differences(&recorded, &other).is_empty(), "the kubelet was never Unknown");
    }
}
