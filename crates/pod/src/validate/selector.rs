//! Validates label selectors as the API server does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{
    format::{label_value, qualified_name},
    metadata,
    path::Path,
    problems::{Problems, Typed},
};

pub(super) const WANTS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
pub(super) const WANTS_NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

pub(super) fn labels(selector: Option<&LabelSelector>, path: &Path<'_>, problems: &mut Problems) {
    let Some(selector) = selector else { return };
    metadata::labels(selector.match_labels.as_ref(), &path.field("matchLabels"), problems);
    let path = path.field("matchExpressions");
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => problems.required(&path.field("values"), WANTS_VALUES),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                problems.forbidden(&path.field("values"), WANTS_NO_VALUES);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => problems.invalid(&path.field("operator"), Typed(other), "not a valid selector operator"),
        }
        problems.format(&path.field("key"), &expression.key, qualified_name(&expression.key));
        label_values(values, &path.field("values"), problems);
    }
}

pub(super) fn label_values(values: &[String], path: &Path<'_>, problems: &mut Problems) {
    for (index, value) in values.iter().enumerate() {
        problems.format(&path.index(index), value, label_value(value));
    }
}
