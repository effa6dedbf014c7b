//! Containers of pods, as Docker creates them.

use std::collections::HashMap;

use bollard::{
    ClientVersion,
    models::{
        ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount as ApiMount, MountBindOptions,
        MountBindOptionsPropagationEnum, MountType,
    },
};
use stanchion_sdk::{
    cgroup,
    changes::finish,
    privileges::oom_score_adj,
    runtime::{
        ContainerConfig, ContainerId, Error, ErrorKind, Mount, MountPropagation, RecursiveReadOnly, Result, labels,
        signal,
    },
};

use crate::{
    Docker, image, names,
    process::SIGTERM,
    sandbox::{created_twice, host_config},
    security::{Confinement, Who},
    volumes::Volumes,
};

/// API with options for recursive read-only mounts: Docker 25.
const RECURSIVE: ClientVersion = ClientVersion { major_version: 1, minor_version: 44 };

/// Properties that a container takes over from its sandbox.
pub(crate) struct Pod {
    pub attempt: String,
    /// Path from the root of the cgroup hierarchy.
    cgroup: String,
    /// Parent of the cgroups, in Docker's form.
    cgroup_parent: Option<String>,
    /// IPC and PID mode of its containers, in Docker's form.
    ipc_mode: String,
    pid_mode: Option<String>,
}

