//! Images of one backend. Callers that want the same reference with the same credentials share one pull.
//!
//! # Layout
//! - [`Images`]: presence and pulls. [`owned`]: record of the images that the agent has pulled or imported.
//!   [`garbage`]: choice of those to remove. [`collector`]: their removal.

mod collector;
mod garbage;
mod owned;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use stanchion_runtime::{Error, Image, Progress, PullImage, PullProgress, RegistryAuth, Runtime};
use tokio::sync::watch;

pub(crate) use collector::{Collector, Prune};
pub(crate) use owned::OwnedRecord;

use crate::{
    clock::{Clock, elapsed},
    supervisor::Supervisor,
};

/// Time for which an image that was listed counts as present. If it is gone after all, the container cannot be created,
/// and the agent lists the images again.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// Images of one backend.
#[derive(Debug)]
pub(crate) struct Images {
    state: Mutex<State>,
    /// References that are being removed. Callers that need one wait.
    removing: watch::Sender<BTreeSet<String>>,
    record: Arc<OwnedRecord>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    seen: HashMap<String, Instant>,
    pulls: Vec<RunningPull>,
}

/// A running pull. Other credentials need another pull: the registry may answer them otherwise.
#[derive(Debug)]
struct RunningPull {
    reference: String,
    auth: Option<RegistryAuth>,
    pull: watch::Sender<Pull>,
}

impl RunningPull {
    fn is(&self, reference: &str, auth: Option<&RegistryAuth>) -> bool {
        self.reference == reference && self.auth.as_ref() == auth
    }
}

/// State of a pull.
#[derive(Clone, Debug)]
pub(crate) enum Pull {
    /// The pull runs.
    Running(PullProgress),
    /// The pull has ended.
    Done(Result<Image, Error>),
}

impl Images {
    pub fn new(record: Arc<OwnedRecord>, clock: Clock) -> Self {
        Self { state: Mutex::default(), removing: watch::Sender::default(), record, clock }
    }

    /// Returns whether the image of a full reference is present.
    pub async fn is_present<R: Runtime>(&self, runtime: &R, reference: &str) -> Result<bool, Error> {
        self.not_removing(reference).await;
        if self.lock().seen.get(reference).is_some_and(|seen| elapsed(*seen) < TRUSTED_FOR) {
            return Ok(true);
        }
        let images = runtime.list_images().await?;
        let now = crate::clock::instant();
        let mut state = self.lock();
        state.seen = images.into_iter().map(|image| (image.reference, now)).collect();
        Ok(state.seen.contains_key(reference))
    }

    /// Forgets that an image was listed.
    pub fn forget(&self, reference: &str) {
        self.lock().seen.remove(reference);
    }

    /// Blocks lookups and pulls of an image until the returned guard is dropped; `None` while it is being pulled.
    fn begin_removal<'a>(&'a self, reference: &'a str) -> Option<Removal<'a>> {
        let mut state = self.lock();
        if state.pulls.iter().any(|going| going.reference == reference) {
            return None;
        }
        state.seen.remove(reference);
        self.removing.send_if_modified(|removing| removing.insert(reference.to_owned()));
        Some(Removal { images: self, reference })
    }

    /// Waits until no removal of an image is running.
    ///
    /// *Cancel-safe:* it only waits.
    async fn not_removing(&self, reference: &str) {
        // It cannot fail: the sender is in `self`.
        self.removing.subscribe().wait_for(|removing| !removing.contains(reference)).await.ok();
    }

    /// Pulls an image, or joins the running pull of it. A pull is cancelled when its last receiver is dropped.
    pub fn pull<R: Runtime>(
        self: &Arc<Self>,
        runtime: &Arc<R>,
        reference: &str,
        auth: Option<RegistryAuth>,
        tasks: &Supervisor,
    ) -> watch::Receiver<Pull> {
        let mut state = self.lock();
        if let Some(going) = state.pulls.iter().find(|going| going.is(reference, auth.as_ref())) {
            return going.pull.subscribe();
        }
        let (sender, pull) = watch::channel(Pull::Running(PullProgress::default()));
        state.pulls.push(RunningPull { reference: reference.to_owned(), auth: auth.clone(), pull: sender.clone() });
        drop(state);

        let (images, runtime, reference) = (Arc::clone(self), Arc::clone(runtime), reference.to_owned());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn(format!("pull {reference}"), async move {
            let progress = sender.clone();
            let progress = Progress::new(move |now| drop(progress.send_replace(Pull::Running(now))));
            let request = PullImage { reference: reference.clone(), auth: auth.clone() };
            images.not_removing(&reference).await;
            let before = images.before(&*runtime).await;
            // The next pull resumes a cancelled one.
            let pulled = tokio::select! {
                // *Cancel-safe:* a runtime ends a dropped call, and keeps or frees the received part of the image.
                pulled = shutdown.run_until_cancelled(runtime.pull_image(request, progress)) => pulled,
                // *Cancel-safe:* it only waits.
                () = images.unwanted(&sender, &reference, auth.as_ref()) => return,
            };
            images.end_pull(&reference, auth.as_ref(), matches!(pulled, Some(Ok(_))));
            let fetched = pulled.as_ref().and_then(|pulled| pulled.as_ref().ok().cloned());
            if let Some(pulled) = pulled {
                sender.send_replace(Pull::Done(pulled));
            }
            if let Some((before, image)) = before.zip(fetched) {
                images.claim(&*runtime, before, vec![image], None).await;
            }
        });
        pull
    }

    /// Waits until a pull has no receivers. From then on nobody can join it.
    async fn unwanted(&self, sender: &watch::Sender<Pull>, reference: &str, auth: Option<&RegistryAuth>) {
        loop {
            sender.closed().await;
            let mut state = self.lock();
            // Another caller may have joined meanwhile.
            if sender.receiver_count() == 0 {
                state.pulls.retain(|going| !going.is(reference, auth));
                return;
            }
        }
    }

    fn end_pull(&self, reference: &str, auth: Option<&RegistryAuth>, is_here: bool) {
        let mut state = self.lock();
        state.pulls.retain(|going| !going.is(reference, auth));
        if is_here {
            state.seen.insert(reference.to_owned(), crate::clock::instant());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of an image that is being removed.
struct Removal<'a> {
    images: &'a Images,
    reference: &'a str,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.images.lock().seen.remove(self.reference);
        self.images.removing.send_if_modified(|removing| removing.remove(self.reference));
    }
}
