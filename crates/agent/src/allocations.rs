//! Admission by capacity: the requests of the node's pods must fit together (R-ADM-3), and each host port goes to one
//! pod (R-ADM-5).

mod ports;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use stanchion_plan::reason::{Explanation, Reason};
use stanchion_pod::{Capacity, Pod, PodKey, Resources, Revision};
use stanchion_untrusted::read_kernel;

use crate::{files, node};
use ports::Ports;

/// Capacity of the node, with the requests of its pods.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    /// Maximum number of pods.
    pods: u64,
    /// CPU, millicores.
    cpu: u64,
    /// Memory, bytes.
    memory: u64,
    /// Huge pages: total bytes, by the bytes of one page.
    hugepages: BTreeMap<u64, u64>,
    /// Directory on the file system with pods' files. It can grow.
    disk: PathBuf,
    held: BTreeMap<PodKey, (Revision, Resources)>,
    /// Sum of all requests in `held`.
    used: RequestedAmounts,
    ports: Ports,
}

/// Requested amounts of all limited resources. `u128` holds the sum of any requests.
#[derive(Clone, Debug, Default)]
struct RequestedAmounts {
    pods: u128,
    cpu: u128,
    memory: u128,
    storage: u128,
    hugepages: BTreeMap<u64, u128>,
}

impl RequestedAmounts {
    fn of(resources: &Resources) -> Self {
        Self {
            pods: 1,
            cpu: resources.cpu_request.unwrap_or(0).into(),
            memory: resources.memory_request.unwrap_or(0).into(),
            storage: resources.ephemeral_storage_request.unwrap_or(0).into(),
            hugepages: resources.hugepages.iter().map(|(size, bytes)| (*size, (*bytes).into())).collect(),
        }
    }

    fn change(&mut self, by: &Self, change: impl Fn(u128, u128) -> u128) {
        self.pods = change(self.pods, by.pods);
        self.cpu = change(self.cpu, by.cpu);
        self.memory = change(self.memory, by.memory);
        self.storage = change(self.storage, by.storage);
        for (size, bytes) in &by.hugepages {
            let sum = self.hugepages.entry(*size).or_default();
            *sum = change(*sum, *bytes);
        }
    }
}

impl Allocations {
    /// Makes the allocations of this node, without any pod (R-RES-21).
    pub fn of_node(pods: u64, capacity: &Capacity, disk: PathBuf) -> Self {
        let hugepages = hugepages(Path::new(node::HUGEPAGES));
        Self { pods, cpu: capacity.cpu, memory: capacity.memory, hugepages, disk, ..Self::default() }
    }

    /// Returns the capacity as in a Node's `status.capacity`.
    pub fn capacity(&self) -> BTreeMap<String, String> {
        let kibibytes = |bytes: u64| format!("{}Ki", bytes / 1024);
        let named = [
            ("pods", self.pods.to_string()),
            ("cpu", format!("{}", self.cpu / 1000)),
            ("memory", kibibytes(self.memory)),
            ("ephemeral-storage", kibibytes(files::disk_size(&self.disk).unwrap_or(0))),
        ];
        let pages = self.hugepages.iter().map(|(size, bytes)| (page(*size).1, kibibytes(*bytes)));
        named.into_iter().map(|(name, amount)| (name.to_owned(), amount)).chain(pages).collect()
    }

    /// Releases the requests and ports of all pods but these.
    pub fn retain(&mut self, is_there: impl Fn(&PodKey) -> bool) {
        let gone: Vec<_> = self.held.keys().filter(|key| !is_there(key)).cloned().collect();
        gone.iter().for_each(|key| self.release(key));
    }

    fn release(&mut self, key: &PodKey) {
        if let Some((_, resources)) = self.held.remove(key) {
            self.used.change(&RequestedAmounts::of(&resources), u128::saturating_sub);
            self.ports.release(key);
        }
    }

    /// Returns whether the requests of this revision of a pod are counted.
    pub fn has(&self, pod: &Pod) -> bool {
        self.held.get(&pod.key).is_some_and(|(revision, _)| *revision == pod.revision)
    }

