//! Processes of containers that Docker takes for not running.
//!
//! dockerd notes that a container runs when containerd has started it. One that is killed between the two finds the container as it was
//! before its start: it says "created", kills nothing when it is told to, and removes the container without its processes, its shim and
//! its cgroups, which then stay until the node is restarted (invariants I1 and I6). The container's cgroup knows better.

use stanchion_sdk::{
    cgroup::{Cgroup, Driver},
    runtime::{Error, ErrorKind, Result},
    shim,
};

use crate::Docker;

/// Length of Docker's ids.
const ID: usize = 64;

impl Docker {
    /// Ends what runs of a container that Docker says does not run, and removes what its cgroup has left. `pod` is the path of its pod's
    /// cgroup. Only to be called in turn with its start.
    pub(crate) async fn end_orphan(&self, id: &str, pod: &str) -> Result<()> {
        let cgroup = Cgroup::at(&cgroup(self.ready().await?.driver, pod, id));
        let looked = cgroup.clone();
        let population = self.blocking(move || Ok(looked.population())).await?;
        let Some(population) = population else { return Ok(()) };
        let failed = |error: std::io::Error| {
            let tried = format!("ending processes of container {id} that Docker does not know of");
            Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        cgroup.destroy().await.map_err(failed)?;
        if population > 0 {
            tracing::warn!(
                container = id,
                processes = population,
                "killed what ran of a container that is not running by what Docker says: dockerd had ended while it started it"
            );
            // containerd removes what the shim has left when it sees that it is gone. Docker's ids are nobody else's.
            let owned = id.to_owned();
            self.blocking(move || Ok(shim::end(&owned, |_| true))).await?.map_err(failed)?;
        }
        Ok(())
    }

    /// The same of all containers in a pod's cgroup that Docker does not know at all.
    pub(crate) async fn end_orphans(&self, pod: &str) -> Result<()> {
        let driver = self.ready().await?.driver;
        let parent = pod.to_owned();
        let children = self.blocking(move || Ok(Cgroup::at(&parent).children())).await?;
        let children = children.map_err(|error| {
            Error::new(ErrorKind::Other, format!("looking into cgroup {pod} of a pod")).caused_by(&error)
        })?;
        for id in children.iter().filter_map(|name| container(driver, name)) {
            if self.client.find(id).await?.is_none() {
                self.end_orphan(id, pod).await?;
            }
        }
        Ok(())
    }
}

/// Where the cgroup of a container of Docker's is, in the pod's.
pub(crate) fn cgroup(driver: Driver, pod: &str, id: &str) -> String {
    match driver {
        Driver::Files => format!("{pod}/{id}"),
        Driver::Systemd => format!("{pod}/docker-{id}.scope"),
    }
}

/// The container that has a cgroup of this name.
fn container(driver: Driver, name: &str) -> Option<&str> {
    let id = match driver {
        Driver::Files => name,
        Driver::Systemd => name.strip_prefix("docker-")?.strip_suffix(".scope")?,
    };
    (id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::{cgroup, container};
    use stanchion_sdk::cgroup::Driver::{Files, Systemd};

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
