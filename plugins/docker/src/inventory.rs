//! Inventory of sandboxes and containers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bollard::{
    models::{ContainerSummary, ContainerSummaryStateEnum as Listed},
    query_parameters::{InspectContainerOptions, ListContainersOptions},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use stanchion_sdk::runtime::{
    ContainerId, ContainerInfo, ContainerState, ImageDigest, Inventory, PodName, Result, SandboxId, SandboxInfo,
    SandboxState, labels,
};

use crate::{
    Docker,
    client::{failed, is_gone},
    kills, names,
    volumes::are_held,
};

/// Exit code after SIGKILL.
const KILLED: i64 = 137;

/// Number of containers that are inspected at the same time.
const PARALLEL: usize = 8;

/// Inspected states of containers, each with the listed state at that time: a container of ours has each state once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<HashMap<String, (Listed, ContainerState)>>>);

impl Seen {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Listed, ContainerState)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a container, so that it is inspected again: somebody may have started it in our place.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Forgets all containers.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

/// Entry of Docker's list of containers.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub id: String,
    pub labels: HashMap<String, String>,
    state: Listed,
    created_at: Timestamp,
    image_id: Option<String>,
    addresses: Vec<IpAddr>,
}

impl Docker {
    pub(crate) async fn inventory(&self) -> Result<Inventory> {
        let entries = self.entries(Vec::new()).await?;
        let known: HashSet<_> = entries.iter().map(|entry| entry.id.clone()).collect();
        self.seen.lock().retain(|id, _| known.contains(id));
        self.kills.retain(|id| known.contains(id));
        self.inventory_of(entries).await
    }

    /// Lists a pod by its name, which its sandbox and its containers have in their labels.
    pub(crate) async fn inventory_of_pod(&self, pod: &PodName) -> Result<Inventory> {
        let named = [(labels::POD_NAMESPACE, &pod.namespace), (labels::POD_NAME, &pod.name)];
        let entries = self.entries(named.map(|(label, value)| format!("{label}={value}")).to_vec()).await?;
        self.inventory_of(entries).await
    }

    async fn inventory_of(&self, entries: Vec<Entry>) -> Result<Inventory> {
        let (sandboxes, members): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.is("sandbox"));
        let mut sandboxes: Vec<_> = sandboxes.into_iter().map(sandbox_info).collect();
        let known: HashSet<_> = sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        let mut lost: BTreeMap<SandboxId, SandboxInfo> = BTreeMap::new();
        for member in &members {
            let sandbox = SandboxId(member.label(names::SANDBOX));
            if !known.contains(&sandbox) {
                lost.entry(sandbox).or_insert_with_key(|id| lost_sandbox(id, member));
            }
        }
        sandboxes.extend(lost.into_values());
        let (holders, containers): (Vec<_>, Vec<_>) = members.into_iter().partition(|entry| entry.is(names::HOLDER));
        let holders: HashSet<_> = holders.into_iter().map(|holder| holder.id).collect();
        let infos = stream::iter(containers).map(|entry| self.container_info(entry, &holders)).buffered(PARALLEL);
        // A container may be removed between the list and its inspection.
        let containers = infos.try_filter_map(|info| std::future::ready(Ok(info))).try_collect().await?;
        Ok(Inventory { sandboxes, containers })
    }

    /// Lists our containers that have these labels too.
    pub(crate) async fn entries(&self, labels: Vec<String>) -> Result<Vec<Entry>> {
        self.filtered(HashMap::from([("label".to_owned(), labels)])).await
    }

    async fn filtered(&self, mut filters: HashMap<String, Vec<String>>) -> Result<Vec<Entry>> {
        filters.entry("label".to_owned()).or_default().push(self.client.of_ours());
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let listed = self.client.api().list_containers(Some(options)).await;
        let listed = listed.map_err(|error| failed("listing the containers", &error))?;
        Ok(listed.into_iter().filter_map(Entry::read).collect())
    }

    /// Lists the containers of a sandbox.
    pub(crate) async fn members(&self, id: &SandboxId) -> Result<Vec<Entry>> {
        self.entries(vec![format!("{}={id}", names::SANDBOX)]).await
    }

    /// Returns a sandbox as it is listed.
    pub(crate) async fn sandbox_info(&self, id: &str) -> Result<Option<SandboxInfo>> {
        let found = self.filtered(HashMap::from([("id".to_owned(), vec![id.to_owned()])])).await?;
        Ok(found.into_iter().find(|entry| entry.id == id && entry.is("sandbox")).map(sandbox_info))
    }

    /// Returns a container as it is listed; `None` when it is gone.
    async fn container_info(&self, entry: Entry, holders: &HashSet<String>) -> Result<Option<ContainerInfo>> {
        let Some(mut state) = self.state(&entry).await? else { return Ok(None) };
        if entry.runs() && !are_held(&entry.labels, holders) {
            // The files of its image volumes may be gone. A new container has all of them.
            state = ContainerState::Unknown;
        }
        Ok(Some(ContainerInfo {
            state,
            sandbox: SandboxId(entry.label(names::SANDBOX)),
            name: entry.label(names::NAME),
            attempt: entry.label(names::ATTEMPT).parse().unwrap_or(0),
            image: entry.label(names::IMAGE),
            image_digest: entry.image_id.map(ImageDigest),
            created_at: entry.created_at,
            labels: names::given(&entry.labels),
            id: ContainerId(entry.id),
        }))
    }

    /// Returns the state with times and exit code, which the list lacks. Each state is inspected once.
    async fn state(&self, entry: &Entry) -> Result<Option<ContainerState>> {
        if entry.state == Listed::CREATED {
            return Ok(Some(ContainerState::Created));
        }
        if let Some((_, state)) = self.seen.lock().get(&entry.id).filter(|(listed, _)| *listed == entry.state) {
            return Ok(Some(state.clone()));
        }
        let found = match self.client.api().inspect_container(&entry.id, None::<InspectContainerOptions>).await {
            Ok(found) => found.state.unwrap_or_default(),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed(format!("looking up container {}", entry.id), &error)),
        };
        let (started_at, finished_at) = (time(found.started_at.as_deref()), time(found.finished_at.as_deref()));
        let runs = found.running == Some(true);
        let state = match runs {
            true => ContainerState::Running { started_at },
            false => ContainerState::Exited {
                code: found.exit_code.and_then(|code| i32::try_from(code).ok()),
                // Docker notes a start afterwards, when a short process may have ended already.
                started_at: started_at.map(|started| finished_at.map_or(started, |finished| started.min(finished))),
                finished_at,
                oom_killed: match (found.exit_code, found.oom_killed == Some(true)) {
                    (Some(KILLED), told) => self.kills.is_one(&entry.id, told, kills::count),
                    (_, told) => told,
                },
            },
        };
        // Kept only if the list says the same: the container may have ended in between.
        if runs == runs_as(entry.state) {
            self.seen.lock().insert(entry.id.clone(), (entry.state, state.clone()));
        }
        Ok(Some(state))
    }
}

