//! Checks of the node as a whole: whether pods run as wanted, and whether the board tells the truth.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stanchion_board::view::PodView;
use stanchion_pod::PodKey;
use stanchion_runtime::ContainerId;

use crate::{
    ledger::{Container, Ledger},
    node::{Node, now},
    pod::{Pod, Policy},
    schedule::PODS,
    world::{Trouble, World},
};

/// Time within which a pod runs as wanted once nothing keeps it from it: the longest back-off, and slow steps.
pub const BOUND: Duration = Duration::from_secs(450);
/// Time for which the board may show what is not true any more: the longest time between two looks, and a slow one.
const STALE: Duration = Duration::from_secs(60);

/// Returns why a pod is not as wanted.
#[must_use]
pub fn unrest(pod: usize, node: &Node, world: &World, ledger: &Ledger) -> Option<String> {
    let mut reasons = world.wanted(pod).map(|wanted| match wanted {
        Some(manifest) => is_not_running(pod, manifest, node, world, ledger),
        None => is_left(pod, node, ledger),
    });
    // Any of the manifests that the agent may have read will do.
    let first = reasons.next()?;
    match first.is_none() || reasons.any(|reason| reason.is_none()) {
        true => None,
        false => first,
    }
}

/// Returns what is left of a pod that is not wanted (I2, I6).
fn is_left(pod: usize, node: &Node, ledger: &Ledger) -> Option<String> {
    let name = PODS[pod];
    if let Some((key, _)) = ledger.containers.iter().find(|(_, it)| it.pod == pod) {
        return Some(format!("I2: pod {name} is not wanted, and {} is left on {}", key.1, key.0));
    }
    if let Some((key, _)) = ledger.sandboxes.iter().find(|(_, it)| it.pod == pod) {
        return Some(format!("I2: pod {name} is not wanted, and {} is left on {}", key.1, key.0));
    }
    shown(node, pod).map(|_| format!("I7: pod {name} is gone, and the board still shows it"))
}

fn is_not_running(pod: usize, manifest: &Pod, node: &Node, world: &World, ledger: &Ledger) -> Option<String> {
    let name = PODS[pod];
    let running: Vec<_> = ledger.containers.iter().filter(|(_, it)| it.pod == pod && it.runs()).collect();
    if let Some((key, it)) = running.iter().find(|(_, it)| it.version != manifest.version) {
        return Some(format!("{} of version {} runs, and version {} is wanted", key.1, it.version, manifest.version));
    }
    if !ledger.containers.values().any(|it| it.pod == pod && it.version == manifest.version) {
        return Some(format!(
            "version {} of pod {name} is wanted, and none of its containers is there",
            manifest.version
        ));
    }
    let places: BTreeSet<_> = running.iter().map(|(key, it)| (&key.0, &it.sandbox)).collect();
    if places.len() > 1 {
        return Some(format!("I1: pod {name} runs in {places:?}"));
    }
    if manifest.policy != Policy::Always {
        return None;
    }
    let due = manifest.containers.iter().map(|(role, _)| *role).filter(|role| !role.ends());
    for container in due.map(|role| manifest.container(role)) {
        if !running.iter().any(|(_, it)| it.name == container) {
            return Some(format!("{container} of version {} is wanted, and does not run", manifest.version));
        }
    }
    let (runtime, sandbox) = places.first()?;
    let is_ready = ledger.sandboxes.get(&(Arc::clone(runtime), (*sandbox).clone())).is_some_and(|it| it.is_ready);
    if !is_ready {
        return Some(format!("pod {name} runs in {sandbox}, which is not ready"));
    }
    if let Some(only) = world.only_backend(manifest).filter(|only| **only != ***runtime) {
        return Some(format!("pod {name} runs on {runtime}, and not on {only}"));
    }
    let phase = shown(node, pod).and_then(|view| view.pod.status.as_ref()?.phase.clone()).unwrap_or_default();
    (phase != "Running").then(|| format!("I7: pod {name} runs, and the board shows {phase:?}"))
}

