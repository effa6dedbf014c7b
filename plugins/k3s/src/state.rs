//! States of K3s on a node, for people.

use stanchion_containerd::SEPARATOR;
use stanchion_sdk::runtime::Health;

use crate::layout::Layout;

/// State of K3s, judged by socket and process, not by its unit: on an agent that looks for its server, the unit is
/// active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// K3s's containerd answers.
    Up,
    /// K3s runs, and has not started its containerd: it does so once it has reached a server.
    ProcessNoServer,
    /// K3s is installed and does not run.
    Stopped,
    /// K3s is not on this node, or has never run.
    Absent,
}

impl State {
    /// Returns the state of a K3s whose containerd does not answer.
    pub fn without_containerd(layout: &Layout) -> Self {
        match () {
            () if layout.has_process() => Self::ProcessNoServer,
            () if layout.is_there() => Self::Stopped,
            () => Self::Absent,
        }
    }

    /// Returns the state's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "k3s-up",
            Self::ProcessNoServer => "k3s-process-no-server",
            Self::Stopped => "k3s-stopped",
            Self::Absent => "k3s-absent",
        }
    }

    /// Returns the state and the way out of it; `pods` is the sentence about the pods.
    pub fn health(self, layout: &Layout, pods: &str) -> Health {
        let (data, socket) = (layout.data().display(), layout.socket().display());
        let message = match self {
            Self::Up => format!("K3s's containerd answers at {socket}"),
            Self::ProcessNoServer => format!(
                "K3s runs, but its containerd does not answer at {socket}: since its start it has reached no server; look \
                 at `journalctl -u k3s-agent -u k3s`"
            ),
            Self::Stopped => format!(
                "K3s is installed in {data} and does not run: `systemctl start k3s-agent`, or `k3s` on a server"
            ),
            Self::Absent => format!("K3s is not in {data}, or has never run: set data_dir, or start it once"),
        };
        let message = if pods.is_empty() { message } else { format!("{message}. {pods}") };
        Health { state: self.name().to_owned(), message, failover: None }
    }

    /// Puts faults of the pods' networks before the state of K3s, because only one state can be shown; `k3s-up` is then
    /// left out. Both containerds use one bridge, so what both of them report appears once.
    pub fn with_networks(self, health: Health, networks: &[Health]) -> Health {
        let Some(first) = networks.first() else { return health };
        let mut messages: Vec<&str> = Vec::new();
        for message in networks.iter().flat_map(|network| network.message.split(SEPARATOR)) {
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        let k3s = format!("{}: {}", health.state, health.message);
        messages.extend(Some(k3s.as_str()).filter(|_| self != Self::Up));
        Health { state: first.state.clone(), message: messages.join(SEPARATOR), ..health }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use stanchion_sdk::runtime::Health;

    use super::State;
    use crate::layout::{Layout, SOCKET};

    #[test]
    fn the_networks_of_both_places_are_told_and_what_both_say_once() {
        let network = |message: &str| Health {
            state: "network-obstructed".to_owned(),
            message: message.to_owned(),
            failover: None,
        };
        let layout = Layout::find(None, Path::new(SOCKET));
        let told = |state: State, networks: &[Health]| {
            let health = state.with_networks(state.health(&layout, ""), networks);
            (health.state, health.message)
        };
        assert_eq!(told(State::Up, &[]).0, "k3s-up");
        let (state, message) = told(State::Up, &[network("a drops | b drops"), network("b drops | c drops")]);
        assert_eq!((&*state, &*message), ("network-obstructed", "a drops | b drops | c drops"));
        let (state, message) = told(State::Stopped, &[network("a drops")]);
        assert_eq!(state, "network-obstructed");
        assert!(message.starts_with("a drops | k3s-stopped: K3s is installed in "), "{message}");
    }
}
