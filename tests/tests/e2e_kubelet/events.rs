//! Comparison of events: for each object field the distinct events, in order of first occurrence. Counts depend on
//! timing and are not compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use stanchion_tests::golden::compare::{Difference, place};

/// Type, reason, field and message.
pub type Event = [String; 4];

/// Compares recorded and found events, field by field.
pub fn differences(recorded: Vec<Event>, found: impl IntoIterator<Item = Event>) -> Vec<Difference> {
    let (recorded, mut found) = (kinds(recorded), kinds(found));
    let objects: BTreeSet<_> = recorded.keys().chain(found.keys()).cloned().collect();
    let mut differences = Vec::new();
    for object in objects {
        let (none, ours) = (Vec::new(), found.entry(object.clone()).or_default());
        let theirs = recorded.get(&object).unwrap_or(&none);
        // The recorder lost multi-line messages.
        for (kind, message) in ours.iter_mut() {
            if theirs.iter().any(|(other, recorded)| other == kind && recorded.is_empty()) {
                message.clear();
            }
        }
        ours.dedup();
        let missing = |one: &[Kind], other: &[Kind]| -> Vec<Kind> {
            one.iter().filter(|kind| !other.contains(kind)).cloned().collect()
        };
        let (lacking, added) = (missing(theirs, ours), missing(ours, theirs));
        let path = |sign: char, kind: &str| format!("events: {object}: {sign} {kind}");
        differences
            .extend(lacking.iter().filter_map(|(kind, text)| place(&path('-', kind), &json!(text), &json!(null))));
        differences.extend(added.iter().filter_map(|(kind, text)| place(&path('+', kind), &json!(null), &json!(text))));
        if lacking.is_empty() && added.is_empty() {
            differences.extend(place(&format!("events: {object}: order"), &json!(theirs), &json!(ours)));
        }
    }
    differences
}

/// Type and reason, and the message.
type Kind = (String, String);

/// Groups events by object field, each kind once.
fn kinds(events: impl IntoIterator<Item = Event>) -> BTreeMap<String, Vec<Kind>> {
    let mut kinds: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for [kind, reason, field, message] in events {
        let of = kinds.entry(field).or_default();
        let event = (format!("{kind} {reason}"), message.trim_end().to_owned());
        if !of.contains(&event) {
            of.push(event);
        }
    }
    kinds
}
