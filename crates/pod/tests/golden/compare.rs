//! Compares our answers with recorded ones.

use serde_json::Value;
use stanchion_pod::{
    Problem,
    kubernetes::{Answer, Gates, judge},
};

/// Compares our answers to a manifest with the server's.
pub fn answers(manifest: &[u8], expected: &Value, gates: &Gates) -> Result<(), String> {
    let answers = match judge(manifest, gates) {
        Ok(answers) => answers,
        Err(problems) if expected["accepted"] == false && expected["code"] != 422 => {
            return decoding(&problems, expected);
        }
        Err(problems) if expected["accepted"] == false && unnamed(expected) => return none(&problems),
        Err(problems) => return Err(format!("not decodable: {}", joined(&problems))),
    };
    match (expected["documents"].as_array(), &answers[..]) {
        (Some(documents), answers) if documents.len() == answers.len() => {
            answers.iter().zip(documents).try_for_each(|(answer, expected)| self::answer(answer, expected))
        }
        (None, [answer]) => self::answer(answer, expected),
        (_, answers) => Err(format!("{} answers", answers.len())),
    }
}

/// Returns whether the server took an empty body for a pod without a name.
fn unnamed(expected: &Value) -> bool {
    expected["message"].as_str().is_some_and(|message| message.starts_with("Pod \"\" is invalid"))
}

fn none(problems: &[Problem]) -> Result<(), String> {
    let is_empty = problems.iter().any(|problem| problem.message.contains("holds no pod"));
    if is_empty { Ok(()) } else { Err(format!("not decodable: {}", joined(problems))) }
}

fn answer(answer: &Answer, expected: &Value) -> Result<(), String> {
    match (answer, expected["accepted"] == true, expected["code"].as_i64()) {
        (Answer::Accepted(pod), true, _) => {
            let pod = serde_json::to_value(pod).expect("a pod is JSON");
            let ours = serde_json::json!({ "metadata": pod["metadata"], "spec": pod["spec"] });
            same(&without_nulls(&ours), &without_nulls(&expected["defaulted"]), "")
        }
        (Answer::Accepted(_), false, _) => Err(format!("accepted, expected {}", expected["message"])),
        (Answer::Invalid(problems), false, Some(422)) => causes(problems, expected),
        (Answer::NotDecodable(problems), false, Some(0 | 400)) => decoding(problems, expected),
        (Answer::Invalid(problems), _, _) => Err(format!("invalid: {}", joined(problems))),
        (Answer::NotDecodable(problems), _, _) => Err(format!("not decodable: {}", joined(problems))),
    }
}

fn joined(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Compares fields, reasons and messages, in the server's order if it has one.
fn causes(problems: &[Problem], expected: &Value) -> Result<(), String> {
    let ours = problems.iter().map(|problem| {
        assert!(problem.line.is_some() && problem.column.is_some(), "every problem has a place: {problem}");
        (problem.field.clone(), reason(&problem.message).to_owned(), problem.message.clone())
    });
    let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
    let causes = expected["causes"].as_array().into_iter().flatten();
    let theirs = causes.map(|cause| (text(cause, "field"), text(cause, "reason"), text(cause, "message")));
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = (ours.collect(), theirs.collect());
    if expected["order_varies"] == true {
        ours.sort();
        theirs.sort();
    }
    match ours == theirs {
        true => Ok(()),
        false => Err(format!("\n  ours   {}\n  theirs {}", lines(&ours), lines(&theirs))),
    }
}

fn lines(causes: &[(String, String, String)]) -> String {
    causes.iter().map(|(field, _, message)| format!("{field}: {message}")).collect::<Vec<_>>().join("\n         ")
}

/// Returns the `reason` that a status has with this message.
fn reason(message: &str) -> &'static str {
    let kind = message.split(':').next().unwrap_or_default();
    match kind {
        "Required value" => "FieldValueRequired",
        "Forbidden" => "FieldValueForbidden",
        "Duplicate value" => "FieldValueDuplicate",
        "Unsupported value" => "FieldValueNotSupported",
        "Not found" => "FieldValueNotFound",
        "Too long" => "FieldValueTooLong",
        "Too many" => "FieldValueTooMany",
        _ => "FieldValueInvalid",
    }
}

