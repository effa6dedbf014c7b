//! Removes images that the agent has pulled or imported and that nobody needs: when the disk fills, when they are old,
//! or on a user's request (R-IMG-11). Each backend has a collector's task of its own, so that a backend that hangs
//! delays no other (I8).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stanchion_board::{
    Subject,
    view::{PruneView, PrunedImageView},
};
use stanchion_plan::image;
use stanchion_runtime::{Error, ErrorKind, ImageStore, Runtime, UnusedImage};
use tokio::sync::{mpsc, oneshot, watch};

use super::garbage::{self, Candidate, Survey};
use crate::{blocking, clock, desired::Desired, files, node::BackendSlot, shared::Shared};

/// Time until the first survey: by then the sources are read, and pods have the images that they need.
const FIRST_SURVEY: Duration = Duration::from_secs(30);

/// A user's request to remove unused images.
#[derive(Debug)]
pub(crate) struct Prune {
    /// `true`: only list what would be removed.
    pub dry_run: bool,
    pub answer: oneshot::Sender<PruneView>,
}

/// Remover of the unused images of a backend.
#[derive(Debug)]
pub(crate) struct Collector<R> {
    pub shared: Arc<Shared<R>>,
    /// Index of the backend.
    pub index: usize,
    pub desired: watch::Receiver<Arc<Desired>>,
    pub prunes: mpsc::Receiver<Prune>,
}

/// Images that may be removed.
struct Removable<R> {
    runtime: Arc<R>,
    store: ImageStore,
    candidates: Vec<Candidate>,
}

/// Reason why nothing is removed.
enum CollectError {
    /// It is not possible now.
    NotNow(String),
    Failed(Error),
}

impl From<Error> for CollectError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Unsupported | ErrorKind::Cancelled => Self::NotNow(error.chain()),
            _ => Self::Failed(error),
        }
    }
}

/// Result of a removal.
enum RemovalResult {
    Removed,
    Kept(String),
    Failed(Error),
}

impl<R: Runtime> Collector<R> {
    /// Removes images until the agent stops.
    pub async fn run(mut self) {
        let shutdown = self.shared.supervisor.shutdown().clone();
        let settings = self.shared.config.image_gc.clone();
        let is_on = settings.thresholds.is_some() || settings.maximum_age.is_some();
        let mut next = clock::instant() + settings.period.min(FIRST_SURVEY);
        loop {
            tokio::select! {
                // *Cancel-safe:* all branches only wait; what they receive is acted on outside.
                () = shutdown.cancelled() => return,
                () = clock::sleep_until(next), if is_on => {}
                prune = self.prunes.recv() => {
                    let Some(Prune { dry_run, answer }) = prune else { return };
                    let Some(pruned) = shutdown.run_until_cancelled(self.prune(dry_run)).await else { return };
                    if answer.send(pruned).is_err() {
                        tracing::debug!("nobody waits for what was removed");
                    }
                    continue;
                }
            }
            if shutdown.run_until_cancelled(self.collect()).await.is_none() {
                return;
            }
            next = clock::instant() + settings.period;
        }
    }

    fn slot(&self) -> &BackendSlot<R> {
        &self.shared.slots[self.index]
    }

    /// Removes images that are too old, and others if the disk is too full.
    async fn collect(&self) {
        let subject = Subject::backend(&self.slot().backend.name);
        let failed = match self.survey().await {
            Ok(found) => self.remove_old(found, &subject).await,
            Err(trouble) => Err(trouble),
        };
        match failed {
            Ok(()) => {}
            Err(CollectError::NotNow(why)) => {
                tracing::debug!(why, "no image is removed");
            }
            Err(CollectError::Failed(error)) => self.shared.events.warning(&subject, "ImageGCFailed", error.chain()),
        }
    }

    async fn remove_old(&self, mut found: Removable<R>, subject: &Subject) -> Result<(), CollectError> {
        if let Some(maximum) = self.shared.config.image_gc.maximum_age {
            let is_old = |it: &Candidate| it.unused_for > maximum;
            let (old, others): (Vec<_>, _) = found.candidates.into_iter().partition(is_old);
            found.candidates = others;
            for candidate in &old {
                let why = format!("nothing has used it since {}", candidate.unused_since.wall);
                self.remove_for(&found, candidate, &why).await?;
            }
        }
        self.free_space(&found, subject).await
    }

    async fn free_space(&self, found: &Removable<R>, subject: &Subject) -> Result<(), CollectError> {
        let settings = &self.shared.config.image_gc;
        let Some((high, low)) = settings.thresholds else { return Ok(()) };
        let mut store = found.store.clone();
        if store.capacity == 0 {
            let message = format!("the file system of {} says that it has no room at all", store.path.display());
            return Err(CollectError::Failed(Error::new(ErrorKind::Other, message)));
        }
        let usage = garbage::usage(&store);
        if usage < high {
            return Ok(());
        }
        let why = format!("{usage} % of the file system of {} are used", store.path.display());
        let is_ripe = |it: &&Candidate| it.age >= settings.minimum_age;
        for candidate in found.candidates.iter().filter(is_ripe) {
            self.remove_for(found, candidate, &why).await?;
            store = found.runtime.image_store().await?;
            if garbage::is_below(&store, low) {
                return Ok(());
            }
        }
        if !garbage::is_below(&store, low) {
            let (usage, path) = (garbage::usage(&store), store.path.display());
            let message = format!(
                "{usage} % of the file system of {path} are used, and there is no image left that was brought by this agent and that \
                 nothing uses. What fills it is something else: images in use or of others, volumes, logs"
            );
            self.shared.events.warning(subject, "FreeDiskSpaceFailed", message);
        }
        Ok(())
    }

