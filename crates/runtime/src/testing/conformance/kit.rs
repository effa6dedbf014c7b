//! Tools for the cases.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Options,
    transcript::{Outcome, Stop},
};
use crate::{
    ContainerConfig, ContainerId, ContainerInfo, ContainerState, Error, ErrorKind, Inventory, Runtime, SandboxConfig,
    SandboxId, SandboxInfo, labels,
};

/// Ends the case as failed unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(crate::testing::conformance::transcript::Stop::Failed(format!($($why)+)));
        }
    };
}
pub(super) use ensure;

/// Script that runs until its stop signal, and then exits with 7.
pub(super) const SERVER: &str = "trap 'exit 7' TERM; sleep 1000 & wait";
/// Script that runs until it is killed.
pub(super) const STUBBORN: &str = "trap '' TERM; sleep 1000";
/// Pause between two lists while the suite waits for a condition.
const LIST_PERIOD: Duration = Duration::from_millis(20);

/// One case's runtime, pod identity and helpers.
pub(super) struct Kit<'a, R> {
    pub(super) runtime: &'a R,
    pub(super) options: &'a Options,
    /// UID of this case's pod; unique to this run of the suite.
    pub(super) uid: String,
    name: String,
    /// Every sandbox created, in case the backend forgets its labels.
    made: Mutex<Vec<SandboxId>>,
}

impl<'a, R: Runtime> Kit<'a, R> {
    pub(super) fn new(runtime: &'a R, options: &'a Options, case: &str) -> Self {
        let name = case.replace(['.', '_'], "-");
        let uid = format!("{name}-{:x}", crate::clock::now().as_nanosecond());
        Self { runtime, options, uid, name, made: Mutex::default() }
    }

    /// Runs a case for at most `Options::patience`.
    pub(super) async fn within(&self, case: impl Future<Output = Outcome>) -> Outcome {
        let patience = self.options.patience;
        timeout(patience, case).await.unwrap_or_else(|_| Err(Stop::Failed(format!("hangs: not over in {patience:?}"))))
    }

    /// Removes everything that the case created. A case that passed fails if the removal fails.
    pub(super) async fn clean_up(&self, outcome: Outcome) -> Outcome {
        let cleaned = self.within(async {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for id in made {
                self.runtime.remove_sandbox(id).await?;
            }
            let left = self.list().await?;
            for container in left.containers {
                self.runtime.remove_container(container.id).await?;
            }
            for sandbox in left.sandboxes {
                self.runtime.remove_sandbox(sandbox.id).await?;
            }
            Ok(())
        });
        match (outcome, cleaned.await) {
            (Ok(()), Err(Stop::Failed(why))) => Err(Stop::Failed(format!("cleaning up after the case: {why}"))),
            (outcome, _) => outcome,
        }
    }

    /// Returns the configuration of the case's pod.
    pub(super) fn pod(&self) -> SandboxConfig {
        SandboxConfig {
            name: self.name.clone(),
            namespace: "conformance".to_owned(),
            uid: self.uid.clone(),
            hostname: "conformance-host".to_owned(),
            cgroup: format!("pod{}", self.uid),
            labels: self.labels([]),
            ..Default::default()
        }
    }

    /// Returns the configuration of a container that runs `script` in `sh`.
    pub(super) fn container(&self, sandbox: &SandboxId, script: &str) -> ContainerConfig {
        let name = "main";
        ContainerConfig {
            sandbox: sandbox.clone(),
            name: name.to_owned(),
            image: self.options.image.clone(),
            command: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            log_path: self.log_path(0),
            labels: self.labels([(labels::CONTAINER_NAME, name)]),
            ..Default::default()
        }
    }

    pub(super) fn log_path(&self, attempt: u32) -> PathBuf {
        self.options.dir.join(format!("{}-{attempt}.log", self.uid))
    }

