//! Limits and weights of a pod's cgroup, written to the kernel's files, v1 or v2 (R-RES-12, R-RES-13).

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use stanchion_runtime::LinuxResources;
use stanchion_untrusted::read_kernel;

use super::{Hierarchy, hierarchies};

/// Controllers for the limits of pods.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "hugetlb"];

/// A cgroup file and its new value.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: String,
    value: String,
    /// Whether a failed write is an error: without the limit a pod could exceed its resources.
    is_limit: bool,
}

fn setting(controller: &'static str, file: &str, value: String, is_limit: bool) -> Setting {
    Setting { controller, file: file.to_owned(), value, is_limit }
}

/// Creates a cgroup in every hierarchy, and writes its limits to the hierarchies that have the controllers. It is
/// created in the others too, so that the OCI runtime finds it and does not collide with another pod's removal on the
/// way.
pub(super) fn make(path: &Path, resources: &LinuxResources) -> io::Result<()> {
    let path = path.strip_prefix("/").unwrap_or(path);
    for hierarchy in hierarchies() {
        let has = |controller: &&str| hierarchy.controllers.iter().any(|it| it == controller);
        let controllers: Vec<_> = CONTROLLERS.into_iter().filter(has).collect();
        let place = hierarchy.place.join(path);
        match make_dirs(hierarchy, path, &controllers) {
            // The OCI runtime may not use this hierarchy at all.
            Err(error) if controllers.is_empty() => {
                tracing::debug!(path = %place.display(), %error, "a cgroup without limits is not made");
                continue;
            }
            made => made?,
        }
        let settings = if hierarchy.is_unified { unified(resources) } else { legacy(resources) };
        for setting in settings.iter().filter(|setting| controllers.contains(&setting.controller)) {
            write(&place, setting)?;
        }
    }
    Ok(())
}

/// Creates the directories. It retries, because another pod's end may remove an empty parent meanwhile.
fn make_dirs(hierarchy: &Hierarchy, path: &Path, controllers: &[&str]) -> io::Result<()> {
    const TRIES: u32 = 10;
    for tried in 1.. {
        match try_make_dirs(hierarchy, path, controllers) {
            Err(error) if error.kind() == ErrorKind::NotFound && tried < TRIES => {}
            made => return made,
        }
    }
    Ok(())
}

