//! Reasons: the single words of statuses, conditions and events.

use std::{fmt, sync::Arc};

/// Declares [`Reason`] and the words that users see.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Reason for the state of a pod or a container. Decisions branch on it. Users see its word, which is
        /// Kubernetes' own where Kubernetes has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Returns the word that users see.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    // Images.
    /// The image could not be fetched.
    ErrImagePull = "ErrImagePull",
    /// The agent waits before it fetches the image again.
    ImagePullBackOff = "ImagePullBackOff",
    /// The runtime cannot say whether the image is there.
    ImageInspectError = "ImageInspectError",
    /// The image reference is not valid.
    InvalidImageName = "InvalidImageName",
    /// The image is not present, and `imagePullPolicy: Never` forbids fetching it.
    ErrImageNeverPull = "ErrImageNeverPull",

    // Containers that have not started.
    /// Nothing has happened yet.
    ContainerCreating = "ContainerCreating",
    /// The volumes are not ready.
    NotMounted = "ContainerCreating",
    /// The sandbox could not be made.
    NoSandbox = "ContainerCreating",
    /// Init containers come first.
    PodInitializing = "PodInitializing",
    /// The container's configuration cannot be made, e.g. because a ConfigMap is missing.
    CreateContainerConfigError = "CreateContainerConfigError",
    /// The runtime cannot create the container.
    CreateContainerError = "CreateContainerError",
    /// The runtime cannot start the container.
    RunContainerError = "RunContainerError",
    /// The `postStart` hook failed.
    PostStartHookError = "PostStartHookError",
    /// The container waits for its restart.
    CrashLoopBackOff = "CrashLoopBackOff",

    // Containers that have ended.
    /// Exit code 0.
    Completed = "Completed",
    /// Another exit code.
    Error = "Error",
    /// The container was created and could not be started.
    StartError = "StartError",
    /// The kernel's OOM killer killed a process.
    OomKilled = "OOMKilled",
    /// The runtime cannot tell how the container ended.
    ContainerStatusUnknown = "ContainerStatusUnknown",
    /// The container is removed by `RestartAllContainers`.
    RestartingAllContainers = "RestartingAllContainers",

    // Pods that have ended.
    /// The pod has exceeded a disk limit.
    Evicted = "Evicted",
    /// The pod is past its `activeDeadlineSeconds`.
    DeadlineExceeded = "DeadlineExceeded",
    /// The node shuts down.
    Terminated = "Terminated",

    // Pods that the node rejects.
    /// The pod needs AppArmor, which the node does not have.
    AppArmor = "AppArmor",
    /// The pod sets SELinux options, and the node has no SELinux.
    SeLinux = "SELinux",
    /// The pod sets a sysctl that is neither safe nor allowed.
    SysctlForbidden = "SysctlForbidden",
    /// The node's policy forbids the pod.
    PolicyViolation = "PolicyViolation",
    /// Another pod has the host port.
    NodePorts = "NodePorts",
    /// The node runs `max_pods` pods already.
    OutOfPods = "OutOfpods",
    /// The requests for CPU do not fit.
    OutOfCpu = "OutOfcpu",
    /// The requests for memory do not fit.
    OutOfMemory = "OutOfmemory",
    /// The requests for ephemeral storage do not fit.
    OutOfEphemeralStorage = "OutOfephemeral-storage",
    /// The requests for huge pages of 2 MiB do not fit.
    OutOfHugepages2Mi = "OutOfhugepages-2Mi",
    /// The requests for huge pages of 1 GiB do not fit.
    OutOfHugepages1Gi = "OutOfhugepages-1Gi",
    /// The requests for huge pages of another size do not fit.
    OutOfHugepages = "OutOfhugepages",

    // Pods for which nothing can be done now.
    /// Processes of the pod run that no backend knows.
    ProcessesLeft = "ProcessesLeft",
    /// The configuration has no backend for the `runtimeClassName`.
    RuntimeClassUnknown = "RuntimeClassUnknown",
    /// The backend, or one where the pod may still run, cannot be observed.
    BackendUnavailable = "BackendUnavailable",

    // Manifests that are not in force.
    /// The newest content of the file is not valid.
    ManifestInvalid = "ManifestInvalid",
    /// An object that the pod refers to is missing.
    ObjectMissing = "ObjectMissing",
    /// The new revision is being prepared.
    Updating = "Updating",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason.
    pub reason: Reason,
    /// The message, a sentence for users.
    pub message: Arc<str>,
}

impl Explanation {
    /// Makes a reason with its message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Arc<str>>) -> Self {
        Self { reason, message: message.into() }
    }
}
