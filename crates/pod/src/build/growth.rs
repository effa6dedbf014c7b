//! Bounds the growth of a file's pods: text that stands in them once and that references repeat many times.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as wire;

use super::env::field;
use crate::{Problem, Value, budget::Share, expand::expand_within, limits::REFERRED};

/// Returns the problem of a pod whose references and inherited fields expand to more text than its file has left. An
/// API server accepts it, since it does not expand them.
pub(crate) fn objection(pod: &wire::Pod, left: &mut Share) -> Option<Problem> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let fits = containers.into_iter().all(|container| {
        left.take(inherited(spec))
            && container.env.iter().flatten().all(|variable| {
                let source = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
                source.is_none_or(|source| left.take(length(&source.field_path, pod)))
            })
            && take_commands(left, container)
    });
    let mut files = spec.volumes.iter().flatten().flat_map(files);
    let fits = fits && files.all(|path| left.take(length(path, pod)));
    let message = || {
        let mib = REFERRED >> 20;
        match left.fits_alone() {
            false => {
                format!(
                    "its references to its own fields and variables stand for more than {mib} MiB; use fewer of them"
                )
            }
            true => format!(
                "its references to its own fields and variables, with those of the pods before it in the file, stand for more \
                 than {mib} MiB; split the file"
            ),
        }
    };
    (!fits).then(|| Problem { field: "spec".to_owned(), message: message(), ..Problem::default() })
}

/// Returns the length of the text that each container inherits from its pod, bytes.
fn inherited(spec: &wire::PodSpec) -> usize {
    let Some(context) = &spec.security_context else { return 0 };
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let seccomp = context.seccomp_profile.as_ref().map_or(0, |it| length(&it.localhost_profile));
    let app_armor = context.app_armor_profile.as_ref().map_or(0, |it| length(&it.localhost_profile));
    let se_linux = context.se_linux_options.as_ref();
    let se_linux =
        se_linux.map_or(0, |it| [&it.user, &it.role, &it.type_, &it.level].into_iter().map(length).sum::<usize>());
    seccomp + app_armor + se_linux
}

/// Returns the length of a field's value, bytes.
fn length(path: &str, pod: &wire::Pod) -> usize {
    match field(path, pod) {
        Value::Literal(text) => text.len(),
        _ => 0,
    }
}

/// Returns the `fieldPath`s of the files of a volume.
fn files(volume: &wire::Volume) -> impl Iterator<Item = &str> {
    let own = volume.downward_api.iter().flat_map(|it| it.items.iter().flatten());
    let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
    let projected = sources.flat_map(|it| it.downward_api.iter()).flat_map(|it| it.items.iter().flatten());
    own.chain(projected).filter_map(|file| file.field_ref.as_ref()).map(|source| source.field_path.as_str())
}

/// Takes the length of the expanded commands of probes, which expand only variables with a literal `value`.
fn take_commands(left: &mut Share, container: &wire::Container) -> bool {
    let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
    let commands = probes.into_iter().flatten().filter_map(|probe| probe.exec.as_ref()?.command.as_ref());
    let mut words = commands.flatten().filter(|word| word.contains('$')).peekable();
    if words.peek().is_none() {
        return true;
    }
    let said: BTreeMap<_, _> =
        container.env.iter().flatten().filter_map(|it| Some((it.name.as_str(), it.value.as_deref()?))).collect();
    words.all(|word| {
        let expanded = expand_within(word, left.left(), |name| said.get(name).copied());
        // Text that does not fit is not expanded: count it as one byte more than is left.
        left.take(expanded.map_or(left.left() + 1, |expanded| expanded.len()))
    })
}