/// Returns the pod as the board shows it.
fn shown(node: &Node, pod: usize) -> Option<Arc<PodView>> {
    let key = PodKey { namespace: "default".to_owned(), name: format!("{}-node", PODS[pod]) };
    node.handle()?.board.pod(&key)
}

/// Checks what the board shows of each pod (I7).
pub fn check_shown(node: &Node, world: &World, ledger: &mut Ledger) {
    for pod in world.pods() {
        let Some(view) = shown(node, pod) else { continue };
        let is_calm = world.calm(pod).is_some_and(|calm| calm > STALE);
        let lies: Vec<_> =
            view.statuses().filter_map(|status| lie(pod, &view, status, world, ledger, is_calm)).collect();
        ledger.broken.extend(lies);
    }
}

type Status = stanchion_pod::k8s_openapi::api::core::v1::ContainerStatus;

/// Returns what is not true of a container's status.
fn lie(pod: usize, view: &PodView, status: &Status, world: &World, ledger: &Ledger, is_calm: bool) -> Option<String> {
    let (name, state) = (&status.name, status.state.as_ref()?);
    if let Some(waiting) = &state.waiting {
        let is_said = waiting.reason.as_ref().is_some_and(|reason| !reason.is_empty());
        return (!is_said).then(|| format!("I7: the board does not say why {name} waits"));
    }
    state.running.as_ref()?;
    let id = status.container_id.as_deref()?.rsplit('/').next()?;
    let key = (Arc::from(view.backend.as_str()), ContainerId(id.to_owned()));
    let runs = |it: &Container| it.runs() || it.ended.is_some_and(|(ended, _)| now().duration_since(ended) < STALE);
    if is_calm && !ledger.containers.get(&key).is_some_and(runs) {
        return Some(format!("I7: the board shows {id} on {} running, and it does not run", view.backend));
    }
    let is_sick = world.unready(pod, name).is_some_and(|since| now().duration_since(since) > STALE);
    (is_calm && is_sick && status.ready).then(|| format!("I7: the board shows {name} ready, and its probe fails"))
}

/// Checks that pods which nothing disturbs run as wanted, whatever other backends do (I8), and lets the reasons to stop them
/// lapse.
pub fn check_rest(node: &Node, world: &mut World, ledger: &mut Ledger) {
    for pod in world.pods() {
        let Some(calm) = world.calm(pod) else { continue };
        match unrest(pod, node, world, ledger) {
            None if calm > BOUND / 2 => world.at_rest(pod),
            Some(reason) if calm > BOUND => {
                let others: Vec<_> =
                    world.troubles.iter().filter(|it| matches!(it, Trouble::Away(_) | Trouble::Faulty(_))).collect();
                let mark = if others.is_empty() { String::new() } else { format!("I8: beside {others:?}: ") };
                ledger.broken.push(format!("{mark}{reason}, after {calm:?} without a trouble"));
                world.disturb(pod);
            }
            _ => {}
        }
    }
}

/// Returns a line about every pod on the board.
#[must_use]
pub fn board(node: &Node, world: &World) -> String {
    let Some(handle) = node.handle() else { return "no agent".to_owned() };
    let line = |pod: usize| {
        let view = shown(node, pod)?;
        let status = view.pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or_default();
        Some(format!(" {}={phase}{reason}@{}", PODS[pod], view.backend))
    };
    let pods: String = world.pods().filter_map(line).collect();
    format!("{} events,{pods}", handle.events.all().len())
}

/// Returns what the agent says: the statuses of containers that do not run, and the latest events.
#[must_use]
pub fn words(node: &Node, world: &World) -> Vec<String> {
    let Some(handle) = node.handle() else { return Vec::new() };
    let pods = world.pods().filter_map(|pod| shown(node, pod));
    let statuses = pods.flat_map(|view| {
        view.statuses().map(|status| format!("{}: {:?}", status.name, status.state)).collect::<Vec<_>>()
    });
    let events = handle.events.all();
    let latest = events.iter().skip(events.len().saturating_sub(30));
    let latest = latest
        .map(|event| format!("{} x{} {} {}: {}", event.last, event.count, event.object, event.reason, event.message));
    statuses.chain(latest).collect()
}
