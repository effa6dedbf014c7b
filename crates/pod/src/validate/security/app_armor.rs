//! Validates AppArmor profiles as the API server does.

use k8s_openapi::{
    api::core::v1::{AppArmorProfile, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    prepare::APP_ARMOR,
    validate::{
        path::Path,
        problems::{Problems, Typed},
        spec::visit,
    },
};

/// Longest `localhostProfile`, bytes.
const LENGTH: usize = 4095;

/// Returns whether a profile is valid.
pub(crate) fn is_valid(profile: &AppArmorProfile) -> bool {
    let mut problems = Problems::default();
    self::profile(Some(profile), &Path::root(""), &mut problems);
    problems.count() == 0
}

pub(super) fn profile(profile: Option<&AppArmorProfile>, path: &Path<'_>, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    let field = path.field("localhostProfile");
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => problems.required(&field, MISSING),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                problems.invalid(&field, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                problems.required(&field, MISSING);
            }
            if name.len() > LENGTH {
                problems.too_long(&field, LENGTH);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            problems.invalid(&field, Typed(name), "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => problems.required(&path.field("type"), "type is required when appArmorProfile is set"),
        (other, _) => problems.unsupported(&path.field("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

pub(in crate::validate) fn agrees_with_annotations(spec: &PodSpec, metadata: &ObjectMeta, problems: &mut Problems) {
    let Some(annotations) = &metadata.annotations else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let of_pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    visit(spec, &mut |name, context, path| {
        let own = context.and_then(|context| context.app_armor_profile.as_ref());
        let Some(profile) = own.or(of_pod) else { return };
        let Some(annotation) = annotations.get(&format!("{APP_ARMOR}{name}")) else { return };
        let path = path.field("securityContext");
        let path = path.field("appArmorProfile");
        let is_same_type = match profile.type_.as_str() {
            "Unconfined" => annotation == "unconfined",
            "RuntimeDefault" => annotation == "runtime/default",
            "Localhost" => annotation.starts_with("localhost/"),
            _ => true,
        };
        if !is_same_type {
            problems.forbidden(&path.field("type"), "apparmor type in annotation and field must match");
        } else if profile.type_ == "Localhost"
            && annotation.strip_prefix("localhost/") != profile.localhost_profile.as_deref()
        {
            let detail = "apparmor profile in annotation and field must match";
            problems.forbidden(&path.field("localhostProfile"), detail);
        }
    });
}