/// Compares decoding errors: the words differ, but they must name the same fields.
fn decoding(problems: &[Problem], expected: &Value) -> Result<(), String> {
    let message = expected["message"].as_str().unwrap_or_default();
    if message.contains("strict decoding error") {
        return strict(problems, message);
    }
    let Some((_, rest)) = message.split_once("into Go struct field ") else { return Ok(()) };
    let path = rest.split(" of type").next().unwrap_or_default();
    // In `PodSpec.spec.hostname` the structure's name comes first; embedded structures stand between the fields.
    let steps = path.split('.').skip(1).filter(|step| !step.starts_with(char::is_uppercase));
    let theirs = steps.collect::<Vec<_>>().join(".");
    let ours: Vec<_> = problems.iter().map(|problem| without_indexes(&problem.field)).collect();
    // The server stops at the first error, and names maps without their keys.
    match ours.iter().any(|ours| *ours == theirs || ours.starts_with(&format!("{theirs}."))) {
        true => Ok(()),
        false => Err(format!("names {ours:?}, expected {theirs}")),
    }
}

fn without_indexes(path: &str) -> String {
    let mut depth = 0;
    let outside = path.chars().filter(|char| {
        depth += i32::from(*char == '[');
        let is_outside = depth == 0;
        depth -= i32::from(*char == ']');
        is_outside
    });
    outside.collect()
}

/// Compares unknown fields by path, and duplicate keys by line and name.
fn strict(problems: &[Problem], message: &str) -> Result<(), String> {
    let quoted = |text: &str| text.split('"').nth(1).unwrap_or_default().to_owned();
    let mut theirs: Vec<_> = message.split("unknown field ").skip(1).map(quoted).collect();
    theirs.extend(message.split("duplicate field ").skip(1).map(quoted));
    for line in message.lines().filter(|line| line.contains("already set in map")) {
        let number = line.trim().strip_prefix("line ").and_then(|rest| rest.split(':').next()).unwrap_or_default();
        theirs.push(format!("{number} {}", quoted(line)));
    }
    let is_json = message.contains("duplicate field ");
    let mut ours: Vec<_> = problems
        .iter()
        .map(|problem| match problem.message.starts_with("duplicate key") && !is_json {
            true => {
                let key = problem.field.rsplit('.').next().unwrap_or_default();
                format!("{} {key}", problem.line.unwrap_or_default())
            }
            false => problem.field.clone(),
        })
        .collect();
    ours.sort();
    theirs.sort();
    if ours == theirs { Ok(()) } else { Err(format!("names {ours:?}, expected {theirs:?}")) }
}

/// Removes nulls: the server prints some empty values as null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn same(ours: &Value, theirs: &Value, path: &str) -> Result<(), String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for name in ours.keys().chain(theirs.keys()) {
                let nothing = Value::Null;
                let (ours, theirs) = (ours.get(name).unwrap_or(&nothing), theirs.get(name).unwrap_or(&nothing));
                same(ours, theirs, &format!("{path}.{name}"))?;
            }
            Ok(())
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            let pairs = ours.iter().zip(theirs).enumerate();
            pairs.into_iter().try_for_each(|(index, (ours, theirs))| same(ours, theirs, &format!("{path}[{index}]")))
        }
        (ours, theirs) if ours == theirs => Ok(()),
        // The wire type requires a name in references; the server omits it if it is empty.
        (Value::String(ours), Value::Null) if ours.is_empty() && path.ends_with(".name") => Ok(()),
        // The same holds for a reference that the wire type requires.
        (Value::Object(ours), Value::Null) if path.ends_with(".secretRef") && ours.values().all(|it| it == "") => {
            Ok(())
        }
        (ours, theirs) => Err(format!("defaulted{path} is {ours}, expected {theirs}")),
    }
}
