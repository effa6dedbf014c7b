//! Context of a worker's parts: the pod's name, the state that the agent's tasks share, and the backends' states.

use std::{future, sync::Arc};

use stanchion_board::{EventLog, Subject};
use stanchion_plan::observed::Observed;
use stanchion_pod::{Pod, PodKey, PodUid};
use stanchion_runtime::{Error, ErrorKind, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{desired::DesiredPod, files::PodFiles, observe::Observation, shared::Shared, starts::Start};

/// Basis of a worker's decisions: the wanted pod, with its sandboxes and containers in the latest observations.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub desired: Option<DesiredPod>,
    pub observed: Observed,
}

/// State of a backend as its pods show it. A change wakes their workers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShownBackend {
    /// `true` once an observation has succeeded.
    was_observed: bool,
    /// Error of the latest observation, if it failed.
    error: Option<String>,
    /// Name of the runtime.
    runtime: Arc<str>,
}

/// The pod of a worker, and the state that the agent's tasks share.
#[derive(Debug)]
pub(super) struct Context<R> {
    pub key: PodKey,
    pub shared: Arc<Shared<R>>,
    /// Token of the tasks beside the worker's loop. It is cancelled when the pod is gone or the agent stops.
    pub cancelled: CancellationToken,
}

impl<R: Runtime> Context<R> {
    pub fn new(key: PodKey, shared: Arc<Shared<R>>) -> Self {
        let cancelled = shared.supervisor.shutdown().child_token();
        Self { key, shared, cancelled }
    }

    pub fn events(&self) -> &EventLog {
        &self.shared.events
    }

    /// Emits a warning about the pod.
    pub fn warn(&self, reason: &str, message: impl Into<String>) {
        self.events().warning(&self.subject(), reason, message);
    }

    /// Returns the pod as a subject of events.
    pub fn subject(&self) -> Subject {
        Subject::pod(&self.key)
    }

    /// Returns a container of the pod as a subject of events.
    pub fn container(&self, pod: Option<&Pod>, name: &str) -> Subject {
        match pod.is_some_and(|pod| pod.init_containers.iter().any(|init| init.name == name)) {
            true => Subject::init_container(&self.key, name),
            false => Subject::container(&self.key, name),
        }
    }

    /// Returns the files of the pod with this UID.
    pub fn files(&self, uid: PodUid) -> PodFiles {
        PodFiles::new(&self.shared.config.state_dir, &self.shared.config.log_dir, &self.key, &uid)
    }

    pub fn runtime(&self, backend: &str) -> Result<Arc<R>, Error> {
        let open = self.shared.slot(backend).and_then(|slot| slot.backend.runtime());
        open.ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("backend {backend:?} is not open")))
    }

    /// Waits until the pod may make sandboxes and containers on a backend.
    pub async fn permit(&self, backend: &str) -> Option<Start<'_>> {
        Some(self.shared.slot(backend)?.starts.begin().await)
    }

    /// Lets the starts of other pods on a backend pass.
    pub async fn let_starts_pass(&self, backend: &str) {
        let Some(slot) = self.shared.slot(backend) else { return };
        self.shared.supervisor.shutdown().run_until_cancelled(slot.starts.pass()).await;
    }

    /// Observes the pod again on the backend that a step acted on, if that backend answers. It does not wait for
    /// other backends: one that hangs delays only its own pods (I8).
    pub async fn observe(&self, backend: &str) {
        let Some(slot) = self.shared.slot(backend).filter(|slot| slot.observer.latest().is_current()) else { return };
        let Some(runtime) = slot.backend.runtime() else { return };
        if !slot.observer.observe_pod(&*runtime, &self.key).await {
            slot.observer.observe().await;
        }
    }

    /// Returns whether a backend exists and its latest observation succeeded.
    pub fn is_observed(&self, backend: &str) -> bool {
        self.shared.slot(backend).is_some_and(|slot| slot.observer.latest().is_current())
    }

    /// Returns the state of each backend.
    pub fn shown_backends(&self) -> Vec<ShownBackend> {
        let observations = self.shared.slots.iter().map(|slot| slot.observer.latest());
        let shown = |latest: Arc<Observation>| ShownBackend {
            was_observed: latest.was_observed,
            error: latest.error.clone(),
            runtime: Arc::clone(&latest.runtime),
        };
        observations.map(shown).collect()
    }

    /// Waits until a backend cannot be observed any more: a pending call may never return.
    pub fn until_away(&self, backend: &str) -> impl Future<Output = ()> + Send + use<R> {
        let observations = self.shared.slot(backend).map(|slot| slot.observer.watch());
        async move {
            let Some(mut observations) = observations else { return future::pending().await };
            if observations.wait_for(|latest| !latest.is_current()).await.is_err() {
                future::pending::<()>().await;
            }
        }
    }
}
