//! Limits of a slice. They go through systemd, which would undo any other change (systemd.resource-control(5)).

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use stanchion_runtime::LinuxResources;
use stanchion_untrusted::tree;

use super::limits::weight;

/// Directory of systemd's properties that last until the next boot.
const KEPT: &str = "/run/systemd/system.control";

/// Directory of systemd's units that last until the next boot.
const UNITS: &str = "/run/systemd/system";
/// Drop-in for the slices of pods. With default dependencies, systemd would stop the slices at the start of a shutdown,
/// before the agent ends the pods in order.
const COMMON: &str = "[Unit]\nDefaultDependencies=no\n";

/// Keeps systemd from stopping the slice at this path, and those below it, when the node begins to shut down.
pub(super) fn outlive(root: &str) -> io::Result<()> {
    let name = root.rsplit('/').next().unwrap_or_default().trim_end_matches(".slice");
    // A drop-in directory with a dash at the end applies to every slice with that prefix (systemd.unit(5)).
    for unit in [format!("{name}.slice.d"), format!("{name}-.slice.d")] {
        let directory = Path::new(UNITS).join(unit);
        let file = directory.join("10-stanchion.conf");
        if !file.exists() {
            fs::create_dir_all(&directory)?;
            fs::write(&file, COMMON)?;
        }
    }
    Ok(())
}

/// Sets the limits of a slice, whether or not it exists yet.
pub(super) fn limit(slice: &str, resources: &LinuxResources) -> io::Result<()> {
    let properties = properties(resources);
    if properties.is_empty() {
        return Ok(());
    }
    let output = Command::new("systemctl")
        .args(["--runtime", "set-property", slice])
        .args(properties)
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("systemctl set-property: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
    }
}

/// Removes the properties of a slice that is gone.
pub(super) fn forget(slice: &str) -> io::Result<()> {
    tree::remove(Path::new(KEPT).join(format!("{slice}.d")))
}

fn properties(resources: &LinuxResources) -> Vec<String> {
    let mut properties = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        properties.push(format!("CPUWeight={}", weight(shares)));
    }
    if let (Some(quota), Some(period)) = (resources.cpu_quota, resources.cpu_period.filter(|period| *period > 0)) {
        properties.push(format!("CPUQuotaPeriodSec={period}us"));
        properties
            .push(format!("CPUQuota={}%", u64::try_from(quota).unwrap_or(0).saturating_mul(100).div_ceil(period)));
    }
    if let Some(limit) = resources.memory_limit {
        properties.push(format!("MemoryMax={limit}"));
    }
    if let Some(limit) = resources.pids_limit {
        properties.push(format!("TasksMax={limit}"));
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_properties() {
        let resources = LinuxResources {
            cpu_shares: Some(1024),
            cpu_quota: Some(40_000),
            cpu_period: Some(100_000),
            memory_limit: Some(1 << 20),
            pids_limit: Some(64),
            ..LinuxResources::default()
        };
        let expected =
            ["CPUWeight=39", "CPUQuotaPeriodSec=100000us", "CPUQuota=40%", "MemoryMax=1048576", "TasksMax=64"];
        assert_eq!(properties(&resources), expected, "R-RES-3, R-RES-13");
    }

    #[test]
    fn nothing_to_limit_is_nothing_to_ask_systemd_for() {
        // systemd refuses to set no property, so a call would fail here, with or without systemd.
        limit("stanchion-no-such-pod.slice", &LinuxResources::default()).expect("nothing is set");
    }
}
