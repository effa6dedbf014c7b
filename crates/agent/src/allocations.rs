//! Admission by capacity: the requests of the node's pods must fit together (R-ADM-3), and each host port goes to one
//! pod (R-ADM-5).

mod ports;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, requests: &str) -> Pod {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: a, resources: \
             {requests}}}]}}\n"
        );
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    fn allocations() -> Allocations {
        Allocations {
            pods: 3,
            cpu: 2000,
            memory: 1 << 30,
            hugepages: BTreeMap::from([(2 << 20, 8 << 20)]),
            ..Allocations::default()
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_numbers() {
        let mut allocations = allocations();
        allocations.admit(&pod("a", "{requests: {cpu: 1500m}}")).expect("it fits");
        let table = [
            ("{requests: {cpu: 501m}}", "OutOfcpu", "cpu, requested: 501, used: 1500, capacity: 2000"),
            (
                "{requests: {memory: 2Gi}}",
                "OutOfmemory",
                "memory, requested: 2147483648, used: 0, capacity: 1073741824",
            ),
            (
                "{limits: {hugepages-2Mi: 10Mi, memory: 1Mi}}",
                "OutOfhugepages-2Mi",
                "hugepages-2Mi, requested: 10485760, used: 0, capacity: 8388608",
            ),
        ];
        for (requests, reason, message) in table {
            let refused = allocations.admit(&pod("b", requests)).expect_err("R-ADM-3");
            let message = format!("Node didn't have enough resource: {message}");
            assert_eq!((refused.reason.as_str(), &*refused.message), (reason, &*message), "R-ADM-3");
        }
        allocations.admit(&pod("b", "{requests: {cpu: 500m}}")).expect("it fits exactly");
        allocations.admit(&pod("c", "{}")).expect("it asks for nothing");
        let refused = allocations.admit(&pod("d", "{}")).expect_err("R-ADM-3");
        assert_eq!(refused.reason.as_str(), "OutOfpods", "R-ADM-3");
    }

    #[test]
    fn what_there_is_is_shown_as_kubernetes_writes_it() {
        let capacity = Allocations { disk: "/".into(), ..allocations() }.capacity();
        let shown = ["cpu", "memory", "pods", "hugepages-2Mi"].map(|name| capacity[name].as_str());
        assert_eq!(shown, ["2", "1048576Ki", "3", "8192Ki"], "R-RES-21");
        assert!(capacity["ephemeral-storage"].ends_with("Ki"), "R-RES-21: {capacity:?}");
    }

    #[test]
    fn requests_for_storage_fit_on_the_disk() {
        let disk = PathBuf::from("/");
        let size = files::disk_size(&disk).expect("it has a size");
        let mut allocations = Allocations { disk, ..allocations() };
        let asking = |name, bytes: u64| pod(name, &format!("{{requests: {{ephemeral-storage: {bytes}}}}}"));
        allocations.admit(&asking("a", 1 << 20)).expect("it fits");
        let refused = allocations.admit(&asking("b", size)).expect_err("R-ADM-3");
        let message = format!(
            "Node didn't have enough resource: ephemeral-storage, requested: {size}, used: 1048576, capacity: {size}"
        );
        assert_eq!(
            (refused.reason.as_str(), &*refused.message),
            ("OutOfephemeral-storage", &*message),
            "R-ADM-3, R-RES-21"
        );
        allocations.admit(&asking("b", size - (1 << 20))).expect("it fits exactly");
        allocations.admit(&pod("c", "{}")).expect("it asks for nothing");
    }

    #[test]
    fn an_edit_takes_over_its_pods_requests_and_a_removed_pod_frees_its_own() {
        let mut allocations = allocations();
        let before = pod("a", "{requests: {cpu: 1500m}}");
        allocations.admit(&before).expect("it fits");
        assert!(
            allocations.admit(&pod("a", "{requests: {cpu: 2001m}}")).is_err() && allocations.has(&before),
            "it keeps what it has"
        );
        let after = pod("a", "{requests: {cpu: 2}}");
        allocations.admit(&after).expect("R-ADM-3: its own are not in its way");
        assert!(allocations.has(&after) && !allocations.has(&before));
        let other = pod("b", "{requests: {cpu: 1m}}");
        assert!(allocations.admit(&other).is_err());
        allocations.count(&other);
        assert!(allocations.has(&other), "R-ADM-2: what runs goes on");
        allocations.retain(|key| *key == other.key);
        allocations.admit(&before).expect("there is capacity again");
    }

    fn with_port(name: &str, network: &str, port: &str) -> Pod {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: {network}\n  containers: [{{name: c, image: \
             a, ports: [{port}]}}]\n"
        );
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    #[test]
    fn a_port_of_the_node_goes_to_one_pod() {
        let table = [
            (("false", "{containerPort: 80, hostPort: 8080}"), Some("8080/TCP")),
            (("false", "{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.2}"), Some("8080/TCP")),
            (("false", "{containerPort: 80, hostPort: 8080, hostIP: 0.0.0.0}"), Some("8080/TCP")),
            (("true", "{containerPort: 8080}"), Some("8080/TCP")),
            (("false", "{containerPort: 80, hostPort: 8080, protocol: UDP}"), None),
            (("false", "{containerPort: 8080}"), None),
            (("false", "{containerPort: 80, hostPort: 9090, hostIP: 127.0.0.1}"), Some("9090/TCP of 127.0.0.1")),
            (("false", "{containerPort: 80, hostPort: 9090, hostIP: 127.0.0.2}"), None),
            (("false", "{containerPort: 80, hostPort: 9090}"), Some("9090/TCP of 127.0.0.1")),
        ];
        for ((network, port), conflict) in table {
            let mut allocations = allocations();
            let two = "{containerPort: 1, hostPort: 8080}, {containerPort: 2, hostPort: 9090, hostIP: 127.0.0.1}";
            allocations.admit(&with_port("a", "false", two)).expect("they are free");
            let other = with_port("b", network, port);
            let refused = allocations.admit(&other).err();
            let message = conflict.map(|port| {
                format!(
                    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: host port {port} \
                     is in use by pod default/a-n"
                )
            });
            assert_eq!(refused, message.map(|message| Explanation::new(Reason::NodePorts, message)), "R-ADM-5: {port}");
            allocations.retain(|key| key.name != "a-n");
            allocations.admit(&other).expect("R-ADM-5: nobody has it any more");
        }
    }

    #[test]
    fn an_edit_keeps_the_ports_that_its_pod_has_and_gives_the_others_back() {
        let mut allocations = allocations();
        allocations.admit(&with_port("a", "false", "{containerPort: 80, hostPort: 8080}")).expect("it is free");
        let edited =
            with_port("a", "false", "{containerPort: 81, hostPort: 8080}, {containerPort: 82, hostPort: 8081}");
        allocations.admit(&edited).expect("R-ADM-5: its own are not in its way");
        allocations.admit(&with_port("a", "false", "{containerPort: 81, hostPort: 8081}")).expect("R-ADM-5");
        allocations
            .admit(&with_port("b", "false", "{containerPort: 81, hostPort: 8080}"))
            .expect("R-ADM-5: it was given back");
        assert!(allocations.admit(&with_port("c", "false", "{containerPort: 81, hostPort: 8081}")).is_err());
    }
}
