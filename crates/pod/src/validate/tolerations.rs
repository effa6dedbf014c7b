//! Validates tolerations as the API server does.

use k8s_openapi::api::core::v1::Toleration;

use super::{
    format::{label_value, qualified_name},
    path::Path,
    problems::{Problems, Typed},
    quoted,
};
use crate::kubernetes::Gates;

pub(super) fn tolerations(list: Option<&[Toleration]>, gates: &Gates, path: &Path<'_>, problems: &mut Problems) {
    for (index, toleration) in list.unwrap_or_default().iter().enumerate() {
        self::toleration(toleration, gates, &path.index(index), problems);
    }
}

fn toleration(toleration: &Toleration, gates: &Gates, path: &Path<'_>, problems: &mut Problems) {
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let operator_path = path.field("operator");
    match toleration.key.as_deref() {
        Some(key) => problems.format(&path.field("key"), key, qualified_name(key)),
        None if operator != "Exists" => {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            problems.invalid(&operator_path, Typed(operator), detail);
        }
        None => {}
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        problems.invalid(&path.field("effect"), Typed(effect), detail);
    }
    match operator {
        "Equal" | "" => {
            let objections = label_value(value);
            if !objections.is_empty() {
                problems.invalid(&operator_path, value, objections.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            problems.invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Gt" | "Lt" if gates.toleration_comparison => number(value, &path.field("value"), problems),
        "Gt" | "Lt" => problems.unsupported(&operator_path, operator, &["Equal", "Exists", "Lt", "Gt"]),
        other => problems.unsupported(&operator_path, other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        problems.one_of_if_set(&path.field("effect"), Some(effect), &effects);
    }
}

/// Checks a whole number of 64 bits, which must be in canonical form.
fn number(value: &str, path: &Path<'_>, problems: &mut Problems) {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_canonical =
        value == "0" || !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|it| it.is_ascii_digit());
    if value.is_empty() {
        problems.invalid(path, value, "must be non-empty");
    } else if !is_canonical {
        problems.invalid(path, value, "must be a valid decimal integer in canonical form");
    }
    if value.parse::<i64>().is_err() {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = if is_number { "value out of range" } else { "invalid syntax" };
        problems.invalid(path, value, format_args!("strconv.ParseInt: parsing {}: {why}", quoted(value)));
    }
}
