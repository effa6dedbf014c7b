//! Cases: privileges of a container, seen from inside.

use super::{
    kit::{Kit, SERVER, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{ContainerId, ErrorKind, Mount, Profile, Runtime, Security, testing::capabilities as known};

/// Returns a line of `/proc/self/status` of a process that runs in a container with the container's privileges.
async fn line<R: Runtime>(kit: &Kit<'_, R>, id: &ContainerId, name: &str) -> Outcome<String> {
    let output = kit.exec(id, &["cat", "/proc/self/status"]).await?;
    let prefix = format!("{name}:");
    let line = output.stdout.lines().find_map(|line| line.strip_prefix(&prefix));
    let line = line.ok_or_else(|| Stop::Failed(format!("/proc/self/status has no line {name}: {output:?}")))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Starts a container with these security settings.
async fn confined<R: Runtime>(kit: &Kit<'_, R>, security: Security) -> Outcome<ContainerId> {
    let mut config = kit.container(&kit.sandbox().await?, SERVER);
    config.security = security;
    kit.started(config).await
}

async fn expect<R: Runtime>(kit: &Kit<'_, R>, id: &ContainerId, lines: &[(&str, &str)]) -> Outcome {
    for (name, expected) in lines {
        let found = line(kit, id, name).await?;
        ensure!(found == *expected, "{name} is {found:?} and not {expected:?}");
    }
    Ok(())
}

/// Returns a capability set from `/proc/self/status`.
async fn set<R: Runtime>(kit: &Kit<'_, R>, id: &ContainerId, name: &str) -> Outcome<u64> {
    let text = line(kit, id, name).await?;
    u64::from_str_radix(&text, 16).map_err(|error| Stop::Failed(format!("{name} is {text:?}: {error}")))
}

/// Checks that a container without security settings has root's IDs, the default capabilities, and the runtime's own
/// seccomp profile (R-SEC-1, R-SEC-2, R-SEC-4). R-SEC-16.
pub(super) async fn usual<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let id = confined(kit, Security::default()).await?;
    let usual = format!("{:016x}", known::USUAL);
    let none = "0000000000000000";
    let sets = [("CapInh", none), ("CapPrm", &usual), ("CapEff", &usual), ("CapBnd", &usual), ("CapAmb", none)];
    expect(kit, &id, &[("Uid", "0 0 0 0"), ("Gid", "0 0 0 0"), ("NoNewPrivs", "0"), ("Seccomp", "2")]).await?;
    expect(kit, &id, &sets).await
}

/// Checks that user and group replace the image's, and that a user other than root has no effective capabilities but
/// keeps the bounding set. R-SEC-16.
pub(super) async fn user<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let id = confined(kit, Security { user: Some(1234), group: Some(2345), ..Security::default() }).await?;
    let none = "0000000000000000";
    let usual = format!("{:016x}", known::USUAL);
    expect(kit, &id, &[("Uid", "1234 1234 1234 1234"), ("Gid", "2345 2345 2345 2345"), ("Groups", "2345")]).await?;
    expect(kit, &id, &[("CapPrm", none), ("CapEff", none), ("CapBnd", &usual), ("CapAmb", none)]).await
}

/// Checks that a user without a group is in group 0, unless the image says otherwise, and that supplemental groups are
/// added (R-SEC-10). R-SEC-16.
pub(super) async fn groups<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let security = Security { user: Some(1234), groups: vec![5001, 5000], ..Security::default() };
    let id = confined(kit, security).await?;
    expect(kit, &id, &[("Gid", "0 0 0 0"), ("Groups", "0 5000 5001")]).await
}

/// Checks that capabilities are added and dropped (R-SEC-6). R-SEC-16.
pub(super) async fn capabilities<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let security = Security {
        add_capabilities: names(&["NET_ADMIN", "SYS_TIME"]),
        drop_capabilities: names(&["CHOWN", "KILL"]),
        ..Security::default()
    };
    let id = confined(kit, security).await?;
    let bit = |name: &str| known::bits(name).unwrap_or(0);
    let expected = (known::USUAL | bit("NET_ADMIN") | bit("SYS_TIME")) & !bit("CHOWN") & !bit("KILL");
    for name in ["CapEff", "CapPrm", "CapBnd"] {
        let found = set(kit, &id, name).await?;
        ensure!(found == expected, "{name} is {found:016x} and not {expected:016x}");
    }
    Ok(())
}

/// Checks that dropping `ALL` and adding one leaves one (R-SEC-6), and that adding `ALL` gives more than the default
/// set.
pub(super) async fn all_capabilities<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.security.drop_capabilities = names(&["ALL"]);
    config.security.add_capabilities = names(&["NET_BIND_SERVICE"]);
    let id = kit.started(config).await?;
    let found = set(kit, &id, "CapEff").await?;
    ensure!(Some(found) == known::bits("NET_BIND_SERVICE"), "all dropped and one added are {found:016x}");
    let mut config = kit.container(&sandbox, SERVER);
    config.name = "all".to_owned();
    config.security.add_capabilities = names(&["ALL"]);
    let id = kit.started(config).await?;
    let (found, least) = (set(kit, &id, "CapEff").await?, known::USUAL | known::bits("SYS_ADMIN").unwrap_or(0));
    ensure!(found & least == least, "with all added they are {found:016x}");
    Ok(())
}