    fn labels<const N: usize>(&self, more: [(&str, &str); N]) -> BTreeMap<String, String> {
        let pod =
            [(labels::POD_NAME, &*self.name), (labels::POD_NAMESPACE, "conformance"), (labels::POD_UID, &*self.uid)];
        let all = pod.into_iter().chain(more).chain([("stanchion.dev/any", "Text of any kind: ä=1")]);
        all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    pub(super) async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo, Error> {
        let info = self.runtime.create_sandbox(config).await?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(info.id.clone());
        Ok(info)
    }

    /// Creates the case's pod.
    pub(super) async fn sandbox(&self) -> Outcome<SandboxId> {
        Ok(self.create_sandbox(self.pod()).await?.id)
    }

    /// Creates a container from `config` and starts it.
    pub(super) async fn started(&self, config: ContainerConfig) -> Outcome<ContainerId> {
        let id = self.runtime.create_container(config).await?;
        self.runtime.start_container(id.clone()).await?;
        Ok(id)
    }

    /// Creates the pod with one container that runs `script`.
    pub(super) async fn running(&self, script: &str) -> Outcome<(SandboxId, ContainerId)> {
        let sandbox = self.sandbox().await?;
        let id = self.started(self.container(&sandbox, script)).await?;
        Ok((sandbox, id))
    }

    /// Creates a pod with one container and waits until it handles its stop signal.
    pub(super) async fn serving(&self, script: &str) -> Outcome<(SandboxId, ContainerId)> {
        // The script sets its trap before it writes the mark; so once the mark exists, the signal has its effect.
        let marked = script.replacen("; sleep", "; echo up > /mark; sleep", 1);
        let (sandbox, id) = self.running(&marked).await?;
        while self.exec(&id, &["cat", "/mark"]).await?.stdout != "up\n" {
            sleep(LIST_PERIOD).await;
        }
        Ok((sandbox, id))
    }

    /// Waits until container `id` has exited, and returns its exit code.
    pub(super) async fn exit_of(&self, id: &ContainerId) -> Outcome<Option<i32>> {
        loop {
            match self.find(id).await?.state {
                ContainerState::Exited { code, .. } => return Ok(code),
                ContainerState::Running { .. } => sleep(LIST_PERIOD).await,
                other => return Err(Stop::Failed(format!("a started container is {other:?}"))),
            }
        }
    }

    /// Lists the sandboxes and containers of the case's pod.
    pub(super) async fn list(&self) -> Outcome<Inventory> {
        let mut inventory = self.runtime.list().await?;
        let ours = |labels: &BTreeMap<String, String>| labels.get(labels::POD_UID) == Some(&self.uid);
        inventory.sandboxes.retain(|sandbox| ours(&sandbox.labels));
        inventory.containers.retain(|container| ours(&container.labels));
        Ok(inventory)
    }

    /// Returns the one entry of container `id` in the list.
    pub(super) async fn find(&self, id: &ContainerId) -> Outcome<ContainerInfo> {
        let listed = self.list().await?.containers;
        let mut found = listed.into_iter().filter(|container| container.id == *id);
        let (first, second) = (found.next(), found.next());
        ensure!(second.is_none(), "container {id} is listed twice");
        first.ok_or_else(|| Stop::Failed(format!("container {id} is not listed with its labels")))
    }

    /// Returns the one entry of sandbox `id` in the list.
    pub(super) async fn find_sandbox(&self, id: &SandboxId) -> Outcome<SandboxInfo> {
        let listed = self.list().await?.sandboxes;
        let mut found = listed.into_iter().filter(|sandbox| sandbox.id == *id);
        let (first, second) = (found.next(), found.next());
        ensure!(second.is_none(), "sandbox {id} is listed twice");
        first.ok_or_else(|| Stop::Failed(format!("sandbox {id} is not listed with its labels")))
    }

    /// Checks that nothing of the case's pod is listed.
    pub(super) async fn nothing_left(&self) -> Outcome {
        let left = self.list().await?;
        ensure!(left.sandboxes.is_empty(), "sandboxes are left: {:?}", left.sandboxes);
        ensure!(left.containers.is_empty(), "containers are left: {:?}", left.containers);
        Ok(())
    }
}

/// Checks that the answer is an error of one of `kinds`.
pub(super) fn refused<T: Debug>(answer: Result<T, Error>, kinds: &[ErrorKind], what: &str) -> Outcome {
    match answer {
        Ok(answer) => Err(Stop::Failed(format!("{what} answered {answer:?} in place of {kinds:?}"))),
        Err(error) if kinds.contains(&error.kind()) => {
            ensure!(!error.message().is_empty(), "{what} failed without a message");
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(Stop::Unsupported),
        Err(error) => {
            let (kind, chain) = (error.kind(), error.chain());
            Err(Stop::Failed(format!("{what} failed with {kind:?} in place of {kinds:?}: {chain}")))
        }
    }
}
