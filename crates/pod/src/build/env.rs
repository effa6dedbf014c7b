//! `env` and `envFrom`, and values of the downward API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as wire;

use crate::{
    EnvFrom, NodeLimit, NodeResource, ObjectKey, ObjectKind, StatusField, Value, Variable, defaults::resources::List,
    quantity::Quantity, validate::quoted,
};

/// Converts `env`, in order.
pub(super) fn variables(container: &wire::Container, pod: &wire::Pod) -> Vec<Variable> {
    let of = |variable: &wire::EnvVar| {
        let value = match &variable.value_from {
            Some(source) => value(source, container, pod),
            None => Value::Text(variable.value.clone().unwrap_or_default()),
        };
        Variable { name: variable.name.clone(), value }
    };
    container.env.iter().flatten().map(of).collect()
}

/// Converts `envFrom`, in order.
pub(super) fn env_from(container: &wire::Container, pod: &wire::Pod) -> Vec<EnvFrom> {
    let of = |source: &wire::EnvFromSource| {
        let config_map = source.config_map_ref.as_ref().map(|it| (ObjectKind::ConfigMap, &it.name, it.optional));
        let secret = source.secret_ref.as_ref().map(|it| (ObjectKind::Secret, &it.name, it.optional));
        let (kind, name, optional) = config_map.or(secret)?;
        let prefix = source.prefix.clone().unwrap_or_default();
        Some(EnvFrom { prefix, object: object(kind, name, pod), optional: optional.unwrap_or(false) })
    };
    container.env_from.iter().flatten().filter_map(of).collect()
}

/// Converts `imagePullSecrets`, in order.
pub(super) fn pull_secrets(pod: &wire::Pod, spec: &wire::PodSpec) -> Vec<ObjectKey> {
    let named = spec.image_pull_secrets.iter().flatten().filter(|it| !it.name.is_empty());
    named.map(|it| object(ObjectKind::Secret, &it.name, pod)).collect()
}

/// Returns the key of an object in the pod's namespace.
pub(super) fn object(kind: ObjectKind, name: &str, pod: &wire::Pod) -> ObjectKey {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    ObjectKey { kind, namespace, name: name.to_owned() }
}

fn value(source: &wire::EnvVarSource, container: &wire::Container, pod: &wire::Pod) -> Value {
    let key = |kind, name: &str, key: &str, optional: Option<bool>| Value::Key {
        object: object(kind, name, pod),
        key: key.to_owned(),
        optional: optional.unwrap_or(false),
    };
    if let Some(it) = &source.config_map_key_ref {
        return key(ObjectKind::ConfigMap, &it.name, &it.key, it.optional);
    }
    if let Some(it) = &source.secret_key_ref {
        return key(ObjectKind::Secret, &it.name, &it.key, it.optional);
    }
    if let Some(it) = &source.file_key_ref {
        return Value::File {
            volume: it.volume_name.clone(),
            path: it.path.clone(),
            key: it.key.clone(),
            optional: it.optional.unwrap_or(false),
        };
    }
    if let Some(it) = &source.resource_field_ref {
        return resource(it, Some(container), pod);
    }
    field(source.field_ref.as_ref().map(|it| it.field_path.as_str()).unwrap_or_default(), pod)
}

/// Resolves a `fieldRef` (R-ENV-4, R-VOL-9).
pub(super) fn field(path: &str, pod: &wire::Pod) -> Value {
    let metadata = &pod.metadata;
    let subscript = path.strip_suffix("']").and_then(|path| path.split_once("['"));
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let (labels, annotations) = (metadata.labels.as_ref(), metadata.annotations.as_ref());
    Value::Literal(match (subscript, path) {
        (Some(("metadata.labels", key)), _) => text(labels.and_then(|labels| labels.get(key))),
        (Some(("metadata.annotations", key)), _) => text(annotations.and_then(|annotations| annotations.get(key))),
        (_, "metadata.labels") => lines(labels),
        (_, "metadata.annotations") => lines(annotations),
        (_, "metadata.name") => text(metadata.name.as_ref()),
        (_, "metadata.namespace") => text(metadata.namespace.as_ref()),
        (_, "metadata.uid") => text(metadata.uid.as_ref()),
        (_, "spec.nodeName" | "spec.host") => text(pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())),
        (_, "status.hostIP") => return Value::Status(StatusField::HostIp),
        (_, "status.hostIPs") => return Value::Status(StatusField::HostIps),
        (_, "status.podIP") => return Value::Status(StatusField::PodIp),
        (_, "status.podIPs") => return Value::Status(StatusField::PodIps),
        // Validation leaves only spec.serviceAccountName, which a static pod does not have.
        _ => String::new(),
    })
}

/// Formats labels or annotations as sorted lines `key="value"`, quoted as Go does, without a newline after the last
/// (R-VOL-9).
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", quoted(value));
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// Resolves a `resourceFieldRef`: a request or limit of the container `own` unless another is named (R-ENV-5,
/// R-VOL-10).
pub(super) fn resource(field: &wire::ResourceFieldSelector, own: Option<&wire::Container>, pod: &wire::Pod) -> Value {
    let spec = pod.spec.as_ref();
    let all = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let named = field.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => all.into_iter().find(|container| container.name == name),
        None => own,
    };
    let (which, name) = field.resource.split_once('.').unwrap_or_default();
    let resources = container.and_then(|container| container.resources.as_ref());
    let of_pod = spec.and_then(|spec| spec.resources.as_ref());
    let find = |list: Option<&List>| Quantity::parse(&list?.get(name)?.0).ok()?.milli();
    let amount = match which {
        "limits" => {
            find(resources.and_then(|it| it.limits.as_ref())).or_else(|| find(of_pod.and_then(|it| it.limits.as_ref())))
        }
        _ => Some(find(resources.and_then(|it| it.requests.as_ref())).unwrap_or(0)),
    };
    let divisor = field.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0).ok()?.milli());
    let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(1000);
    // CPUs are counted in thousandths, everything else in whole units.
    let units = |milli: u128| if name == "cpu" { milli } else { milli.div_ceil(1000) };
    let (amount, divisor) = (amount.map(units), units(divisor).max(1));
    let node = match name {
        "cpu" => Some(NodeResource::Cpu),
        "memory" => Some(NodeResource::Memory),
        "ephemeral-storage" => Some(NodeResource::EphemeralStorage),
        _ => None,
    };
    match (amount, node) {
        (None, Some(resource)) => {
            Value::NodeLimit(NodeLimit { resource, divisor: u64::try_from(divisor).unwrap_or(u64::MAX) })
        }
        (amount, _) => Value::Literal(amount.unwrap_or(0).div_ceil(divisor).to_string()),
    }
}