impl Docker {
    /// Creates a container with one call: a crash leaves either nothing or a container that can be started and removed.
    pub(crate) async fn make_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        // Nobody may remove the sandbox meanwhile.
        let turn = self.changes.turn(config.sandbox.as_str()).await;
        let backend = self.clone();
        finish(turn, async move { backend.make_container_now(config).await }).await
    }

    async fn make_container_now(&self, mut config: ContainerConfig) -> Result<ContainerId> {
        let can_recurse = self.client.speaks(RECURSIVE);
        let mut deep = config.mounts.iter().filter(|mount| mount.recursive_read_only == RecursiveReadOnly::Enabled);
        if let Some(mount) = deep.next().filter(|_| !can_recurse) {
            let message = format!(
                "failed to resolve recursive read-only mode: {} requested recursive read-only mode, but it is not supported \
                 by the runtime: Docker 25 or newer (API {RECURSIVE}) is needed",
                mount.destination.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let pod = self.usable_sandbox(&config).await?;
        let pod_name = config.labels.get(labels::POD_NAME).map(String::as_str).unwrap_or_default();
        let parts = ["container", config.sandbox.as_str(), &config.name];
        let name = format!("stanchion-{}", names::id(&format!("{}-{pod_name}", config.name), &parts, config.attempt));
        let configuring = |error: Error| error.context(format!("configuring container {}", config.name));
        let confinement = Confinement::of(&config.security).map_err(configuring)?;
        let image = self.look_up_image(&config.image).await?;
        let who = self.who(&config, &image).await?;
        // As a number: Docker sends no signal at all to a container whose stop signal it does not know.
        let stop_signal = image::stop_signal(&image).map(|name| signal::number(&name).unwrap_or(SIGTERM).to_string());
        let volumes = self.volumes(&name, &pod, &mut config).await?;
        let create = async {
            let body = self.container_body(&config, &pod, who, confinement, &volumes);
            let created = self.create(&name, ContainerCreateBody { stop_signal, ..body }).await;
            created.map(ContainerId).map_err(|error| created_twice(format!("creating container {name}"), &error))
        };
        let created = self.with_volumes(&volumes, create).await;
        match created {
            Ok(id) => {
                self.untried.note(id.as_str());
                Ok(id)
            }
            Err(error) => Err(self.give_up(&volumes, error).await),
        }
    }

    /// Returns the sandbox, if containers can run in it.
    async fn usable_sandbox(&self, config: &ContainerConfig) -> Result<Pod> {
        let (id, name) = (&config.sandbox, &config.name);
        let found = self.sandbox_record(id).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("creating container {name}: its sandbox {id} does not exist"))
        })?;
        if found.state.as_ref().is_none_or(|state| state.running != Some(true)) {
            let message = format!("creating container {name}: its sandbox {id} does not run");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let label = |label: &str| labels.get(label).cloned().unwrap_or_default();
        let host = found.host_config.unwrap_or_default();
        let joined = format!("container:{id}");
        Ok(Pod {
            attempt: label(names::ATTEMPT),
            cgroup: label(names::CGROUP),
            cgroup_parent: host.cgroup_parent,
            ipc_mode: if host.ipc_mode.as_deref() == Some("host") { "host".to_owned() } else { joined.clone() },
            pid_mode: match label(names::PID).as_str() {
                "host" => Some("host".to_owned()),
                "pod" => Some(joined),
                _ => None,
            },
        })
    }

    fn container_body(
        &self,
        config: &ContainerConfig,
        pod: &Pod,
        who: Who,
        confinement: Confinement,
        volumes: &Volumes,
    ) -> ContainerCreateBody {
        let ours = [
            (names::KIND, "container".to_owned()),
            (names::OWNER, self.config.namespace.clone()),
            (names::ATTEMPT, config.attempt.to_string()),
            (names::SANDBOX, config.sandbox.0.clone()),
            (names::SANDBOX_ATTEMPT, pod.attempt.clone()),
            (names::NAME, config.name.clone()),
            (names::CGROUP, pod.cgroup.clone()),
            (names::IMAGE, config.image.clone()),
        ];
        ContainerCreateBody {
            image: Some(config.image.clone()),
            // Docker drops the image's arguments when it is given an entrypoint, as Kubernetes does.
            entrypoint: config.command.clone(),
            cmd: config.args.clone(),
            env: Some(config.env.iter().map(|it| format!("{}={}", it.name, it.value)).collect()),
            working_dir: config.working_dir.clone(),
            user: who.user,
            tty: Some(config.tty),
            open_stdin: Some(config.stdin),
            stdin_once: Some(config.stdin_once),
            // Kubernetes ignores the image's health check.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
            labels: Some(names::labels(&config.labels, ours.into_iter().chain(volumes.note()))),
            host_config: Some(self.host_config_of(config, pod, who.groups, confinement)),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config_of(
        &self,
        config: &ContainerConfig,
        pod: &Pod,
        groups: Vec<u32>,
        confinement: Confinement,
    ) -> HostConfig {
        let joined = format!("container:{}", config.sandbox);
        let wanted = &config.resources;
        // Not `json-file`, which keeps no bytes but UTF-8, and splits characters where it cuts long lines.
        let limits = HashMap::from([
            ("compress".to_owned(), "false".to_owned()),
            ("max-size".to_owned(), self.config.log_max_size.to_string()),
            ("max-file".to_owned(), self.config.log_max_files.to_string()),
        ]);
        HostConfig {
            network_mode: Some(joined),
            ipc_mode: Some(pod.ipc_mode.clone()),
            pid_mode: pod.pid_mode.clone(),
            privileged: Some(confinement.privileged),
            cap_add: Some(confinement.add),
            cap_drop: Some(confinement.drop),
            group_add: Some(groups.iter().map(ToString::to_string).collect()),
            readonly_rootfs: Some(config.security.read_only_root),
            security_opt: Some(confinement.options),
            masked_paths: Some(confinement.masked),
            readonly_paths: Some(confinement.read_only),
            pids_limit: wanted.pids_limit,
            cgroup_parent: pod.cgroup_parent.clone(),
            mounts: Some(config.mounts.iter().map(|it| mount(it, self.client.speaks(RECURSIVE))).collect()),
            log_config: Some(HostConfigLogConfig { typ: Some("local".to_owned()), config: Some(limits) }),
            cpu_shares: wanted.cpu_shares.and_then(|shares| i64::try_from(shares).ok()),
            cpu_quota: wanted.cpu_quota,
            cpu_period: wanted.cpu_period.and_then(|period| i64::try_from(period).ok()),
            memory: wanted.memory_limit,
            // `memory_swap` is the limit of memory and swap together: no swap (R-RES-14).
            memory_swap: wanted.memory_limit.filter(|_| cgroup::limits_swap()),
            oom_score_adj: wanted.oom_score_adj.map(|wanted| i64::from(oom_score_adj(wanted))),
            ..host_config()
        }
    }
}

/// Returns a mount in Docker's form. `can_recurse` tells whether Docker knows [`RECURSIVE`]: then it makes the mounts
/// below a read-only one read-only too, if it can and is not told otherwise.
fn mount(mount: &Mount, can_recurse: bool) -> ApiMount {
    let propagation = match mount.propagation {
        MountPropagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        MountPropagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
        MountPropagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
    };
    let depth = |wanted| (can_recurse && mount.read_only && mount.recursive_read_only == wanted).then_some(true);
    ApiMount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.to_string_lossy().into_owned()),
        target: Some(mount.destination.to_string_lossy().into_owned()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            read_only_non_recursive: depth(RecursiveReadOnly::Disabled),
            read_only_force_recursive: depth(RecursiveReadOnly::Enabled),
            ..MountBindOptions::default()
        }),
        ..ApiMount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Mount, RecursiveReadOnly, mount};

    // R-MNT-6.
    #[test]
    fn docker_is_told_how_deep_a_mount_is_read_only_where_it_knows() {
        use RecursiveReadOnly::{Disabled, Enabled, IfPossible};
        for (recursive, read_only, can_recurse, expected) in [
            (Enabled, true, true, (None, Some(true))),
            (IfPossible, true, true, (None, None)),
            (Disabled, true, true, (Some(true), None)),
            (Disabled, false, true, (None, None)),
            // The layers of an image are read-only by themselves.
            (Enabled, false, true, (None, None)),
            (Disabled, true, false, (None, None)),
            (IfPossible, true, false, (None, None)),
        ] {
            let wanted = Mount { read_only, recursive_read_only: recursive, ..Mount::new("/a", "/b") };
            let made = mount(&wanted, can_recurse);
            let options = made.bind_options.expect("it is a bind mount");
            let found = (options.read_only_non_recursive, options.read_only_force_recursive);
            assert_eq!(found, expected, "{recursive:?}, read-only: {read_only}, can: {can_recurse}");
            assert_eq!(made.read_only, Some(read_only));
        }
    }
}
