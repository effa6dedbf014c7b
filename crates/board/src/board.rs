//! Status board: the one source of everything that clients are shown.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stanchion_pod::PodKey;
use tokio::sync::watch;

use crate::{
    limits::STATUS_MESSAGE,
    objects::{Change, Listed, Objects, TooOld},
    view::{BackendView, NodeView, PodView, SourceView},
};

/// Latest state of everything, for readers; each writer owns its part. Every change has a revision, and revisions rise.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    revision: u64,
    node: NodeView,
    pods: Objects<PodKey, PodView>,
    /// Sources, by their place in the configuration.
    sources: Objects<usize, SourceView>,
    backends: Objects<String, BackendView>,
}

impl Board {
    /// Creates a board that shows the node and nothing on it yet. Its revisions begin at `revision`: if that rises from
    /// one start of the agent to the next, e.g. the time of day, a client of an earlier agent learns that it must list
    /// again.
    #[must_use]
    pub fn new(node: NodeView, revision: u64) -> Self {
        let (pods, sources, backends) = (Objects::new(revision), Objects::new(revision), Objects::new(revision));
        let state = State { revision, node, pods, sources, backends };
        Self { state: Mutex::new(state), revision: watch::Sender::new(revision) }
    }

    /// Returns the node and the agent.
    #[must_use]
    pub fn node(&self) -> NodeView {
        self.lock().node.clone()
    }

    /// Returns all pods, ordered by namespace and name.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<PodView>> {
        self.lock().pods.all().cloned().collect()
    }

    /// Returns all pods with their revisions, ordered by namespace and name.
    #[must_use]
    pub fn list_pods(&self) -> Listed<PodView> {
        let state = self.lock();
        state.pods.list(state.revision)
    }

    /// Returns the changes of pods after a revision.
    ///
    /// # Errors
    /// The board no longer knows all of them, or the revision is of another agent: the reader has to list again.
    pub fn pod_changes(&self, since: u64) -> Result<Vec<Change<PodView>>, TooOld> {
        let state = self.lock();
        state.pods.since(since, state.revision)
    }

    /// Returns one pod.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<Arc<PodView>> {
        self.lock().pods.get(key).cloned()
    }

    /// Returns all sources, in the order of the configuration.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceView> {
        self.lock().sources.all().map(|source| (**source).clone()).collect()
    }

    /// Returns all backends, with the number of pods placed on each.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendView> {
        let state = self.lock();
        let count = |backend: &BackendView| state.pods.all().filter(|pod| pod.backend == backend.name).count();
        state.backends.all().map(|backend| BackendView { pods: count(backend), ..(**backend).clone() }).collect()
    }

    /// Returns a receiver of the revision, which rises with every change on the board.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Shows a pod, new or changed.
    pub fn set_pod(&self, key: &PodKey, mut view: PodView) {
        shorten(&mut view);
        self.change(|state| state.pods.put(key.clone(), view, || next(&mut state.revision)));
    }

    /// Takes a pod off the board.
    pub fn remove_pod(&self, key: &PodKey) {
        self.change(|state| state.pods.remove(key, || next(&mut state.revision)));
    }

    /// Shows the sources.
    pub fn set_sources(&self, mut sources: Vec<SourceView>) {
        sources.iter_mut().filter_map(|source| source.error.as_mut()).for_each(cut);
        self.change(|state| {
            let gone: Vec<_> = (sources.len()..state.sources.all().count()).collect();
            let put = |(place, source)| state.sources.put(place, source, || next(&mut state.revision));
            let changed = sources.into_iter().enumerate().map(put).filter(|changed| *changed).count();
            gone.iter().for_each(|place| _ = state.sources.remove(place, || next(&mut state.revision)));
            changed + gone.len() > 0
        });
    }

    /// Shows a backend.
    pub fn set_backend(&self, mut view: BackendView) {
        let texts = [&mut view.runtime, &mut view.runtime_version, &mut view.version, &mut view.health.message];
        texts.into_iter().chain(&mut view.error).for_each(cut);
        self.change(|state| state.backends.put(view.name.clone(), view, || next(&mut state.revision)));
    }

    /// Applies a change, which returns whether it changed anything, and wakes readers if so.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let (changed, revision) = {
            let mut state = self.lock();
            (change(&mut state), state.revision)
        };
        if changed {
            // Two writers may reach this point in any order.
            self.revision.send_modify(|latest| *latest = revision.max(*latest));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot have spoilt the state: every critical section leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the next revision.
fn next(revision: &mut u64) -> u64 {
    *revision += 1;
    *revision
}

/// Shortens reasons and messages of a pod: runtimes, registries and containers have written them.
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
