//! Sources of a worker's wake-ups, except for the results of its own tasks.

use std::{future, net::IpAddr, sync::Arc};

use futures_util::future::select_all;
use stanchion_pod::PodUid;
use tokio::sync::watch;

use super::restarts::{RestartRequests, Restarts};
use crate::{desired::DesiredPod, node_shutdown::ShutdownPhase, observe::Observation, shared::Shared};

/// Receivers of the inputs of a worker's decisions.
#[derive(Debug)]
pub(super) struct Inbox {
    desired: watch::Receiver<Option<DesiredPod>>,
    restarts: Arc<RestartRequests>,
    /// Counter of image imports.
    images: watch::Receiver<u64>,
    shutdown: watch::Receiver<Option<ShutdownPhase>>,
    /// The node's addresses.
    addresses: watch::Receiver<Vec<IpAddr>>,
    /// Observations: one receiver for each backend.
    observations: Vec<watch::Receiver<Arc<Observation>>>,
}

/// Reason to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// An input of the worker's decisions has changed.
    Input,
    /// Images were imported.
    Images,
    /// A backend was observed. The pod may be unchanged.
    Observation,
    /// The reconciler has stopped with the agent, so there are no further inputs.
    Shutdown,
}

impl Inbox {
    pub fn new<R>(
        desired: watch::Receiver<Option<DesiredPod>>,
        restarts: Arc<RestartRequests>,
        shared: &Shared<R>,
    ) -> Self {
        Self {
            desired,
            restarts,
            images: shared.images_changed.subscribe(),
            shutdown: shared.node_shutdown.subscribe(),
            addresses: shared.node_addresses.clone(),
            observations: shared.slots.iter().map(|slot| slot.observer.watch()).collect(),
        }
    }

    /// Returns the wanted pod, and marks it as read.
    pub fn desired(&mut self) -> Option<DesiredPod> {
        self.desired.borrow_and_update().clone()
    }

    /// Returns the UID of the wanted pod.
    pub fn uid(&self) -> Option<PodUid> {
        self.desired.borrow().as_ref().map(|desired| desired.pod.uid.clone())
    }

    /// Returns the phase of the node's shutdown; `None` if the node does not shut down.
    pub fn shutdown(&mut self) -> Option<ShutdownPhase> {
        *self.shutdown.borrow_and_update()
    }

    /// Takes the restarts that users have requested since the last call.
    pub fn restarts(&self) -> Restarts {
        self.restarts.take()
    }

    /// Marks the present observations as read: only later ones wake the worker.
    pub fn mark_observations(&mut self) {
        self.observations.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }

    /// Waits for a new observation of any backend.
    ///
    /// *Cancel-safe:* it only waits.
    pub async fn observation(&mut self) -> Wake {
        next_observation(&mut self.observations).await
    }

    /// Waits for the next change.
    ///
    /// *Cancel-safe:* every arm waits on a channel and keeps what it has not delivered.
    pub async fn wake(&mut self) -> Wake {
        let Self { desired, restarts, images, shutdown, addresses, observations } = self;
        tokio::select! {
            changed = desired.changed() => if changed.is_ok() { Wake::Input } else { Wake::Shutdown },
            () = restarts.made() => Wake::Input,
            Ok(()) = images.changed() => Wake::Images,
            Ok(()) = shutdown.changed() => Wake::Input,
            // Addresses are only shown: their change restarts no container.
            Ok(()) = addresses.changed() => Wake::Input,
            wake = next_observation(observations) => wake,
        }
    }
}

async fn next_observation(observations: &mut [watch::Receiver<Arc<Observation>>]) -> Wake {
    if observations.is_empty() {
        return future::pending().await;
    }
    match select_all(observations.iter_mut().map(|it| Box::pin(it.changed()))).await.0 {
        Ok(()) => Wake::Observation,
        Err(_) => Wake::Input,
    }
}
