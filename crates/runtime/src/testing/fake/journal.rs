//! Journal of the fakes of one node: calls that change something, and what changed, in their order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use super::{Call, FakeRuntime, lock, state::State};
use crate::{ContainerId, ContainerInfo, ContainerState, SandboxId, SandboxInfo, SandboxState};

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Time of the entry.
    pub at: Instant,
    /// Name of the fake.
    pub runtime: Arc<str>,
    /// The call or the change.
    pub fact: Fact,
}

/// A call, or a change in a fake, whoever caused it.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test holds few of them")]
pub enum Fact {
    /// A method was called that may change something. The fault script may keep the call from doing anything.
    Called(Call),
    /// A sandbox was made.
    SandboxMade(SandboxInfo),
    /// A sandbox is not ready any more.
    SandboxLost(SandboxId),
    /// A sandbox was removed.
    SandboxGone(SandboxId),
    /// A container was made.
    Made(ContainerInfo),
    /// A container was started.
    Started(ContainerId),
    /// A container ended, with this exit code if there is one.
    Ended(ContainerId, Option<i32>),
    /// A container was removed.
    Gone(ContainerId),
}

/// Journal of one or more fakes.
#[derive(Default)]
pub(super) struct Journal {
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    entries: Vec<Entry>,
    last: BTreeMap<Arc<str>, Last>,
}

/// Sandboxes and containers of a fake at the last record.
#[derive(Default)]
struct Last {
    /// Sandboxes, and whether they were ready.
    sandboxes: BTreeMap<SandboxId, bool>,
    containers: BTreeMap<ContainerId, Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Made,
    Runs,
    Ended,
}

impl Journal {
    pub(super) fn record_call(&self, runtime: &Arc<str>, call: &Call) {
        if !call.method().only_reads() {
            lock(&self.pages).add(runtime, Fact::Called(call.clone()));
        }
    }

    /// Records what has changed in a fake.
    pub(super) fn record(&self, runtime: &Arc<str>, state: &State) {
        let mut pages = lock(&self.pages);
        let mut last = pages.last.remove(runtime).unwrap_or_default();
        let mut facts = Vec::new();
        last.containers_of(state, &mut facts);
        last.sandboxes_of(state, &mut facts);
        pages.last.insert(Arc::clone(runtime), last);
        facts.into_iter().for_each(|fact| pages.add(runtime, fact));
    }
}

impl Pages {
    fn add(&mut self, runtime: &Arc<str>, fact: Fact) {
        self.entries.push(Entry { at: Instant::now(), runtime: Arc::clone(runtime), fact });
    }
}

impl Last {
    fn containers_of(&mut self, state: &State, facts: &mut Vec<Fact>) {
        for (id, container) in &state.containers {
            let info = &container.info;
            let (stage, code) = match info.state {
                ContainerState::Created | ContainerState::Unknown => (Stage::Made, None),
                ContainerState::Running { .. } => (Stage::Runs, None),
                ContainerState::Exited { code, .. } => (Stage::Ended, code),
            };
            let before = self.containers.get(id).copied();
            if before == Some(stage) {
                continue;
            }
            self.containers.insert(id.clone(), stage);
            if before.is_none() {
                facts.push(Fact::Made(info.clone()));
            }
            match stage {
                Stage::Made => {}
                Stage::Runs => facts.push(Fact::Started(id.clone())),
                Stage::Ended => facts.push(Fact::Ended(id.clone(), code)),
            }
        }
        self.containers.retain(|id, _| {
            let is_here = state.containers.contains_key(id);
            if !is_here {
                facts.push(Fact::Gone(id.clone()));
            }
            is_here
        });
    }

    fn sandboxes_of(&mut self, state: &State, facts: &mut Vec<Fact>) {
        for (id, sandbox) in &state.sandboxes {
            let is_ready = sandbox.info.state == SandboxState::Ready;
            match self.sandboxes.insert(id.clone(), is_ready) {
                None => facts.push(Fact::SandboxMade(sandbox.info.clone())),
                Some(true) if !is_ready => facts.push(Fact::SandboxLost(id.clone())),
                Some(_) => {}
            }
        }
        self.sandboxes.retain(|id, _| {
            let is_here = state.sandboxes.contains_key(id);
            if !is_here {
                facts.push(Fact::SandboxGone(id.clone()));
            }
            is_here
        });
    }
}

impl FakeRuntime {
    /// Takes the entries of the journal since the last time, of this fake and those made with
    /// [`beside`](FakeRuntime::beside).
    #[must_use]
    pub fn take_journal(&self) -> Vec<Entry> {
        std::mem::take(&mut lock(&self.shared.journal.pages).entries)
    }
}
