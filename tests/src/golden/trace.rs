//! Lines that the containers of a pod wrote, with times: they prove the order of a stop and its grace.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Difference, place};

/// Tolerated difference of two times, in ms: the machine may be busy.
const NOISE: f64 = 1500.0;

/// Line of a trace: time in ms, writer, text.
type Line = (f64, String, String);

/// Reads lines of `time writer text`. `unit` is the unit of their times in ms; the result counts from the moment
/// `since`, in ms.
#[must_use]
pub fn lines(text: &str, unit: f64, since: f64) -> Vec<Line> {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let at: f64 = words.next()?.parse().ok()?;
        Some((at * unit - since, words.next()?.to_owned(), words.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Returns the differences of two traces: the lines of each writer, in order; and the times of lines that occur once in
/// both, at or after the moment 0.
#[must_use]
pub fn differences(recorded: &[Line], found: &[Line]) -> Vec<Difference> {
    let order = place("trace: order", &words(recorded), &words(found));
    let times = |lines: &[Line]| lines.iter().map(|(at, who, what)| (format!("{who} {what}"), *at)).collect::<Vec<_>>();
    let (recorded, found) = (times(recorded), times(found));
    let once = |lines: &[(String, f64)], note: &str| lines.iter().filter(|(it, _)| it == note).count() == 1;
    let time = |(note, at): &(String, f64)| {
        let is_mark = *at >= 0.0 && once(&recorded, note) && once(&found, note);
        let ours = found.iter().find(|(it, _)| it == note).filter(|_| is_mark)?.1;
        ((ours - at).abs() > NOISE).then(|| Difference {
            path: format!("trace: {note}"),
            recorded: at.round().into(),
            found: ours.round().into(),
        })
    };
    order.into_iter().chain(recorded.iter().filter_map(time)).collect()
}

/// Returns the lines of each writer; equal lines in a row count once.
fn words(lines: &[Line]) -> Value {
    let mut words: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, who, what) in lines {
        let of = words.entry(who).or_default();
        if of.last() != Some(&what.as_str()) {
            of.push(what);
        }
    }
    serde_json::json!(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_times_count() {
        let recorded = lines("400 main start\n1500 main TERM\n1600 main alive\n1700 main alive\n", 1.0, 1000.0);
        let found = |text| differences(&recorded, &lines(text, 1000.0, 20_000.0)).len();
        assert_eq!(found("19 main start\n20.9 main TERM\n21 main alive"), 0);
        assert_eq!(found("19 main start\n24.9 main TERM\n25 main alive"), 1, "too late");
        assert_eq!(found("19 main start\n20.9 main TERM"), 1, "it is not alive");
    }
}
