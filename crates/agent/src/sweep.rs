//! Removal of files of pods that no source wants and no runtime has.

use std::{collections::HashSet, sync::Arc, time::Duration};

use stanchion_board::Subject;
use stanchion_pod::{PodKey, PodUid};
use stanchion_runtime::{Runtime, labels};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    blocking,
    desired::Desired,
    files::{self, PodFiles},
    shared::Shared,
};

/// Interval of sweeps. Files that belong to no pod at two sweeps in a row are removed.
const PERIOD: Duration = Duration::from_secs(20);

/// Sweeps until `shutdown`.
pub(crate) async fn run<R: Runtime>(
    shared: Arc<Shared<R>>,
    desired: watch::Receiver<Arc<Desired>>,
    shutdown: CancellationToken,
) {
    let mut suspects = HashSet::new();
    loop {
        forget_removed(&shared).await;
        suspects = match leftover_uids(&shared, &desired) {
            Some(unclaimed) => {
                for uid in unclaimed.intersection(&suspects) {
                    remove(&shared, uid).await;
                }
                unclaimed
            }
            None => HashSet::new(),
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

/// Returns the UIDs with files on the node that no source wants and no runtime has; `None` while not all sources are
/// known.
fn leftover_uids<R: Runtime>(shared: &Shared<R>, desired: &watch::Receiver<Arc<Desired>>) -> Option<HashSet<PodUid>> {
    let desired = Arc::clone(&desired.borrow());
    if !desired.complete {
        return None;
    }
    let observations: Vec<_> = shared.slots.iter().map(|slot| (&*slot.backend.name, slot.observer.latest())).collect();
    let away: Vec<_> =
        observations.iter().filter(|(_, observation)| !observation.is_current()).map(|(name, _)| *name).collect();
    let wanted = desired.pods.values().map(|desired| desired.pod.uid.clone());
    // The last observation of a backend that is away still counts.
    let sandboxes =
        observations.iter().flat_map(|(_, observation)| observation.pods.values()).flat_map(|pod| &pod.sandboxes);
    let existing = sandboxes.filter_map(|sandbox| sandbox.labels.get(labels::POD_UID)).map(|uid| PodUid::new(uid));
    let existing: HashSet<_> = existing.collect();
    let claimed: HashSet<_> = wanted.chain(existing.iter().cloned()).collect();
    match files::uids(&shared.config.state_dir) {
        Ok(mut uids) => {
            uids.retain(|uid| {
                let is_gone = !claimed.contains(uid) && (away.is_empty() || was_put_elsewhere(shared, uid, &away));
                is_gone && !may_come_back(shared, uid, &desired, &existing)
            });
            Some(uids.into_iter().collect())
        }
        Err(error) => {
            tracing::warn!(%error, "the pods' files cannot be listed");
            None
        }
    }
}

/// Returns whether a pod's record names another backend than these.
fn was_put_elsewhere<R>(shared: &Shared<R>, uid: &PodUid, away: &[&str]) -> bool {
    let is_away = |backend: &str| away.contains(&backend);
    match files_of(shared, uid).record() {
        Ok(Some(record)) => !is_away(&record.backend) && !record.instead_of.as_deref().is_some_and(is_away),
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(%uid, %error, "cannot read the record of a removed pod");
            false
        }
    }
}

/// Returns whether this is the last started revision of a pod whose wanted revision has no sandbox yet. Until it has
/// one, the pod's worker may start the old revision again.
fn may_come_back<R>(shared: &Shared<R>, uid: &PodUid, desired: &Desired, existing: &HashSet<PodUid>) -> bool {
    let Ok(Some(record)) = files_of(shared, uid).record() else { return false };
    let wanted = desired.pods.get(&PodKey { namespace: record.namespace, name: record.name });
    !record.is_stopped && wanted.is_some_and(|wanted| !existing.contains(&wanted.pod.uid))
}

/// Returns the files of a UID. The pod's name is no longer known, but a link among the files leads to its logs.
fn files_of<R>(shared: &Shared<R>, uid: &PodUid) -> PodFiles {
    let nobody = PodKey { namespace: String::new(), name: String::new() };
    PodFiles::new(&shared.config.state_dir, &shared.config.log_dir, &nobody, uid)
}

/// Removes files of removed pods that are too old or too many.
async fn forget_removed<R>(shared: &Shared<R>) {
    let (removed, now) = (Arc::clone(&shared.removed), shared.clock.stamp());
    if let Err(error) = blocking(move || removed.forget(now)).await {
        tracing::warn!(%error, "cannot delete old records of removed pods");
    }
}

async fn remove<R>(shared: &Shared<R>, uid: &PodUid) {
    let files = files_of(shared, uid);
    let subject = Subject::manifest(&format!("uid {uid}"));
    match files::remove(files).await {
        Ok(()) => {
            shared.events.normal(&subject, "Swept", format!("Removed the files of a pod that is gone (uid {uid})"));
        }
        Err(error) => {
            let message = format!("Cannot remove the files of a pod that is gone (uid {uid}): {error}");
            shared.events.warning(&subject, "SweepFailed", message);
        }
    }
}
