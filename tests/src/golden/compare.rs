//! Comparison of JSON: each difference has a path in which list items are named by their `name` or `type`.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

/// Place where a node differs from the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Path, e.g. `pod.json: status.containerStatuses[main].state.waiting.reason`.
    pub path: String,
    /// Value in the recording.
    pub recorded: Value,
    /// Value that the node shows.
    pub found: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: recorded {}, found {}", self.path, self.recorded, self.found)
    }
}

/// Returns the differences of two pods. Null is as good as absent.
#[must_use]
pub fn pods(file: &str, recorded: &Value, found: &Value) -> Vec<Difference> {
    let (recorded, found) = alike(recorded, found);
    let mut differences = Vec::new();
    walk(&format!("{file}: "), &recorded, &found, &mut differences);
    differences
}

/// Returns a difference if the values differ.
#[must_use]
pub fn place(path: &str, recorded: &Value, found: &Value) -> Option<Difference> {
    let (path, recorded, found) = (path.to_owned(), recorded.clone(), found.clone());
    (recorded != found).then_some(Difference { path, recorded, found })
}

fn walk(path: &str, recorded: &Value, found: &Value, differences: &mut Vec<Difference>) {
    match (recorded, found) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let dot = if path.ends_with(' ') { "" } else { "." };
            for name in names {
                walk(&format!("{path}{dot}{name}"), &recorded[name], &found[name], differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if names(a) == names(b) => {
            for (name, (a, b)) in names(a).into_iter().zip(a.iter().zip(b)) {
                walk(&format!("{path}[{name}]"), a, b, differences);
            }
        }
        _ => differences.extend(place(path, recorded, found)),
    }
}

/// Returns the names of a list's items: their `name` or `type`, else their index.
fn names(items: &[Value]) -> Vec<String> {
    let name = |(number, item): (usize, &Value)| {
        let name = item["name"].as_str().or(item["type"].as_str());
        name.map_or_else(|| number.to_string(), str::to_owned)
    };
    items.iter().enumerate().map(name).collect()
}

/// Returns both pods with differences removed that only depend on the moment of looking. While a container is in
/// back-off, a kubelet shows its end; it shows the back-off itself only from its next sync on, which may be just before
/// the restart.
fn alike(recorded: &Value, found: &Value) -> (Value, Value) {
    let (mut recorded, mut found) = (recorded.clone(), found.clone());
    for list in ["/status/containerStatuses", "/status/initContainerStatuses"] {
        let lists = recorded.pointer_mut(list).zip(found.pointer_mut(list));
        let Some((Value::Array(a), Value::Array(b))) = lists else { continue };
        for (a, b) in a.iter_mut().zip(b) {
            if is_backing_off(a) != is_backing_off(b) {
                as_end(a);
                as_end(b);
            }
        }
    }
    // A kubelet stops the sandbox of a finished pod about a second after it has reported the pod's phase.
    let over = ["Failed", "Succeeded"];
    if over.iter().any(|phase| recorded["status"]["phase"] == *phase && found["status"]["phase"] == *phase)
        && let Some(recorded) = ready_to_start(&mut recorded).filter(|recorded| **recorded == "True")
        && let Some(found) = ready_to_start(&mut found)
    {
        *recorded = found.clone();
    }
    (recorded, found)
}

/// Returns the status of the condition `PodReadyToStartContainers`.
fn ready_to_start(pod: &mut Value) -> Option<&mut Value> {
    let conditions = pod.pointer_mut("/status/conditions")?.as_array_mut()?;
    let it = conditions.iter_mut().find(|it| it["type"] == "PodReadyToStartContainers")?;
    it.get_mut("status")
}

fn is_backing_off(status: &Value) -> bool {
    status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
}

/// Changes the status of a container that has ended, or waits in back-off, to show its end only.
fn as_end(status: &mut Value) {
    let end = match is_backing_off(status) {
        true => status["lastState"].take(),
        false if !status["state"]["terminated"].is_null() => status["state"].take(),
        false => return,
    };
    status["state"] = end;
    status["lastState"] = Value::Null;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_says_where() {
        let one = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }], "phase": "Running" } });
        let mut other = one.clone();
        assert_eq!(pods("pod.json", &one, &other), []);
        other["status"]["conditions"][0]["status"] = "False".into();
        other["status"]["reason"] = "Why".into();
        let found: Vec<_> = pods("pod.json", &one, &other).into_iter().map(|it| it.to_string()).collect();
        let expected = [
            "pod.json: status.conditions[Ready].status: recorded \"True\", found \"False\"",
            "pod.json: status.reason: recorded null, found \"Why\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_back_off_may_be_shown_by_the_end_before_it() {
        let pod = |state: Value, last: Value| json!({ "status": { "containerStatuses": [{ "name": "a", "state": state, "lastState": last }] } });
        let end = json!({ "terminated": { "exitCode": 3 } });
        let waits = pod(json!({ "waiting": { "reason": "CrashLoopBackOff" } }), end.clone());
        assert_eq!(pods("pod.json", &pod(end, json!({})), &waits), []);
        let other = pod(json!({ "terminated": { "exitCode": 4 } }), json!({}));
        assert_eq!(pods("pod.json", &other, &waits).len(), 1);
    }
}