/// Checks that a privileged container has all capabilities and is not confined (R-SEC-5). R-SEC-16.
pub(super) async fn privileged<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let id = confined(kit, Security { privileged: true, ..Security::default() }).await?;
    let (found, least) = (set(kit, &id, "CapEff").await?, known::USUAL | known::bits("SYS_ADMIN").unwrap_or(0));
    ensure!(found & least == least, "CapEff is {found:016x}");
    expect(kit, &id, &[("Seccomp", "0"), ("NoNewPrivs", "0")]).await?;
    ensure!(!is_masked(kit, &id).await?, "/proc/sys is mounted read-only");
    Ok(())
}

/// Checks that `no_new_privileges` sets `NoNewPrivs` (R-SEC-4). R-SEC-16.
pub(super) async fn no_new_privileges<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let id = confined(kit, Security { no_new_privileges: true, ..Security::default() }).await?;
    expect(kit, &id, &[("NoNewPrivs", "1")]).await
}

/// Checks that a read-only root file system cannot be written, and that mounts on it can.
pub(super) async fn read_only_root<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let dir = kit.options.dir.join(format!("{}-mount", kit.uid));
    tokio::fs::create_dir(&dir).await?;
    let mut config = kit.container(&kit.sandbox().await?, SERVER);
    config.security.read_only_root = true;
    let propagation = Default::default();
    config.mounts = vec![Mount { propagation, ..Mount::new(dir.clone(), "/dir") }];
    let id = kit.started(config).await?;
    let output = kit.exec(&id, &["sh", "-c", "echo x > /file"]).await?;
    ensure!(output.code != 0, "writing to read-only files says {output:?}");
    let output = kit.exec(&id, &["sh", "-c", "echo x > /dir/file"]).await?;
    ensure!(output.code == 0, "writing to a mount on read-only files says {output:?}");
    Ok(tokio::fs::remove_dir_all(&dir).await?)
}

/// Checks that `/proc/sys` is read-only, unless `unmasked_proc` is set (R-SEC-7).
pub(super) async fn masked_proc<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let id = kit.started(kit.container(&sandbox, SERVER)).await?;
    ensure!(is_masked(kit, &id).await?, "/proc/sys can be written");
    let mut config = kit.container(&sandbox, SERVER);
    config.name = "unmasked".to_owned();
    config.security.unmasked_proc = true;
    let id = kit.started(config).await?;
    ensure!(!is_masked(kit, &id).await?, "unmasked, /proc/sys is mounted read-only");
    Ok(())
}

async fn is_masked<R: Runtime>(kit: &Kit<'_, R>, id: &ContainerId) -> Outcome<bool> {
    let mounts = kit.exec(id, &["cat", "/proc/self/mounts"]).await?;
    Ok(mounts.stdout.lines().any(|line| line.split(' ').nth(1) == Some("/proc/sys")))
}

/// Checks that a container runs without a seccomp profile, or with one of the node's (R-SEC-8).
pub(super) async fn seccomp<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let path = kit.options.dir.join(format!("{}.json", kit.uid));
    tokio::fs::write(&path, PROFILE).await?;
    let profile = path.to_string_lossy().into_owned();
    for (name, profile, mode) in
        [("unconfined", Profile::Unconfined, "0"), ("localhost", Profile::Localhost { profile }, "2")]
    {
        let mut config = kit.container(&sandbox, SERVER);
        config.name = name.to_owned();
        config.security.seccomp = profile;
        let id = kit.started(config).await?;
        expect(kit, &id, &[("Seccomp", mode)]).await?;
    }
    Ok(tokio::fs::remove_file(&path).await?)
}

/// Seccomp profile in the format of Kubernetes, containerd and Docker.
const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{ "names": ["swapon", "swapoff"], "action": "SCMP_ACT_ERRNO" }]
}"#;

/// Checks that a missing seccomp profile is an error, and not a container without a profile.
pub(super) async fn seccomp_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    // The same container works without the missing profile.
    kit.started(kit.container(&sandbox, SERVER)).await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.name = "absent".to_owned();
    let profile = kit.options.dir.join("no-such-profile.json").to_string_lossy().into_owned();
    config.security.seccomp = Profile::Localhost { profile };
    let answer = async {
        let id = kit.runtime.create_container(config).await?;
        kit.runtime.start_container(id).await
    };
    refused(answer.await, &[ErrorKind::Invalid], "a seccomp profile that does not exist")
}

/// Checks that the container has its `oom_score_adj` (R-RES-16).
pub(super) async fn oom_score_adj<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let mut config = kit.container(&kit.sandbox().await?, SERVER);
    config.resources.oom_score_adj = Some(963);
    let id = kit.started(config).await?;
    let output = kit.exec(&id, &["cat", "/proc/1/oom_score_adj"]).await?;
    ensure!(output.stdout == "963\n", "/proc/1/oom_score_adj is {output:?}");
    Ok(())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
