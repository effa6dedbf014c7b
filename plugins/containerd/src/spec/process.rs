//! Process of a container, as the OCI configuration has it.

use std::collections::HashSet;

use oci_spec::{
    OciSpecError,
    runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, UserBuilder},
};
use stanchion_sdk::{descendants::Mark, privileges::oom_score_adj, users};

use super::{Parts, SpecError, capabilities, confinement};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(parts: &Parts<'_>) -> Result<Process, SpecError> {
    let image = &parts.image.config.config;
    let (entrypoint, arguments) = (image.entrypoint.clone(), image.cmd.clone());
    let config = parts.config;
    // A command replaces the image's entrypoint and its arguments; args alone replace the arguments.
    let words: Vec<String> = match (&config.command, &config.args) {
        (Some(command), args) => command.iter().chain(args.iter().flatten()).cloned().collect(),
        (None, Some(args)) => entrypoint.into_iter().chain(args.iter().cloned()).collect(),
        (None, None) => entrypoint.into_iter().chain(arguments).collect(),
    };
    if words.is_empty() {
        return Err(SpecError::NothingToRun);
    }
    let security = &config.security;
    let ids = users::in_force(&image.user, security, parts.tables)?;
    let user = UserBuilder::default().uid(ids.user).gid(ids.group).additional_gids(ids.groups).build()?;
    let directory = config.working_dir.clone().unwrap_or_else(|| image.working_dir.clone());
    let process = ProcessBuilder::default()
        .terminal(config.tty)
        .user(user)
        .args(words)
        .env(environment(parts))
        .cwd(if directory.is_empty() { "/".to_owned() } else { directory })
        .no_new_privileges(security.no_new_privileges)
        .oom_score_adj(oom_score_adj(config.resources.oom_score_adj.unwrap_or(0)))
        .rlimits(Vec::<PosixRlimit>::new());
    let allowed = capabilities::set(security).map_err(confinement::ConfinementError::from)?;
    let mut process = process.capabilities(capabilities::capabilities(allowed, ids.user == 0)?);
    if let Some(profile) = confinement::app_armor(security)? {
        process = process.apparmor_profile(profile);
    }
    if let Some(context) = confinement::se_linux(security) {
        process = process.selinux_label(context.of_processes());
    }
    Ok(process.build()?)
}

/// Returns the process of an exec. All that it starts inherits `mark`.
pub(crate) fn exec(
    process: &Process,
    command: Vec<String>,
    terminal: bool,
    mark: Option<Mark>,
) -> Result<Process, OciSpecError> {
    let mut process = process.clone();
    if let Some(mark) = mark {
        let limit =
            PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitLocks).soft(mark.limit()).hard(mark.limit());
        process.set_rlimits(Some(vec![limit.build()?]));
    }
    process.set_args(Some(command));
    process.set_terminal(Some(terminal));
    if terminal {
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|variable| variable.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        process.set_env(Some(env));
    }
    Ok(process)
}

fn environment(parts: &Parts<'_>) -> Vec<String> {
    let image = parts.image.config.config.env.iter().cloned();
    let given = parts.config.env.iter().map(|variable| format!("{}={}", variable.name, variable.value));
    let node = || nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
    let host = Some(parts.hostname.to_owned()).filter(|name| !name.is_empty()).or_else(node);
    let host = host.map(|name| format!("HOSTNAME={name}"));
    // The last variable of a name wins.
    let all: Vec<String> = [PATH.to_owned()].into_iter().chain(host).chain(image).chain(given).collect();
    let mut seen = HashSet::new();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut kept: Vec<_> = all.into_iter().rev().filter(|variable| seen.insert(name(variable))).collect();
    kept.reverse();
    kept
}
