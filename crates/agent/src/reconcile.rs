//! The reconciler: runs one worker for every pod that is wanted or exists.

mod rejected;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::future::select_all;
use stanchion_board::Subject;
use stanchion_plan::observed::ObservedPod;
use stanchion_plan::reason::Explanation;
use stanchion_pod::{Pod, PodKey, PodUid};
use stanchion_runtime::{Runtime, SandboxInfo, labels};
use tokio::sync::{mpsc, watch};

use crate::{
    allocations::Allocations,
    blocking,
    desired::{Desired, DesiredPod, ReconcilerProgress},
    files,
    handle::Request,
    health,
    shared::Shared,
    worker::{Worker, WorkerEnd, WorkerHandle},
};
use rejected::RejectedPod;

/// Task that starts workers and passes the wanted pods to them.
pub(crate) struct Reconciler<R> {
    shared: Arc<Shared<R>>,
    desired: watch::Receiver<Arc<Desired>>,
    requests: mpsc::Receiver<Request>,
    workers: HashMap<PodKey, WorkerHandle>,
    /// Wanted UIDs of the pods that have a worker.
    uids: HashMap<PodKey, PodUid>,
    /// Pods that have a worker, by wanted UID.
    owners: HashMap<PodUid, PodKey>,
    ended: (mpsc::Sender<PodKey>, mpsc::Receiver<PodKey>),
    /// Backends that earlier agents put pods on.
    recorded: HashMap<PodKey, Vec<files::RecordedBackend>>,
    allocations: Allocations,
    /// Pods that the node lacks the capacity for, with reason and message.
    no_capacity: HashMap<PodKey, Explanation>,
    /// Those of them that have no worker.
    rejected: HashMap<PodKey, RejectedPod>,
    /// `true` while a wanted pod waits for the end of another pod with its UID.
    is_waiting: bool,
    progress: watch::Sender<ReconcilerProgress>,
}

impl<R: Runtime> Reconciler<R> {
    pub fn new(
        shared: Arc<Shared<R>>,
        desired: watch::Receiver<Arc<Desired>>,
        requests: mpsc::Receiver<Request>,
        allocations: Allocations,
        progress: watch::Sender<ReconcilerProgress>,
    ) -> Self {
        Self {
            allocations,
            progress,
            shared,
            desired,
            requests,
            workers: HashMap::new(),
            uids: HashMap::new(),
            ended: mpsc::channel(64),
            recorded: HashMap::new(),
            no_capacity: HashMap::new(),
            owners: HashMap::new(),
            rejected: HashMap::new(),
            is_waiting: false,
        }
    }

