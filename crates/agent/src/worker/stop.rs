//! Stopping containers: `preStop`, then the stop signal, sidecars last and in reverse (R-TERM-1 to R-TERM-3, R-HOOK-2).

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use stanchion_board::Subject;
use stanchion_plan::{
    mutant::{self, Mutant},
    stop::Stop,
};
use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, Error, Runtime};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Worker, inbox::Wake, lifecycle, recall};
use crate::{
    clock::{elapsed, instant, timeout_at},
    desired::DesiredPod,
    hook::HookContext,
    shared::Shared,
};

/// Minimum time between stop signal and kill, however long the `preStop` hook took (R-TERM-1).
const MIN_GRACE: Duration = Duration::from_secs(2);

impl<R: Runtime> Worker<R> {
    /// Stops these containers, and updates the shown status meanwhile.
    pub(super) async fn stop_containers(
        &mut self,
        backend: &str,
        stops: Vec<Stop>,
        desired: Option<&DesiredPod>,
    ) -> Result<(), Error> {
        let runtime = self.context.runtime(backend)?;
        stops.iter().for_each(|stop| self.lifecycle.end(&stop.id));
        let mut all = Vec::with_capacity(stops.len());
        for stop in stops {
            let Some(info) = self.container(&stop.id) else { continue };
            let wanted = [desired, self.presence.last()];
            let pod = self.recall.pod_of(&self.context, &info, wanted).await;
            all.push(self.container_stop(&runtime, stop, info, pod));
        }
        let has_failed = Arc::new(AtomicBool::new(false));
        let gone: Vec<_> = all.iter().map(|it| (it.index, it.gone.clone())).collect();
        for stop in &mut all {
            let is_alone = stop.index.is_none() || mutant::is_on(Mutant::StopsSidecarsToo);
            let is_before = |index: Option<usize>| !is_alone && (index.is_none() || index > stop.index);
            stop.has_failed = Arc::clone(&has_failed);
            stop.after = gone.iter().filter(|(index, _)| is_before(*index)).map(|(_, gone)| gone.clone()).collect();
        }
        self.until(join_all(all.into_iter().map(ContainerStop::run)), desired).await.into_iter().collect()
    }

    /// Waits for `work`. Meanwhile it applies the results of hooks and probes, and updates the shown status.
    async fn until<T>(&mut self, work: impl Future<Output = T>, desired: Option<&DesiredPod>) -> T {
        tokio::pin!(work);
        loop {
            // *Cancel-safe:* `work` goes on in the next iteration; the other arms wait on channels.
            let update = tokio::select! {
                done = &mut work => return done,
                update = self.lifecycle.next() => Some(update),
                Wake::Observation = self.inbox.observation() => None,
            };
            if let Some(update) = update {
                self.apply(update).await;
            }
            self.inbox.mark_observations();
            let snapshot = self.snapshot(desired.cloned());
            self.show(&snapshot);
        }
    }

    fn container_stop(
        &self,
        runtime: &Arc<R>,
        stop: Stop,
        info: ContainerInfo,
        pod: Option<Arc<Pod>>,
    ) -> ContainerStop<R> {
        let sidecar = |pod: &Pod| pod.init_containers.iter().position(|init| init.name == info.name);
        let observed = self.observed();
        ContainerStop {
            shared: Arc::clone(&self.context.shared),
            runtime: Arc::clone(runtime),
            subject: self.context.container(pod.as_deref(), &info.name),
            address: lifecycle::contact_address(&self.context, &observed, pod.as_deref(), &info.sandbox).current(),
            container: pod.as_ref().and_then(|pod| pod.container(&info.name)).cloned(),
            index: pod.as_deref().and_then(sidecar),
            key: self.context.key.clone(),
            uid: recall::uid(&info.labels).map(|uid| uid.to_string()).unwrap_or_default(),
            stop,
            gone: CancellationToken::new(),
            after: Vec::new(),
            has_failed: Arc::default(),
        }
    }
}

/// Stop of one container.
struct ContainerStop<R> {
    shared: Arc<Shared<R>>,
    runtime: Arc<R>,
    key: stanchion_pod::PodKey,
    uid: String,
    subject: Subject,
    address: std::net::IpAddr,
    /// Container in the manifest, if the manifest is known.
    container: Option<Container>,
    /// Index among the init containers; `None` for other containers.
    index: Option<usize>,
    stop: Stop,
    /// Token that is cancelled once the container has ended, or cannot be stopped now.
    gone: CancellationToken,
    /// Tokens of the containers that must end before this one gets its stop signal.
    after: Vec<CancellationToken>,
    /// `true` once a container of the same action could not be stopped.
    has_failed: Arc<AtomicBool>,
}

impl<R: Runtime> ContainerStop<R> {
    async fn run(self) -> Result<(), Error> {
        let Stop { id, grace, message } = &self.stop;
        let events = &self.shared.events;
        events.normal(&self.subject, "Killing", message.clone());
        let begun = instant();
        let hook = self.container.as_ref().and_then(|container| Some((&container.name, container.pre_stop.as_ref()?)));
        // Without grace there is no time for a hook (R-HOOK-3).
        if let Some((name, hook)) = hook.filter(|_| !grace.is_zero() && !mutant::is_on(Mutant::SkipsPreStop)) {
            let context = HookContext {
                runtime: &*self.runtime,
                key: &self.key,
                uid: &self.uid,
                name,
                container: id,
                address: self.address,
                subject: &self.subject,
                events,
            };
            match timeout(*grace, context.run(hook)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(container = name, error, "a preStop hook failed");
                    events.warning(&self.subject, "FailedPreStopHook", "PreStopHook failed");
                }
                Err(_) => events.warning(&self.subject, "FailedPreStopHook", "PreStopHook failed"),
            }
        }
        // After its grace period, a sidecar does not wait for the others any more.
        let others = join_all(self.after.iter().map(CancellationToken::cancelled));
        if timeout_at(begun + *grace, others).await.is_err() {
            tracing::debug!(container = %id, "the grace period ended: stopping a sidecar before the containers that use it");
        }
        // The others keep running, and need the sidecar. As long as there is time, it is stopped with them at the next
        // try.
        let has_time = elapsed(begun) < *grace;
        if has_time && !self.after.is_empty() && self.has_failed.load(Ordering::Relaxed) {
            self.gone.cancel();
            return Ok(());
        }
        let left = match grace.is_zero() {
            true => Duration::ZERO,
            false => grace.saturating_sub(Duration::from_secs(elapsed(begun).as_secs())).max(MIN_GRACE),
        };
        let stopped = self.runtime.stop_container(id.clone(), left).await;
        let has_failed = stopped.is_err() && !mutant::is_on(Mutant::StopsSidecarsInVain);
        self.has_failed.fetch_or(has_failed, Ordering::Relaxed);
        self.gone.cancel();
        stopped
    }
}
