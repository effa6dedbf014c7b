//! Resource use of containers, from their cgroups and the snapshotter.

use containerd_client::services::v1::snapshots::UsageRequest;
use stanchion_sdk::runtime::{ContainerId, ContainerStats, DiskUsage, Error, ErrorKind, Result, Stats};

use crate::{
    Containerd,
    cgroup::Cgroup,
    client::{failed, is_gone},
    inventory::of_ours,
    names, volumes,
};

impl Containerd {
    pub(crate) async fn read_stats(&self) -> Result<Stats> {
        let records = self.records(vec![format!("{}==container", of_ours())]).await?;
        self.blocking(move |_| {
            let used = records.iter().filter_map(|record| of(&record.id, record.labels.get(names::CGROUP)?));
            Ok(Stats { containers: used.collect() })
        })
        .await
    }

    pub(crate) async fn read_disk_usage(&self, id: &ContainerId) -> Result<DiskUsage> {
        let Some(record) = self.record(id.as_str()).await? else {
            return Err(Error::new(ErrorKind::NotFound, format!("container {id} is gone")));
        };
        let mut writable_layer = 0_u64;
        for key in [&record.id].into_iter().chain(volumes::written(&record)) {
            let request = UsageRequest { snapshotter: record.snapshotter.clone(), key: key.clone() };
            let size = match self.client.snapshots().usage(self.client.request(request)).await {
                Ok(usage) => usage.into_inner().size.try_into().unwrap_or(0),
                // The start makes the snapshots.
                Err(status) if is_gone(&status) => 0,
                Err(status) => return Err(failed(format!("measuring the files of container {id}"), &status)),
            };
            writable_layer = writable_layer.saturating_add(size);
        }
        Ok(DiskUsage { writable_layer, logs: 0 })
    }
}

/// Returns the usage of one container; `None` when it does not run.
fn of(id: &str, path: &str) -> Option<ContainerStats> {
    let cgroup = Cgroup::at(path);
    let pids = cgroup.population().filter(|pids| *pids > 0)?;
    // The file of cgroup v1 (ns), else that of v2 (µs).
    let cpu = cgroup.number(&["cpuacct.usage"]).or_else(|| Some(cgroup.field("cpu.stat", "usage_usec")? * 1000));
    let memory = cgroup.number(&["memory.usage_in_bytes", "memory.current"])?;
    let inactive = ["total_inactive_file", "inactive_file"];
    let inactive = inactive.into_iter().find_map(|field| cgroup.field("memory.stat", field));
    Some(ContainerStats {
        id: ContainerId(id.to_owned()),
        timestamp: stanchion_sdk::clock::now(),
        cpu_usage_ns: cpu.unwrap_or(0),
        memory_usage: memory,
        memory_working_set: memory.saturating_sub(inactive.unwrap_or(0)),
        pids,
    })
}
