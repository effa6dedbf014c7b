//! What containers use, from their cgroups.

use containerd_client::services::v1::ListContainersRequest;
use jiff::Timestamp;
use stanchion_sdk::runtime::{ContainerId, ContainerStats, Result, Stats};

use crate::{Containerd, cgroup, client::failed, names};

impl Containerd {
    pub(crate) async fn read_stats(&self) -> Result<Stats> {
        let filters = vec![format!("labels.\"{}\"", names::KIND)];
        let records = self.client.containers().list(self.client.request(ListContainersRequest { filters })).await;
        let records = records.map_err(|status| failed("listing the containers", &status))?.into_inner().containers;
        self.blocking(move |backend| {
            let pod = |sandbox: &str| {
                let sandbox = records.iter().find(|record| record.id == sandbox)?;
                sandbox.labels.get(names::CGROUP).cloned()
            };
            let containers = records.iter().filter_map(|record| {
                let pod = pod(record.labels.get(names::SANDBOX)?)?;
                of(&record.id, &format!("{}/{pod}/{}", backend.config.cgroup_root, record.id))
            });
            Ok(Stats { containers: containers.collect() })
        })
        .await
    }
}

/// The use of one container; `None` when it does not run.
fn of(id: &str, path: &str) -> Option<ContainerStats> {
    let number = |names: &[&str]| cgroup::read(path, names)?.trim().parse::<u64>().ok();
    let field = |names: &[&str], field: &str| {
        let text = cgroup::read(path, names)?;
        text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<u64>().ok())
    };
    // v1's own file, else v2's in µs.
    let cpu = number(&["cpuacct.usage"]).or_else(|| field(&["cpu.stat"], "usage_usec ").map(|usage| usage * 1000));
    let memory = number(&["memory.usage_in_bytes", "memory.current"])?;
    let inactive =
        field(&["memory.stat"], "total_inactive_file ").or_else(|| field(&["memory.stat"], "inactive_file "));
    Some(ContainerStats {
        id: ContainerId(id.to_owned()),
        timestamp: Timestamp::now(),
        cpu_usage_ns: cpu.unwrap_or(0),
        memory_usage: memory,
        memory_working_set: memory.saturating_sub(inactive.unwrap_or(0)),
        pids: number(&["pids.current"]).unwrap_or(0),
    })
}
