//! Devices of the node that a container may use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use nix::sys::stat::{major, minor};
use oci_spec::{
    OciSpecError,
    runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType},
};

/// Entries of `/dev` that a container has of its own, or that are no devices of the node.
const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", ".udev"];

/// Returns the device rules: no device but those that every program expects; all for a privileged container.
pub(super) fn rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let rule = |allow: bool, numbers: Option<(i64, Option<i64>)>| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm");
        if let Some((major, minor)) = numbers {
            rule = rule.typ(LinuxDeviceType::C).major(major);
            if let Some(minor) = minor {
                rule = rule.minor(minor);
            }
        }
        rule.build()
    };
    if privileged {
        return Ok(vec![rule(true, None)?]);
    }
    let usual =
        [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];
    std::iter::once(rule(false, None)).chain(usual.into_iter().map(|numbers| rule(true, Some(numbers)))).collect()
}

/// Lists all devices of the node (R-SEC-5).
pub(super) fn of_node() -> io::Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    search(Path::new("/dev"), &mut found)?;
    Ok(found)
}

fn search(dir: &Path, found: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(|name| OWN.contains(&name)) {
            continue;
        }
        // The device may have been unplugged meanwhile.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let kind = metadata.file_type();
        let typ = match () {
            () if kind.is_dir() => {
                search(&entry.path(), found)?;
                continue;
            }
            () if kind.is_char_device() => LinuxDeviceType::C,
            () if kind.is_block_device() => LinuxDeviceType::B,
            () => continue,
        };
        let number = |number: u64| i64::try_from(number).unwrap_or(0);
        let device = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(typ)
            .major(number(major(metadata.rdev())))
            .minor(number(minor(metadata.rdev())))
            .file_mode(metadata.permissions().mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid());
        found.push(device.build().map_err(io::Error::other)?);
    }
    Ok(())
}
