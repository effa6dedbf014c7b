//! cgroups of pods: runc removes a container's, not the pod's around it.

use std::{fs, io, path::PathBuf};

/// Removes a pod's cgroup from every hierarchy, deepest first. One that is in use stays.
pub(crate) fn remove(path: &str) -> io::Result<()> {
    for hierarchy in hierarchies()? {
        let directory = hierarchy.join(path.trim_start_matches('/'));
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Another life of the same pod runs in it.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// A file of a cgroup, from whichever hierarchy has it.
pub(crate) fn read(path: &str, names: &[&str]) -> Option<String> {
    let path = path.trim_start_matches('/');
    let hierarchies = hierarchies().ok()?;
    let places = hierarchies.iter().flat_map(|it| names.iter().map(move |name| it.join(path).join(name)));
    places.into_iter().find_map(|file| fs::read_to_string(file).ok())
}

/// Mount points of cgroup hierarchies, v1 and v2 (proc_pid_mountinfo(5)).
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = table.lines().filter_map(|line| line.split_once(" - "));
    let mounts = mounts.filter(|(_, what)| what.starts_with("cgroup"));
    Ok(mounts.filter_map(|(place, _)| place.split(' ').nth(4)).map(PathBuf::from).collect())
}