    /// Removes unused images, or only lists them.
    async fn prune(&self, dry_run: bool) -> PruneView {
        let backend = self.slot().backend.name.clone();
        let found = match self.survey().await {
            Ok(found) => found,
            Err(CollectError::NotNow(why)) => return PruneView { backend, error: Some(why), ..PruneView::default() },
            Err(CollectError::Failed(error)) => {
                return PruneView { backend, error: Some(error.chain()), ..PruneView::default() };
            }
        };
        let mut images = Vec::new();
        for candidate in &found.candidates {
            let kept = match dry_run {
                true => None,
                false => match self.remove(&found, candidate, "on demand").await {
                    RemovalResult::Removed => None,
                    RemovalResult::Kept(why) => Some(why),
                    RemovalResult::Failed(error) => Some(error.chain()),
                },
            };
            images.push(PrunedImageView { names: candidate.names.clone(), digest: candidate.digest.to_string(), kept });
        }
        let freed = match dry_run {
            true => 0,
            false => {
                let now = found.runtime.image_store().await.map_or(0, |store| store.available);
                now.saturating_sub(found.store.available)
            }
        };
        PruneView { backend, error: None, images, freed }
    }

    /// Finds the images that may be removed.
    async fn survey(&self) -> Result<Removable<R>, CollectError> {
        let not_now = |why: &str| CollectError::NotNow(why.to_owned());
        if !self.desired.borrow().complete {
            return Err(not_now("not all manifest sources have been read yet"));
        }
        let slot = self.slot();
        let runtime = slot.backend.runtime().ok_or_else(|| not_now("the backend is not open"))?;
        let at = self.shared.clock.stamp();
        // Names that manifests get after this list are looked up again before a removal.
        let named = self.named().await?;
        let images = runtime.list_images().await?;
        let store = runtime.image_store().await?;
        let survey = Survey { at, images, in_use: store.in_use.clone(), named };
        let choose = move |known: &mut _| garbage::candidates(known, &survey, |archive| archive.exists());
        let candidates = slot.images.record.change(store.path.clone(), choose).await;
        Ok(Removable { runtime, store, candidates })
    }

    /// Returns the images that manifests name: those of wanted pods, and those in the records of started pods.
    async fn named(&self) -> Result<BTreeSet<String>, Error> {
        let (state_dir, node) = (self.shared.config.state_dir.clone(), self.shared.config.node_name.clone());
        let recorded = blocking(move || files::recorded(&state_dir, &node)).await;
        let recorded = recorded.map_err(|error| {
            Error::new(ErrorKind::Other, "reading the records of started pods, for the images they need")
                .caused_by(&error)
        })?;
        let desired = Arc::clone(&self.desired.borrow());
        let pods = desired.pods.values().map(|wanted| &*wanted.pod).chain(&recorded);
        Ok(pods.flat_map(image::references).flat_map(garbage::names).collect())
    }

    fn is_named(&self, reference: &str) -> bool {
        let desired = Arc::clone(&self.desired.borrow());
        let mut images = desired.pods.values().flat_map(|wanted| image::references(&wanted.pod));
        images.any(|image| garbage::names(image).any(|name| name == reference))
    }

    async fn remove_for(&self, found: &Removable<R>, candidate: &Candidate, why: &str) -> Result<(), CollectError> {
        match self.remove(found, candidate, why).await {
            RemovalResult::Removed => Ok(()),
            RemovalResult::Kept(kept) => {
                tracing::debug!(image = ?candidate.names, kept, "an image is not removed");
                Ok(())
            }
            RemovalResult::Failed(error) => Err(error.into()),
        }
    }

    /// Removes an image by all of its names, unless a pod needs one of them by now.
    async fn remove(&self, found: &Removable<R>, candidate: &Candidate, why: &str) -> RemovalResult {
        let images = &self.slot().images;
        for name in &candidate.names {
            // From here on, pods that need the image wait; pods that asked for it before are wanted by now.
            let Some(_removal) = images.begin_removal(name) else {
                return RemovalResult::Kept("it is being pulled".to_owned());
            };
            if self.is_named(name) {
                return RemovalResult::Kept("a manifest names it by now".to_owned());
            }
            let image = UnusedImage { reference: name.clone(), digest: candidate.digest.clone() };
            match found.runtime.remove_unused_image(image).await {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                    return RemovalResult::Kept(error.chain());
                }
                Err(error) => return RemovalResult::Failed(error),
            }
            let (name, digest) = (name.clone(), candidate.digest.clone());
            let forget = move |known: &mut super::owned::OwnedImages| {
                known.retain(|reference, it| *reference != name || it.digest != digest);
            };
            images.record.change(found.store.path.clone(), forget).await;
        }
        let message = format!("Removed image {}: {why}", candidate.names.join(", "));
        self.shared.events.normal(&Subject::backend(&self.slot().backend.name), "ImageRemoved", message);
        RemovalResult::Removed
    }
}
