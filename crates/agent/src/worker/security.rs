//! Security configuration of containers, from their security contexts.

use std::path::Path;

use stanchion_pod::{Container, Pod, Profile as Wanted};
use stanchion_runtime::{Error, ErrorKind, ImageDetails, PidMode, Profile, Runtime, SeLinux, Security};

use crate::reference;

/// Directory of `Localhost` seccomp profiles, below the agent's state directory (R-SEC-8).
const PROFILES: &str = "seccomp";

/// Returns a container's security configuration. Without a seccomp profile it is unconfined, as with a kubelet, or uses
/// the runtime's profile if the agent's configuration says so (R-SEC-8).
pub(super) fn security(pod: &Pod, container: &Container, state_dir: &Path, seccomp_default: bool) -> Security {
    let wanted = &container.security;
    let path = |name: String| state_dir.join(PROFILES).join(name).to_string_lossy().into_owned();
    let seccomp = match wanted.seccomp.clone() {
        _ if wanted.privileged => Profile::Unconfined,
        Some(wanted) => profile(wanted, path),
        None if seccomp_default => Profile::RuntimeDefault,
        None => Profile::Unconfined,
    };
    let app_armor = match wanted.app_armor.clone() {
        _ if wanted.privileged => Profile::Unconfined,
        Some(wanted) => profile(wanted, |name| name),
        None => Profile::RuntimeDefault,
    };
    Security {
        user: wanted.user,
        group: wanted.group,
        groups: pod.security.groups.clone(),
        strict_groups: pod.security.strict_groups,
        privileged: wanted.privileged,
        add_capabilities: wanted.add_capabilities.clone(),
        drop_capabilities: wanted.drop_capabilities.clone(),
        no_new_privileges: wanted.no_new_privileges,
        read_only_root: wanted.read_only_root,
        unmasked_proc: wanted.unmasked_proc,
        seccomp,
        app_armor,
        se_linux: wanted.se_linux.as_ref().map(se_linux),
    }
}

pub(super) fn se_linux(wanted: &stanchion_pod::SeLinux) -> SeLinux {
    let stanchion_pod::SeLinux { user, role, kind, level } = wanted.clone();
    SeLinux { user, role, kind, level }
}

fn profile(wanted: Wanted, localhost: impl FnOnce(String) -> String) -> Profile {
    match wanted {
        Wanted::RuntimeDefault => Profile::RuntimeDefault,
        Wanted::Unconfined => Profile::Unconfined,
        Wanted::Localhost(name) => Profile::Localhost { profile: localhost(name) },
    }
}

/// Returns the PID namespace of the pod's containers (R-SEC-13).
pub(super) fn pid_mode(pod: &Pod) -> PidMode {
    match (pod.security.host_pid, pod.security.share_processes) {
        (true, _) => PidMode::Host,
        (false, true) => PidMode::Pod,
        (false, false) => PidMode::Container,
    }
}

/// Fails if the container violates `runAsNonRoot` (R-SEC-3). The image's user counts if the manifest names none.
/// Returns the image's details if it was inspected.
pub(super) async fn check_non_root<R: Runtime>(
    runtime: &R,
    pod: &Pod,
    container: &Container,
) -> Result<Option<ImageDetails>, Error> {
    let security = &container.security;
    if !security.non_root {
        return Ok(None);
    }
    let image = match security.user {
        Some(_) => None,
        None => Some(runtime.inspect_image(reference::full(&container.image)).await?),
    };
    match objection(security.user, image.as_ref().map_or("", |it| &it.user)) {
        None => Ok(image),
        Some(why) => {
            let name = format!("{}_{}({})", pod.key.name, pod.key.namespace, pod.uid);
            let message = format!("{why} (pod: {name:?}, container: {})", container.name);
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

fn objection(user: Option<u32>, image_user: &str) -> Option<String> {
    let of_image = image_user.split(':').next().unwrap_or_default();
    match (user, of_image.parse::<u32>()) {
        (Some(0), _) => Some("container's runAsUser breaks non-root policy".to_owned()),
        (Some(_), _) => None,
        (None, Ok(0)) => Some("container has runAsNonRoot and image will run as root".to_owned()),
        (None, Ok(_)) => None,
        (None, Err(_)) if of_image.is_empty() => {
            Some("container has runAsNonRoot and image will run as root".to_owned())
        }
        (None, Err(_)) => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({of_image}), cannot verify user is non-root"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(security: &str) -> Pod {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, uid: u-1}}\nspec: {{containers: [{{name: c, image: a, \
             securityContext: {security}}}]}}\n"
        );
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    fn seccomp(text: &str, seccomp_default: bool) -> Profile {
        let pod = pod(text);
        security(&pod, &pod.containers[0], Path::new("/state"), seccomp_default).seccomp
    }

    #[test]
    fn nothing_confines_what_asks_for_nothing_unless_the_node_does() {
        assert_eq!(seccomp("{}", false), Profile::Unconfined, "R-SEC-8");
        assert_eq!(seccomp("{}", true), Profile::RuntimeDefault, "R-SEC-8");
        assert_eq!(seccomp("{seccompProfile: {type: Unconfined}}", true), Profile::Unconfined);
        assert_eq!(seccomp("{privileged: true}", true), Profile::Unconfined, "R-SEC-5, R-SEC-8");
        let own = seccomp("{seccompProfile: {type: Localhost, localhostProfile: a/b.json}}", false);
        assert_eq!(own, Profile::Localhost { profile: "/state/seccomp/a/b.json".to_owned() }, "R-SEC-8");
    }

    /// Compares the messages with the recording `start-errors/run-as-non-root`.
    #[test]
    fn root_is_refused_where_it_is_not_wanted() {
        let said = |user, image| objection(user, image).unwrap_or_default();
        assert_eq!(said(Some(0), "1000"), "container's runAsUser breaks non-root policy", "R-SEC-3");
        assert_eq!(said(None, ""), "container has runAsNonRoot and image will run as root", "R-SEC-2, R-SEC-3");
        assert_eq!(said(None, "0:0"), "container has runAsNonRoot and image will run as root");
        assert!(said(None, "u:g").contains("non-numeric user (u), cannot verify user is non-root"), "R-SEC-3");
        assert_eq!((said(None, "1000"), said(Some(1), "u")), (String::new(), String::new()));
    }
}