    /// Counts a pod's requests, even if they do not fit.
    pub fn count(&mut self, pod: &Pod) {
        self.release(&pod.key);
        self.used.change(&RequestedAmounts::of(&pod.total), u128::saturating_add);
        self.ports.assign(pod);
        self.held.insert(pod.key.clone(), (pod.revision.clone(), pod.total.clone()));
    }

    /// Counts a pod's requests if they fit beside the others, in place of those of its earlier revision.
    pub fn admit(&mut self, pod: &Pod) -> Result<(), Explanation> {
        match self.shortage(pod).or_else(|| self.port_conflict(pod)) {
            Some(rejection) => Err(rejection),
            None => {
                self.count(pod);
                Ok(())
            }
        }
    }

    /// Returns the size of the file system if the pod requests ephemeral storage. A size that cannot be read limits
    /// nothing.
    fn storage(&self, pod: &Pod) -> u64 {
        let asked = pod.total.ephemeral_storage_request.filter(|request| *request > 0);
        asked.and_then(|_| files::disk_size(&self.disk).ok()).unwrap_or(u64::MAX)
    }

    fn shortage(&self, pod: &Pod) -> Option<Explanation> {
        let mut others = self.used.clone();
        if let Some((_, own)) = self.held.get(&pod.key) {
            others.change(&RequestedAmounts::of(own), u128::saturating_sub);
        }
        let asked = RequestedAmounts::of(&pod.total);
        let lacks = |reason, what: &str, requested: u128, used: u128, capacity: u64| {
            let message = || {
                format!(
                    "Node didn't have enough resource: {what}, requested: {requested}, used: {used}, capacity: {capacity}"
                )
            };
            (requested > 0 && requested.saturating_add(used) > capacity.into())
                .then(|| Explanation::new(reason, message()))
        };
        let hugepages = || {
            asked.hugepages.iter().find_map(|(size, requested)| {
                let (reason, name) = page(*size);
                let used = others.hugepages.get(size).copied().unwrap_or(0);
                lacks(reason, &name, *requested, used, self.hugepages.get(size).copied().unwrap_or(0))
            })
        };
        let storage = || if asked.storage > 0 { self.storage(pod) } else { u64::MAX };
        lacks(Reason::OutOfPods, "pods", 1, others.pods, self.pods)
            .or_else(|| lacks(Reason::OutOfCpu, "cpu", asked.cpu, others.cpu, self.cpu))
            .or_else(|| lacks(Reason::OutOfMemory, "memory", asked.memory, others.memory, self.memory))
            .or_else(|| {
                lacks(Reason::OutOfEphemeralStorage, "ephemeral-storage", asked.storage, others.storage, storage())
            })
            .or_else(hugepages)
    }

    /// Returns the rejection of a pod that wants another pod's host port.
    fn port_conflict(&self, pod: &Pod) -> Option<Explanation> {
        let (port, owner) = self.ports.conflict(pod)?;
        let message = format!(
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: host port {port} is \
             in use by pod {owner}"
        );
        Some(Explanation::new(Reason::NodePorts, message))
    }
}

/// Returns the rejection reason and the resource name for huge pages of this size.
fn page(size: u64) -> (Reason, String) {
    match size >> 20 {
        2 => (Reason::OutOfHugepages2Mi, "hugepages-2Mi".to_owned()),
        1024 => (Reason::OutOfHugepages1Gi, "hugepages-1Gi".to_owned()),
        _ => (Reason::OutOfHugepages, format!("hugepages-{}Ki", size >> 10)),
    }
}

/// Returns the node's huge pages (Documentation/admin-guide/mm/hugetlbpage.rst): total bytes, by the bytes of one page.
fn hugepages(directory: &Path) -> BTreeMap<u64, u64> {
    let kept = |(size, directory): (u64, PathBuf)| {
        let count = read_kernel(directory.join("nr_hugepages")).ok()?.trim().parse::<u64>().ok()?;
        Some((size, size.saturating_mul(count)))
    };
    node::hugepages(directory).filter_map(kept).collect()
}
