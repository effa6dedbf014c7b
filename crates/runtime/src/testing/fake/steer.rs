//! Actions of tests on the fake.

use super::{FakeRuntime, lock, shell};
use crate::{
    ContainerId, ContainerInfo, ContainerState, Error, ErrorKind, Health, Inventory, SandboxId, SandboxInfo,
    SandboxState,
};

impl FakeRuntime {
    /// Returns the inventory, without a call of `list`.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        self.shared.read(|state| state.inventory())
    }

    /// Sets the answer of `health`.
    pub fn set_health(&self, health: Health) {
        self.shared.change(|state, _| state.health = health);
    }

    /// Returns the latest container of this name in any pod.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<ContainerInfo> {
        self.shared.read(|state| state.latest(None, name).map(|container| container.info.clone()))
    }

    /// Returns the latest container of this name in the pod that its labels name.
    #[must_use]
    pub fn container_of(&self, pod: &str, name: &str) -> Option<ContainerInfo> {
        self.shared.read(|state| state.latest(Some(pod), name).map(|container| container.info.clone()))
    }

    /// Returns a container's configuration.
    #[must_use]
    pub fn container_config(&self, id: &ContainerId) -> Option<crate::ContainerConfig> {
        self.shared.read(|state| state.containers.get(id).map(|container| container.config.clone()))
    }

    /// Returns a sandbox's configuration.
    #[must_use]
    pub fn sandbox_config(&self, id: &SandboxId) -> Option<crate::SandboxConfig> {
        self.shared.read(|state| state.sandboxes.get(id).map(|sandbox| sandbox.config.clone()))
    }

    /// Returns the ready sandboxes of the pod of this name.
    #[must_use]
    pub fn sandboxes_of(&self, pod: &str) -> Vec<SandboxInfo> {
        self.shared.read(|state| {
            let ready = state.sandboxes.values().filter(|it| it.config.name == pod);
            ready.map(|it| it.info.clone()).filter(|it| it.state == SandboxState::Ready).collect()
        })
    }

    /// Waits until the inventory satisfies `condition`; for ever, if it never does.
    ///
    /// Cancel-safe.
    pub async fn until(&self, condition: impl Fn(&Inventory) -> bool) -> Inventory {
        let mut changes = self.shared.changes.subscribe();
        loop {
            let inventory = self.inventory();
            if condition(&inventory) {
                return inventory;
            }
            // `self.shared` owns the sender, so the channel cannot close.
            changes.changed().await.ok();
        }
    }

    /// Waits until the latest container of this name runs, and returns it.
    ///
    /// Cancel-safe.
    pub async fn until_running(&self, name: &str) -> ContainerInfo {
        let mut changes = self.shared.changes.subscribe();
        loop {
            match self.container(name) {
                Some(container) if matches!(container.state, ContainerState::Running { .. }) => return container,
                _ => changes.changed().await.ok(),
            };
        }
    }

    /// Ends a running container with this code.
    pub fn exit(&self, id: &ContainerId, code: i32) {
        self.shared.change(|state, now| state.end(id, Some(code), false, now));
    }

    /// Ends a running container as the kernel's OOM killer does.
    pub fn oom(&self, id: &ContainerId) {
        self.shared.change(|state, now| state.end(id, Some(137), true, now));
    }

    /// Ends a running container without an exit code, as when its shim is killed.
    pub fn lose_container(&self, id: &ContainerId) {
        self.shared.change(|state, now| state.end(id, None, false, now));
    }

    /// Writes a line to a running container's standard output.
    pub fn print(&self, id: &ContainerId, line: &str) {
        self.shared.write_log(id, shell::Stream::Stdout, format!("{line}\n").as_bytes());
    }

    /// Writes a file to a container's root file system.
    pub fn write(&self, id: &ContainerId, path: &str, content: Vec<u8>) {
        self.shared.change(|state, _| {
            if let Some(container) = state.containers.get_mut(id) {
                container.files.insert(path.into(), content);
            }
        });
    }

    /// Makes a sandbox not ready, as when another program removes its network namespace. Its containers run on.
    pub fn lose_sandbox(&self, id: &SandboxId, reason: &str) {
        self.shared.change(|state, _| state.lose_sandbox(id, reason));
    }

    /// Simulates a reboot: all containers end without exit codes, and records and images stay.
    pub fn reboot(&self) {
        self.shared.change(|state, now| {
            for id in state.containers.keys().cloned().collect::<Vec<_>>() {
                state.end(&id, None, false, now);
            }
            for id in state.sandboxes.keys().cloned().collect::<Vec<_>>() {
                state.lose_sandbox(&id, "the node was restarted");
            }
            state.events.end(&outage());
        });
    }

    /// Simulates the loss of a runtime's storage: its sandboxes and containers are gone with all their processes.
    pub fn wipe(&self) {
        self.shared.change(|state, now| {
            for id in state.sandboxes.keys().cloned().collect::<Vec<_>>() {
                state.remove_sandbox(&id, now);
            }
            for id in state.containers.keys().cloned().collect::<Vec<_>>() {
                state.remove_container(&id, now);
            }
            state.events.end(&outage());
        });
    }

    /// Sets whether the runtime can be reached. During an outage every call but `health` fails with `Unavailable`,
    /// event streams end, and containers run on.
    pub fn set_available(&self, available: bool) {
        self.shared.change(|state, _| {
            state.outage = !available;
            if !available {
                state.events.end(&outage());
            }
        });
    }

    /// Sets whether the fake writes log files at `log_path`, and says so in its capabilities. By default it does not,
    /// and `logs` returns the output.
    pub fn set_log_files(&self, log_files: bool) {
        lock(&self.shared.state).log_files = log_files;
    }

    /// Sets whether the fake supports image mounts, and says so in its capabilities. By default it does.
    pub fn set_image_mounts(&self, image_mounts: bool) {
        lock(&self.shared.state).no_image_mounts = !image_mounts;
    }

    /// Sets whether the fake supports user namespaces, and says so in its capabilities. By default it does.
    pub fn set_user_namespaces(&self, user_namespaces: bool) {
        lock(&self.shared.state).no_user_namespaces = !user_namespaces;
    }
}

pub(super) fn outage() -> Error {
    Error::new(ErrorKind::Unavailable, "the fake runtime cannot be reached")
}
