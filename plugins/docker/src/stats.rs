//! Resource use of containers, as Docker reads it from their cgroups.

use std::path::{Path, PathBuf};

use bollard::{
    models::ContainerStatsResponse,
    query_parameters::{InspectContainerOptions, StatsOptions},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use stanchion_sdk::runtime::{ContainerId, ContainerStats, DiskUsage, Error, ErrorKind, Result, Stats};

use crate::{
    Docker,
    client::{failed, is_gone, status},
    inventory::Entry,
    names,
};

/// Number of containers that are asked about at the same time.
const PARALLEL: usize = 8;

impl Docker {
    pub(crate) async fn read_stats(&self) -> Result<Stats> {
        let entries = self.entries(vec![format!("{}=container", names::KIND)]).await?;
        let running = stream::iter(entries.into_iter().filter(Entry::runs));
        let used = running.map(|entry| self.stats_of(entry.id)).buffered(PARALLEL);
        let containers = used.try_filter_map(|used| std::future::ready(Ok(used))).try_collect().await?;
        Ok(Stats { containers })
    }

    /// Measures one container: Docker walks its files, and those of no other.
    pub(crate) async fn read_disk_usage(&self, id: &ContainerId) -> Result<DiskUsage> {
        let gone = || Error::new(ErrorKind::NotFound, format!("container {id} is gone"));
        let options = InspectContainerOptions { size: true };
        match self.client.api().inspect_container(id.as_str(), Some(options)).await {
            Ok(found) if self.client.owns(found.config.as_ref().and_then(|it| it.labels.as_ref())) => {
                // Docker omits a size of 0.
                let writable_layer = found.size_rw.and_then(|size| size.try_into().ok()).unwrap_or(0);
                // Docker tells only the path of a `json-file`, which containers of earlier versions have.
                let path = match found.log_path.filter(|path| !path.is_empty()) {
                    Some(path) => PathBuf::from(path),
                    None => {
                        let id = found.id.as_deref().unwrap_or(id.as_str());
                        let root = self.ready().await?.root;
                        root.join("containers").join(id).join("local-logs/container.log")
                    }
                };
                Ok(DiskUsage { writable_layer, logs: size_of_logs(&path) })
            }
            Ok(_) => Err(gone()),
            Err(error) if is_gone(&error) => Err(gone()),
            Err(error) => Err(failed(format!("measuring the files of container {id}"), &error)),
        }
    }

    /// Returns the usage of one container; `None` when it does not run any more.
    async fn stats_of(&self, id: String) -> Result<Option<ContainerStats>> {
        // Without `one_shot` Docker takes two seconds, to compare two samples.
        let options = StatsOptions { stream: false, one_shot: true };
        let mut answers = Box::pin(self.client.api().stats(&id, Some(options)));
        match answers.next().await {
            Some(Ok(stats)) => Ok(read(id, &stats)),
            Some(Err(error)) if is_gone(&error) || status(&error) == 409 => Ok(None),
            Some(Err(error)) => Err(failed(format!("reading what container {id} uses"), &error)),
            None => Ok(None),
        }
    }
}

fn read(id: String, stats: &ContainerStatsResponse) -> Option<ContainerStats> {
    let pids = stats.pids_stats.as_ref()?.current.filter(|pids| *pids > 0)?;
    let memory = stats.memory_stats.as_ref()?;
    let usage = memory.usage?;
    let field = |name: &str| memory.stats.as_ref()?.get(name).copied();
    // The name in cgroup v1, else that in v2.
    let inactive = field("total_inactive_file").or_else(|| field("inactive_file")).unwrap_or(0);
    let cpu = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage);
    Some(ContainerStats {
        id: ContainerId(id),
        timestamp: stats.read.as_deref().and_then(|read| read.parse().ok()).unwrap_or_else(stanchion_sdk::clock::now),
        cpu_usage_ns: cpu.unwrap_or(0),
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(inactive),
        pids,
    })
}

/// Returns the size of a log file and of its rotated files, whose names begin with its own, bytes.
fn size_of_logs(file: &Path) -> u64 {
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { return 0 };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()));
    logs.filter_map(|log| Some(log.metadata().ok()?.len())).sum()
}
