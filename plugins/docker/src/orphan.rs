//! Processes of containers that Docker believes not to run.
//!
//! dockerd notes that a container runs when containerd has started it. If dockerd is killed between the two, it finds
//! the container as before its start: it says "created", kills nothing when it is told to, and removes the container
//! without its processes, its shim and its cgroups, which then stay until the node reboots (invariants I1 and I6). The
//! container's cgroup knows better.
//!
//! Killed a little earlier, dockerd leaves a shim without processes, which waits for ever for a reader of the
//! container's output. The next start then waits for that shim, and every call about the container waits for the start.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use stanchion_sdk::{
    blocking,
    cgroup::{Cgroup, Driver},
    runtime::{Error, ErrorKind, Result},
    shim,
};

use crate::Docker;

/// Length of Docker's ids.
const ID: usize = 64;

/// Containers that this agent has created and nobody has tried to start: they have no shim. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untried(Arc<Mutex<HashSet<String>>>);

impl Untried {
    /// Notes a container that was just created.
    pub fn note(&self, id: &str) {
        self.lock().insert(id.to_owned());
    }

    /// Forgets a container. Returns whether it was noted.
    pub fn take(&self, id: &str) -> bool {
        self.lock().remove(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Docker {
    /// Returns whether a shim may wait for a container that Docker has not started.
    pub(crate) fn may_have_shim(&self, id: &str, found: &ContainerInspectResponse) -> bool {
        !self.untried.take(id) && is_unstarted(found)
    }

    /// Ends the processes of a container that Docker says does not run, and removes what is left of its cgroup. `pod`
    /// is the path of its pod's cgroup. Call it only in turn with the container's start.
    pub(crate) async fn end_orphan(&self, id: &str, pod: &str, may_have_shim: bool) -> Result<()> {
        let cgroup = Cgroup::at(&cgroup(self.ready().await?.driver, pod, id));
        let looked = cgroup.clone();
        let population = blocking(move || looked.population()).await;
        let failed = |error: std::io::Error| {
            let tried = format!("ending processes of container {id} that Docker does not know of");
            Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        if population.is_some() {
            cgroup.destroy().await.map_err(failed)?;
        }
        let population = population.unwrap_or(0);
        if population > 0 {
            tracing::warn!(
                container = id,
                processes = population,
                "killed what ran of a container that is not running by what Docker says: dockerd had ended while it started it"
            );
        }
        if population > 0 || may_have_shim {
            // containerd removes what the shim has left when it sees that the shim is gone. Nobody else has Docker's
            // ids.
            let owned = id.to_owned();
            let ended = blocking(move || shim::end(&owned, |_| true)).await.map_err(failed)?;
            if ended > 0 && population == 0 {
                tracing::warn!(container = id, "ended the shim of a start that dockerd had not finished when it ended");
            }
        }
        Ok(())
    }

    /// Does the same for all containers in a pod's cgroup that Docker does not know at all.
    pub(crate) async fn end_orphans(&self, pod: &str) -> Result<()> {
        let driver = self.ready().await?.driver;
        let parent = pod.to_owned();
        let children = blocking(move || Cgroup::at(&parent).children()).await;
        let children = children.map_err(|error| {
            Error::new(ErrorKind::Other, format!("looking into cgroup {pod} of a pod")).caused_by(&error)
        })?;
        for id in children.iter().filter_map(|name| container(driver, name)) {
            if self.client.find(id).await?.is_none() {
                self.end_orphan(id, pod, false).await?;
            }
        }
        Ok(())
    }
}

/// Returns whether Docker says that it has not started a container.
pub(crate) fn is_unstarted(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().and_then(|state| state.status) == Some(ContainerStateStatusEnum::CREATED)
}

/// Returns whether Docker cannot start a container because containerd still has the task or the bundle of an earlier
/// try, whose shim has just ended.
pub(crate) fn is_taken_back(said: &str, id: &str) -> bool {
    // Docker adds the kind of containerd's error.
    let said = said.trim().trim_end_matches(": unknown");
    said.ends_with(&format!("task {id}: already exists")) || shim::has_bundle_of_earlier(said, id)
}

/// Returns the path of a Docker container's cgroup, in its pod's.
pub(crate) fn cgroup(driver: Driver, pod: &str, id: &str) -> String {
    match driver {
        Driver::Files => format!("{pod}/{id}"),
        Driver::Systemd => format!("{pod}/docker-{id}.scope"),
    }
}

/// Returns the container that has a cgroup of this name.
fn container(driver: Driver, name: &str) -> Option<&str> {
    let id = match driver {
        Driver::Files => name,
        Driver::Systemd => name.strip_prefix("docker-")?.strip_suffix(".scope")?,
    };
    (id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::{cgroup, container, is_taken_back};
    use stanchion_sdk::cgroup::Driver::{Files, Systemd};

    #[test]
    fn a_start_that_is_taken_back_is_known_by_dockers_words() {
        // Docker 26.1.5 on containerd 1.7.
        for said in [
            "failed to create task for container: task 0a1b: already exists",
            "failed to create task for container: failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/0a1b: \
             file exists: unknown",
        ] {
            assert!(is_taken_back(said, "0a1b") && !is_taken_back(said, "0a1c"), "{said}");
        }
        let other = "failed to create task for container: failed to create shim task: OCI runtime create failed: mkdir /a: no such file";
        assert!(!is_taken_back(other, "0a1b"));
    }

    #[test]
    fn a_cgroup_has_the_name_of_its_container() {
        let id = "0123456789abcdef".repeat(4);
        for driver in [Files, Systemd] {
            let path = cgroup(driver, "/ours/pod1", &id);
            let name = path.strip_prefix("/ours/pod1/").expect("in the pod's");
            assert_eq!(container(driver, name), Some(id.as_str()));
            assert_eq!(container(driver, "burstable"), None);
        }
        assert_eq!(container(Systemd, &id), None);
    }
}
