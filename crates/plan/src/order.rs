//! Start order of containers (R-INIT-1, R-INIT-2, R-INIT-6, R-SYNC-7).

use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxInfo};

use super::{history::History, lifecycle, restart, view::View};

/// Returns the containers to start now, in order: none whose predecessors have not completed.
pub fn next<'a>(pod: &'a Pod, live: &SandboxInfo, view: &View, history: &History) -> Vec<&'a Container> {
    let reached = reached(pod, live, view, history);
    let wants = |container: &&Container| {
        let newest = view.newest(pod, &container.name);
        restart::wants_start(pod, container, newest.as_ref(), history)
    };
    let wants_here = |container: &&Container| {
        let here = view.newest(pod, &container.name).filter(|newest| newest.sandbox.id == live.id);
        restart::wants_start(pod, container, here.as_ref(), history)
    };
    let begun = pod.init_containers.iter().take(reached).filter(|init| init.runs_always());
    let at = pod.init_containers.get(reached);
    let inits = begun.chain(at).filter(wants_here);
    match at {
        Some(_) => inits.collect(),
        None => inits.chain(pod.containers.iter().filter(wants)).collect(),
    }
}

/// Returns whether all init containers have completed, or started if sidecars, in this sandbox.
pub fn is_initialized(pod: &Pod, live: &SandboxInfo, view: &View, history: &History) -> bool {
    reached(pod, live, view, history) == pod.init_containers.len()
}

/// Returns the index of the first init container that has not completed in this sandbox; another sandbox does not count
/// (R-INIT-5). The last one with an instance decides, because earlier ones may have been removed since (R-INIT-4).
fn reached(pod: &Pod, live: &SandboxInfo, view: &View, history: &History) -> usize {
    let inits = &pod.init_containers;
    let here = |container: &Container| newest_in(view, live, &container.name);
    if pod.containers.iter().any(|container| here(container).is_some()) {
        return inits.len();
    }
    let last = inits.iter().enumerate().rev().find_map(|(place, init)| Some((place, init, here(init)?)));
    match last {
        None => 0,
        Some((place, init, newest)) => place + usize::from(is_done(init, newest, history)),
    }
}

fn is_done(init: &Container, newest: &ContainerInfo, history: &History) -> bool {
    match init.runs_always() {
        true => lifecycle::is_started(init, newest, history),
        false => matches!(newest.state, ContainerState::Exited { code: Some(0), .. }),
    }
}

fn newest_in<'a>(view: &'a View, sandbox: &SandboxInfo, name: &str) -> Option<&'a ContainerInfo> {
    view.containers(&sandbox.id).rfind(|container| container.name == name)
}