fn try_make_dirs(hierarchy: &Hierarchy, path: &Path, controllers: &[&str]) -> io::Result<()> {
    let mut place = hierarchy.place.clone();
    for part in path {
        if hierarchy.is_unified {
            // Enables the controller for the cgroup's children (cgroup-v2, "Enabling and Disabling"). If that fails and
            // the controller is not enabled already, the write to the limit's own file fails.
            for controller in controllers {
                fs::write(place.join("cgroup.subtree_control"), format!("+{controller}")).ok();
            }
        }
        place.push(part);
        match fs::create_dir(&place) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write(place: &Path, setting: &Setting) -> io::Result<()> {
    let Setting { file, value, is_limit, .. } = setting;
    let path = place.join(file);
    match fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
    {
        Err(error) if *is_limit => Err(io::Error::new(error.kind(), format!("{} = {value}: {error}", path.display()))),
        Err(error) => {
            tracing::debug!(path = %path.display(), value, %error, "a cgroup's weight is not set");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn legacy(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(setting("cpu", "cpu.shares", shares.to_string(), false));
    }
    if let (Some(quota), Some(period)) = (resources.cpu_quota, resources.cpu_period) {
        settings.push(setting("cpu", "cpu.cfs_period_us", period.to_string(), true));
        settings.push(setting("cpu", "cpu.cfs_quota_us", quota.to_string(), true));
    }
    if let Some(limit) = resources.memory_limit {
        settings.push(setting("memory", "memory.limit_in_bytes", limit.to_string(), true));
    }
    settings.extend(counted(resources, "limit_in_bytes"));
    settings
}

fn unified(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(setting("cpu", "cpu.weight", weight(shares).to_string(), false));
    }
    if let (Some(quota), Some(period)) = (resources.cpu_quota, resources.cpu_period) {
        settings.push(setting("cpu", "cpu.max", format!("{quota} {period}"), true));
    }
    if let Some(limit) = resources.memory_limit {
        settings.push(setting("memory", "memory.max", limit.to_string(), true));
    }
    settings.extend(counted(resources, "max"));
    settings
}

/// Returns the settings with nearly the same file names in v1 and v2.
fn counted(resources: &LinuxResources, most: &str) -> impl Iterator<Item = Setting> {
    let pids = resources.pids_limit.map(|limit| setting("pids", "pids.max", limit.to_string(), true));
    let hugepages = resources.hugepage_limits.iter().map(move |it| {
        setting("hugetlb", &format!("hugetlb.{}.{most}", it.page_size), it.limit.to_string(), it.limit > 0)
    });
    pids.into_iter().chain(hugepages)
}

/// Converts CPU shares of v1 to a weight of v2 (R-RES-12).
pub(super) fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

/// Sets the CPU weight of a QoS class's cgroup to the sum of its pods' weights; `besteffort` gets the minimum
/// (R-RES-5).
pub(super) fn weigh(class: &Path) -> io::Result<()> {
    let path = class.strip_prefix("/").unwrap_or(class);
    for hierarchy in hierarchies().iter().filter(|it| it.controllers.iter().any(|it| it == "cpu")) {
        let place = hierarchy.place.join(path);
        let file = if hierarchy.is_unified { "cpu.weight" } else { "cpu.shares" };
        let (least, most) = if hierarchy.is_unified { (1, 10_000) } else { (2, 262_144) };
        let pods = match fs::read_dir(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            pods => pods?.flatten(),
        };
        let is_best_effort = class.file_name().is_some_and(|name| name == "besteffort");
        let weights = pods.filter_map(|pod| read_kernel(pod.path().join(file)).ok()?.trim().parse::<u64>().ok());
        let sum = if is_best_effort { least } else { weights.sum::<u64>().clamp(least, most) };
        write(&place, &Setting { controller: "cpu", file: file.to_owned(), value: sum.to_string(), is_limit: false })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use stanchion_runtime::HugepageLimit;

    use super::*;

    fn resources() -> LinuxResources {
        LinuxResources {
            cpu_shares: Some(1024),
            cpu_quota: Some(100_000),
            cpu_period: Some(100_000),
            memory_limit: Some(104_857_600),
            pids_limit: Some(64),
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 0 }],
            ..LinuxResources::default()
        }
    }

    fn shown(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|it| format!("{} {}={}", it.controller, it.file, it.value)).collect()
    }

    /// Compares with the recording `resources/guaranteed` (R-RES-4).
    #[test]
    fn version_1_has_a_file_for_each_number() {
        let expected = [
            "cpu cpu.shares=1024",
            "cpu cpu.cfs_period_us=100000",
            "cpu cpu.cfs_quota_us=100000",
            "memory memory.limit_in_bytes=104857600",
            "pids pids.max=64",
            "hugetlb hugetlb.2MB.limit_in_bytes=0",
        ];
        assert_eq!(shown(&legacy(&resources())), expected, "R-RES-13, R-RES-17, R-RES-18");
        assert_eq!(legacy(&LinuxResources::default()), []);
    }

    #[test]
    fn version_2_has_weights_and_pairs() {
        let expected = [
            "cpu cpu.weight=39",
            "cpu cpu.max=100000 100000",
            "memory memory.max=104857600",
            "pids pids.max=64",
            "hugetlb hugetlb.2MB.max=0",
        ];
        assert_eq!(shown(&unified(&resources())), expected, "R-RES-12, R-RES-13");
        assert_eq!([weight(2), weight(262_144), weight(0)], [1, 10_000, 1], "R-RES-12");
    }

    #[test]
    fn what_the_kernel_does_not_have_is_no_limit_that_holds() {
        let dir = std::env::temp_dir();
        let setting =
            |is_limit| Setting { controller: "cpu", file: "no-such-file".to_owned(), value: "1".to_owned(), is_limit };
        assert!(write(&dir, &setting(false)).is_ok());
        assert!(write(&dir, &setting(true)).expect_err("a limit").to_string().contains("no-such-file = 1"));
    }
}
