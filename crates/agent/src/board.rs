//! Status board: the one place that everything shown is read from.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stanchion_pod::PodKey;
use tokio::sync::watch;

use crate::{
    limits::STATUS_MESSAGE,
    view::{BackendView, NodeView, PodView, SourceView},
};

/// Latest state of everything, for readers; each writer owns its part.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    node: NodeView,
    pods: BTreeMap<PodKey, Arc<PodView>>,
    sources: Vec<SourceView>,
    backends: BTreeMap<String, BackendView>,
}

impl Board {
    /// Creates a board that shows the node and nothing on it yet.
    #[must_use]
    pub fn new(node: NodeView) -> Self {
        Self { state: Mutex::new(State { node, ..State::default() }), version: watch::Sender::new(0) }
    }

    /// Returns the node and the agent.
    #[must_use]
    pub fn node(&self) -> NodeView {
        self.lock().node.clone()
    }

    /// Returns all pods, ordered by namespace and name.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<PodView>> {
        self.lock().pods.values().cloned().collect()
    }

    /// Returns one pod.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<Arc<PodView>> {
        self.lock().pods.get(key).cloned()
    }

    /// Returns all sources.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceView> {
        self.lock().sources.clone()
    }

    /// Returns all backends, with the number of pods placed on each.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendView> {
        let state = self.lock();
        let mut backends: Vec<_> = state.backends.values().cloned().collect();
        for backend in &mut backends {
            backend.pods = state.pods.values().filter(|pod| pod.backend == backend.name).count();
        }
        backends
    }

    /// Returns a receiver of a number that changes with every change on the board, and means nothing else.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Shows a pod.
    pub fn set_pod(&self, key: &PodKey, mut view: PodView) {
        shorten(&mut view);
        let changed = {
            let mut state = self.lock();
            let same = state.pods.get(key).is_some_and(|shown| **shown == view);
            if !same {
                state.pods.insert(key.clone(), Arc::new(view));
            }
            !same
        };
        self.tell(changed);
    }

    /// Removes a pod from the board.
    pub fn remove_pod(&self, key: &PodKey) {
        let changed = self.lock().pods.remove(key).is_some();
        self.tell(changed);
    }

    /// Shows the sources.
    pub fn set_sources(&self, mut sources: Vec<SourceView>) {
        sources.iter_mut().filter_map(|source| source.error.as_mut()).for_each(cut);
        let changed = {
            let mut state = self.lock();
            let changed = state.sources != sources;
            state.sources = sources;
            changed
        };
        self.tell(changed);
    }

    /// Shows a backend.
    pub fn set_backend(&self, mut view: BackendView) {
        let texts = [&mut view.runtime, &mut view.runtime_version, &mut view.version, &mut view.health.message];
        texts.into_iter().chain(&mut view.error).for_each(cut);
        let changed = self.lock().backends.insert(view.name.clone(), view.clone()).as_ref() != Some(&view);
        self.tell(changed);
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot have spoilt the state: every critical section leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shortens reasons and messages of a pod: runtimes, registries and containers wrote them.
fn shorten(view: &mut PodView) {
    let Some(status) = &mut view.pod.status else { return };
    let lists =
        [&mut status.init_container_statuses, &mut status.container_statuses, &mut status.ephemeral_container_statuses];
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
            let waiting = state.waiting.iter_mut().flat_map(|it| [&mut it.reason, &mut it.message]);
            let ended = state.terminated.iter_mut().flat_map(|it| [&mut it.reason, &mut it.message]);
            waiting.chain(ended).flatten().for_each(cut);
        }
    }
    let conditions = status.conditions.iter_mut().flatten();
    conditions.flat_map(|it| [&mut it.reason, &mut it.message]).flatten().for_each(cut);
    [&mut status.reason, &mut status.message].into_iter().flatten().for_each(cut);
}

fn cut(text: &mut String) {
    if let Cow::Owned(short) = STATUS_MESSAGE.cut(text) {
        *text = short;
    }
}