impl Entry {
    fn read(summary: ContainerSummary) -> Option<Self> {
        let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let texts = networks.into_values().flat_map(|network| [network.ip_address, network.global_ipv6_address]);
        Some(Self {
            id: summary.id?,
            labels: summary.labels.unwrap_or_default(),
            state: summary.state.unwrap_or(Listed::EMPTY),
            created_at: Timestamp::from_second(summary.created.unwrap_or(0)).unwrap_or_default(),
            image_id: summary.image_id.filter(|id| !id.is_empty()),
            addresses: texts.flatten().filter_map(|text| text.parse().ok()).collect(),
        })
    }

    fn is(&self, kind: &str) -> bool {
        self.labels.get(names::KIND).is_some_and(|found| found == kind)
    }

    fn label(&self, name: &str) -> String {
        self.labels.get(name).cloned().unwrap_or_default()
    }

    /// Returns whether its process runs.
    pub fn runs(&self) -> bool {
        runs_as(self.state)
    }
}

fn runs_as(state: Listed) -> bool {
    matches!(state, Listed::RUNNING | Listed::PAUSED | Listed::RESTARTING | Listed::STOPPING)
}

fn sandbox_info(entry: Entry) -> SandboxInfo {
    let not_ready = |reason: &str| SandboxState::NotReady { reason: reason.to_owned() };
    let state = match entry.state {
        _ if entry.runs() => SandboxState::Ready,
        Listed::CREATED => not_ready("it was not made to the end"),
        _ => not_ready(
            "the process that holds its namespaces has ended: it was stopped, Docker was, or somebody killed it",
        ),
    };
    SandboxInfo {
        attempt: entry.label(names::ATTEMPT).parse().unwrap_or(0),
        labels: names::given(&entry.labels),
        addresses: entry.addresses,
        created_at: entry.created_at,
        state,
        id: SandboxId(entry.id),
    }
}

/// Returns the sandbox of a member, when only the member is left. It can only be removed, with the member.
fn lost_sandbox(id: &SandboxId, member: &Entry) -> SandboxInfo {
    let reason = "somebody has removed the container that held its namespaces".to_owned();
    SandboxInfo {
        id: id.clone(),
        state: SandboxState::NotReady { reason },
        addresses: Vec::new(),
        created_at: member.created_at,
        attempt: member.label(names::SANDBOX_ATTEMPT).parse().unwrap_or(0),
        labels: names::given(&member.labels),
    }
}

/// Parses a time of Docker's; the year 1 means none.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok().filter(|time: &Timestamp| time.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn the_year_one_is_no_time() {
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
        assert_eq!(time(Some("2026-01-02T03:04:05.678901234Z")).map(|it| it.as_second()), Some(1_767_323_045));
        assert_eq!(time(None), None);
    }
}