    /// Works until the agent stops.
    pub async fn run(mut self) {
        let shutdown = self.shared.supervisor.shutdown().clone();
        let state_dir = self.shared.config.state_dir.clone();
        self.recorded = blocking(move || files::recorded_backends(&state_dir)).await;
        let mut observations: Vec<_> = self.shared.slots.iter().map(|slot| slot.observer.watch()).collect();
        let (mut last, mut is_due) = (None, true);
        while !shutdown.is_cancelled() {
            observations.iter_mut().for_each(|it| drop(it.borrow_and_update()));
            let desired = Arc::clone(&self.desired.borrow_and_update());
            let existing = self.existing();
            // Most observations change nothing here. The reconciler goes through all pods only if the desired state or
            // the set of existing pods has changed.
            let has_changed = |(wanted, last): &(Arc<Desired>, _)| !Arc::ptr_eq(wanted, &desired) || *last != existing;
            if is_due || self.is_waiting || last.as_ref().is_none_or(has_changed) {
                self.reconcile(&desired, &existing);
            }
            last = Some((Arc::clone(&desired), existing.clone()));
            self.publish(desired, existing);
            self.shared.heartbeat.beat();
            let observed = async {
                match observations.is_empty() {
                    true => std::future::pending().await,
                    false => drop(select_all(observations.iter_mut().map(|it| Box::pin(it.changed()))).await),
                }
            };
            // *Cancel-safe:* every arm waits on a channel or the clock and keeps what it has not delivered.
            is_due = tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.desired.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                Some(key) = self.ended.1.recv() => {
                    self.remove_ended(key);
                    true
                }
                Some(request) = self.requests.recv() => {
                    self.pass_restarts(request);
                    false
                }
                () = observed => false,
                // The health endpoint watches that the reconciler goes on, even without a change.
                () = tokio::time::sleep(health::MAX_PASS_INTERVAL) => true,
                // A pod that has ended frees capacity.
                () = self.shared.pod_ended.notified() => true,
            };
        }
    }

    /// Removes workers that have ended.
    fn remove_ended(&mut self, first: PodKey) {
        let mut next = Some(first);
        while let Some(key) = next {
            self.workers.remove(&key);
            if let Some(uid) = self.uids.remove(&key) {
                self.release_uid(&key, &uid);
            }
            next = self.ended.1.try_recv().ok();
        }
    }

    /// Publishes the reconciler's progress.
    fn publish(&self, desired: Arc<Desired>, existing: BTreeSet<PodKey>) {
        let unobserved = self.shared.slots.iter().filter(|slot| !slot.observer.latest().is_current());
        let unobserved: BTreeSet<_> = unobserved.map(|slot| &slot.backend.name).collect();
        let unobserved_pods =
            self.recorded.iter().filter(|(_, recorded)| recorded.iter().any(|it| unobserved.contains(&it.backend)));
        let present = self.workers.keys().chain(unobserved_pods.map(|(key, _)| key)).cloned().chain(existing).collect();
        self.progress.send_if_modified(|last| {
            let changed = !Arc::ptr_eq(&last.desired, &desired) || last.present != present;
            *last = ReconcilerProgress { desired, present };
            changed
        });
    }

    /// Starts, updates and stops workers so that the desired pods have one.
    fn reconcile(&mut self, desired: &Desired, existing: &BTreeSet<PodKey>) {
        self.allocate(desired);
        self.is_waiting = false;
        for (key, pod) in &desired.pods {
            self.reconcile_pod(key, pod, existing);
        }
        // Pods that no source wants are stopped once all sources are known (R-SRC-4).
        if desired.complete {
            self.stop_unwanted(desired, existing);
        }
    }

    /// Passes a wanted pod to its worker, or starts one; a pod that the node rejects gets only a status.
    fn reconcile_pod(&mut self, key: &PodKey, pod: &DesiredPod, existing: &BTreeSet<PodKey>) {
        let no_capacity = self.no_capacity.get(key);
        let wanted = DesiredPod { no_capacity: no_capacity.cloned(), ..pod.clone() };
        if let Some(handle) = self.workers.get(key) {
            let uid = wanted.pod.uid.clone();
            let changed = handle.desired.send_if_modified(|last| {
                let changed = last.as_ref() != Some(&wanted);
                if changed {
                    *last = Some(wanted);
                }
                changed
            });
            if changed {
                self.claim_uid(key, uid);
            }
            return;
        }
        // A pod that exists on no backend needs no worker to be rejected.
        if let Some(no_capacity) = no_capacity.filter(|_| !existing.contains(key) && !self.recorded.contains_key(key)) {
            let rejected = RejectedPod::show(&self.shared, key, pod, no_capacity, self.rejected.remove(key));
            self.rejected.insert(key.clone(), rejected);
            return;
        }
        // Another pod still uses this UID, and so the directory: wait for its end.
        if self.is_uid_in_use(key, &pod.pod.uid) {
            self.is_waiting = true;
            return;
        }
        self.rejected.remove(key);
        self.start_worker(key, Some(wanted));
    }

    /// Has workers stop the pods that no source wants.
    fn stop_unwanted(&mut self, desired: &Desired, existing: &BTreeSet<PodKey>) {
        self.rejected.retain(|key, _| {
            let is_wanted = desired.pods.contains_key(key);
            if !is_wanted {
                self.shared.board.remove_pod(key);
            }
            is_wanted
        });
        let unwanted = self.workers.iter().filter(|(key, _)| !desired.pods.contains_key(*key));
        for (_, handle) in unwanted {
            handle.desired.send_if_modified(|last| last.take().is_some());
        }
        for key in existing {
            if !desired.pods.contains_key(key) && !self.workers.contains_key(key) {
                let message = "No manifest names this pod; it is stopped and removed";
                self.shared.events.warning(&Subject::pod(key), "OrphanPod", message);
                self.start_worker(key, None);
            }
        }
    }

    /// Admits the wanted pods to the node's capacity: first those that run, whatever they request (R-ADM-2), then the
    /// others by namespace and by their names in the manifests.
    fn allocate(&mut self, desired: &Desired) {
        let has_ended = |key: &PodKey| {
            let wanted = desired.pods.get(key).map(|wanted| &wanted.pod.uid);
            self.workers.get(key).is_some_and(|handle| handle.ended.matches(wanted))
        };
        let is_there = |key: &PodKey| desired.pods.contains_key(key) || self.workers.contains_key(key);
        self.allocations.retain(|key| is_there(key) && !has_ended(key));
        let asking = desired.pods.iter().filter(|(key, _)| !has_ended(key)).map(|(_, wanted)| &*wanted.pod);
        let (running, mut others): (Vec<_>, Vec<_>) =
            asking.filter(|pod| !self.allocations.has(pod)).partition(|pod| self.is_placed(pod));
        running.into_iter().for_each(|pod| self.allocations.count(pod));
        let suffix = format!("-{}", self.shared.config.node_name);
        let name = |pod: &Pod| pod.key.name.strip_suffix(&suffix).unwrap_or(&pod.key.name).to_owned();
        others.sort_by_cached_key(|pod| (pod.key.namespace.clone(), name(pod)));
        let rejected = others.into_iter().filter_map(|pod| Some((pod.key.clone(), self.allocations.admit(pod).err()?)));
        self.no_capacity = rejected.collect();
    }

    /// Returns whether this revision of the pod has a sandbox, or an earlier agent put it on a backend. A manifest that
    /// was edited while no agent ran has to fit like any other edit.
    fn is_placed(&self, pod: &Pod) -> bool {
        let observations = self.shared.slots.iter().map(|slot| slot.observer.latest());
        let mut observed = observations.filter_map(|it| it.pods.get(&pod.key).cloned());
        let is_own = |sandbox: &SandboxInfo| {
            sandbox.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
        };
        let was_put =
            |recorded: &Vec<files::RecordedBackend>| recorded.iter().any(|it| it.revision == pod.revision.as_str());
        self.recorded.get(&pod.key).is_some_and(was_put) || observed.any(|it| it.sandboxes.iter().any(is_own))
    }

    /// Returns the pods that exist on the backends that can be observed now.
    fn existing(&self) -> BTreeSet<PodKey> {
        let observations = self.shared.slots.iter().map(|slot| slot.observer.latest());
        observations.filter(|it| it.is_current()).flat_map(|it| it.pods.keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// Returns whether another pod has this UID, or has left a sandbox or container with it.
    fn is_uid_in_use(&self, key: &PodKey, uid: &PodUid) -> bool {
        if self.owners.get(uid).is_some_and(|owner| owner != key) {
            return true;
        }
        let of_another = |pod: &ObservedPod| {
            let labels = pod.sandboxes.iter().map(|it| &it.labels).chain(pod.containers.iter().map(|it| &it.labels));
            labels.flat_map(|labels| labels.get(labels::POD_UID)).any(|known| known == uid.as_str())
        };
        let mut observations = self.shared.slots.iter().map(|slot| slot.observer.latest());
        observations.any(|it| it.pods.iter().any(|(other, pod)| other != key && of_another(pod)))
    }

    /// Sets the UID of a pod that has a worker.
    fn claim_uid(&mut self, key: &PodKey, uid: PodUid) {
        if let Some(last) = self.uids.insert(key.clone(), uid.clone()) {
            self.release_uid(key, &last);
        }
        self.owners.insert(uid, key.clone());
    }

    /// Removes the UID of a pod, unless another pod has it already.
    fn release_uid(&mut self, key: &PodKey, uid: &PodUid) {
        if self.owners.get(uid) == Some(key) {
            self.owners.remove(uid);
        }
    }

    fn start_worker(&mut self, key: &PodKey, desired: Option<DesiredPod>) {
        let recorded = self.recorded.remove(key).unwrap_or_default();
        if let Some(desired) = &desired {
            self.claim_uid(key, desired.pod.uid.clone());
        }
        let (worker, handle) = Worker::new(key.clone(), Arc::clone(&self.shared), desired, &recorded);
        self.workers.insert(key.clone(), handle);
        let (ended, key) = (self.ended.0.clone(), key.clone());
        self.shared.supervisor.spawn(format!("pod {key}"), async move {
            if worker.run().await == WorkerEnd::Gone && ended.send(key).await.is_err() {
                tracing::trace!("the reconciler ended before a worker");
            }
        });
    }

    /// Passes this restart request, and those queued behind it, on to the pods' workers. Never waits for a worker: a
    /// busy one delays only its own pod (I8).
    fn pass_restarts(&mut self, first: Request) {
        let mut next = Some(first);
        while let Some(Request::Restart { pod, container }) = next {
            match self.workers.get(&pod) {
                Some(handle) => handle.restarts.restart(container),
                None => tracing::debug!(%pod, "a request came when the pod was gone"),
            }
            next = self.requests.try_recv().ok();
        }
    }
}
