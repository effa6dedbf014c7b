//! Search for processes of pods on the node, without the help of any runtime.
//!
//! On every backend, the cgroup of a pod's containers has the pod's UID in its name. So a pod is dead if no process of
//! the node is in such a cgroup, even if its backend does not answer.

use std::{
    collections::BTreeSet,
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_pod::PodUid;
use stanchion_untrusted::read_kernel;
use tokio::sync::Mutex;

use crate::{
    blocking,
    clock::{elapsed, instant},
};

/// Time for which a scan can be used again: many pods lose their backend at the same time.
const SCAN_LIFETIME: Duration = Duration::from_millis(500);

/// Search for processes of pods.
#[derive(Debug)]
pub(crate) struct PodProcesses {
    /// Mount point of procfs.
    proc: PathBuf,
    latest: Mutex<Option<(Instant, Arc<BTreeSet<String>>)>>,
}

impl PodProcesses {
    pub fn new(proc: PathBuf) -> Self {
        Self { proc, latest: Mutex::default() }
    }

    /// Returns the first of these UIDs that has a process.
    ///
    /// # Errors
    /// The processes of the node cannot be listed.
    pub async fn any_of(&self, uids: &BTreeSet<PodUid>) -> io::Result<Option<PodUid>> {
        let cgroups = self.cgroups().await?;
        let is_alive = |uid: &&PodUid| cgroups.iter().any(|cgroup| is_of(cgroup, uid.as_str()));
        Ok(uids.iter().find(is_alive).cloned())
    }

    /// Returns the cgroups of all processes.
    async fn cgroups(&self) -> io::Result<Arc<BTreeSet<String>>> {
        let mut latest = self.latest.lock().await;
        match &*latest {
            Some((at, cgroups)) if elapsed(*at) < SCAN_LIFETIME => Ok(Arc::clone(cgroups)),
            _ => {
                let proc = self.proc.clone();
                let cgroups = Arc::new(blocking(move || scan(&proc)).await?);
                *latest = Some((instant(), Arc::clone(&cgroups)));
                Ok(cgroups)
            }
        }
    }
}

/// Returns whether a line of `/proc/PID/cgroup` names a cgroup of the pod with this UID, or one below it. Its name is
/// `pod<uid>`, or with systemd a slice such as `stanchion-burstable-pod<uid>.slice`, with `_` for each `-` of the UID.
fn is_of(cgroup: &str, uid: &str) -> bool {
    let is_pod = |name: &str, uid: &str| name.strip_prefix("pod").is_some_and(|rest| rest == uid);
    let path = cgroup.splitn(3, ':').last().unwrap_or_default();
    path.split('/').any(|name| match name.strip_suffix(".slice") {
        Some(slice) => is_pod(slice.rsplit('-').next().unwrap_or_default(), &uid.replace('-', "_")),
        None => is_pod(name, uid),
    })
}

fn scan(proc: &std::path::Path) -> io::Result<BTreeSet<String>> {
    let mut cgroups = BTreeSet::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        match read_kernel(entry.path().join("cgroup")) {
            Ok(text) => cgroups.extend(text.lines().filter(|line| line.contains("pod")).map(str::to_owned)),
            // The process has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cgroups)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use stanchion_pod::PodUid;
    use tempfile::TempDir;

    use super::PodProcesses;

    #[tokio::test]
    async fn a_pod_is_alive_while_any_process_is_in_a_cgroup_of_it() {
        let proc = TempDir::new().expect("a temporary directory");
        for (pid, cgroup) in [
            ("7", "4:memory:/stanchion/podaaa-1/app\n0::/\n"),
            ("8", "0::/stanchion.slice/stanchion-podbbb_2.slice/docker-1.scope\n"),
            ("10", "0::/stanchion/burstable/podddd/poda_b.slice/x\n"),
            ("11", "0::/stanchion.slice/stanchion-besteffort.slice/stanchion-besteffort-podeee.slice/x.scope\n"),
            ("12", "0::/stanchion/mypodfff/x-podfff/podfff.d/app\n"),
            ("self", "0::/stanchion/podccc/app\n"),
        ] {
            fs::create_dir(proc.path().join(pid)).expect("a process");
            fs::write(proc.path().join(pid).join("cgroup"), cgroup).expect("its cgroup");
        }
        // This process ends during the scan.
        fs::create_dir(proc.path().join("9")).expect("a process");
        let processes = PodProcesses::new(proc.path().to_owned());
        let alive = async |uids: &[&str]| {
            let uids: BTreeSet<_> = uids.iter().map(|uid| PodUid::new(uid)).collect();
            processes.any_of(&uids).await.expect("a scan").map(|uid| uid.as_str().to_owned())
        };
        assert_eq!(alive(&["aaa-1"]).await.as_deref(), Some("aaa-1"));
        assert_eq!(alive(&["zzz", "bbb-2"]).await.as_deref(), Some("bbb-2"));
        assert_eq!(alive(&["ccc", "aaa-2"]).await, None);
        assert_eq!(alive(&["eee"]).await.as_deref(), Some("eee"));
        // Another pod's UID begins or ends like these.
        for part in ["a", "aaa", "aa-1", "bbb", "2", "b", "dd", "fff", "eee.slice", ""] {
            assert_eq!(alive(&[part]).await, None, "{part}");
        }
        let nowhere = PodProcesses::new(proc.path().join("none"));
        nowhere.any_of(&BTreeSet::new()).await.expect_err("nothing can be said without procfs");
    }
}
