//! The trait that every backend implements.

use std::{future::Future, os::fd::OwnedFd, time::Duration};

use futures_util::Stream;

use crate::{
    ContainerConfig, ContainerId, DiskUsage, Error, Event, ExecId, ExecRequest, ExecStdio, ExitStatus, Health, Image,
    ImageDetails, ImageStore, ImportImages, Inventory, PodName, Progress, PullImage, Result, SandboxConfig, SandboxId,
    SandboxInfo, Stats, TerminalSize, UnusedImage, Version,
};

/// A container runtime, seen as verbs on plain data.
///
/// Authors write plain `async fn`. Rules that hold for every method:
///
/// - **Truth is [`list`](Runtime::list).** The agent looks, acts once, and looks again; nothing that a method answers is
///   remembered beyond the next look.
/// - **Cancellation.** When the agent gives up, the future is dropped at its next await. A mutating method must at every
///   await be in a state that `list` can report and that the remove methods can clean up.
/// - **Idempotence.** Stopping what has stopped and removing what is gone succeed. Creating what exists under the same
///   identity (pod uid, container name, attempt) fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) and leaves
///   the existing one alone; so no restart of the agent can double anything.
/// - **Ownership.** Only what carries Stanchion's labels is listed and touched.
/// - **Minimum.** Pods run on a backend that has the methods without a body here, and images by `pull_image` or
///   `import_images`; whatever else it leaves out answers [`Unsupported`](crate::ErrorKind::Unsupported).
/// - **Unreachable runtime.** Answer [`Unavailable`](crate::ErrorKind::Unavailable) quickly; the agent backs off and
///   asks again. Nothing that runs may be touched because the runtime went away and came back.
pub trait Runtime: Send + Sync + 'static {
    /// Name, version and capabilities of the runtime behind this backend.
    fn version(&self) -> impl Future<Output = Result<Version>> + Send;

    /// How the runtime is, answered also while it is away: what the backend knows of the reason, and what is to become of
    /// the pods meanwhile. Asked after every look at everything; it costs next to nothing and does not wait for the runtime.
    fn health(&self) -> impl Future<Output = Result<Health>> + Send {
        async { Ok(Health::default()) }
    }

    /// Pulls an image from its registry, whether or not it is present, and makes it ready to run. Reports to `progress`
    /// as it goes. Errors: `NotFound` (no such image), `Permission` (credentials), `Unavailable` (registry unreachable
    /// or busy, with `retry_after`), `Invalid` (reference, digest or format).
    fn pull_image(&self, request: PullImage, progress: Progress) -> impl Future<Output = Result<Image>> + Send {
        drop(progress);
        let error = Error::unsupported(format!("pulling image {}", request.reference));
        async { Err(error) }
    }

    /// Images that are present and ready to run.
    fn list_images(&self) -> impl Future<Output = Result<Vec<Image>>> + Send;

    /// What an image that is present says about running it. Errors: `NotFound`.
    fn inspect_image(&self, reference: String) -> impl Future<Output = Result<ImageDetails>> + Send {
        let error = Error::unsupported(format!("inspecting image {reference}"));
        async { Err(error) }
    }

    /// Forgets an image by reference; its layers go when nothing else uses them.
    fn remove_image(&self, reference: String) -> impl Future<Output = Result<()>> + Send {
        let error = Error::unsupported(format!("removing image {reference}"));
        async { Err(error) }
    }

    /// Removes an image by reference, with its layers as far as nothing else uses them, before it answers. One that is gone is
    /// fine. Errors: `Conflict` if a container, whoever's, is made of it or has it mounted, or if the reference stands for another
    /// image by now; nothing is removed then.
    fn remove_unused_image(&self, image: UnusedImage) -> impl Future<Output = Result<()>> + Send {
        let error = Error::unsupported(format!("removing image {} if it is unused", image.reference));
        async { Err(error) }
    }

    /// Where images are kept, how full that is, and which of them are in use.
    fn image_store(&self) -> impl Future<Output = Result<ImageStore>> + Send {
        let error = Error::unsupported("telling where images are kept");
        async { Err(error) }
    }

    /// Imports every image of a docker-archive or OCI tar on this node, optionally compressed with gzip or zstd.
    fn import_images(&self, request: ImportImages) -> impl Future<Output = Result<Vec<Image>>> + Send {
        let error = Error::unsupported(format!("importing {}", request.path.display()));
        async { Err(error) }
    }

    /// Creates and starts a pod's sandbox: its network, other shared namespaces and parent cgroup.
    fn create_sandbox(&self, config: SandboxConfig) -> impl Future<Output = Result<SandboxInfo>> + Send;

    /// Kills whatever still runs in the sandbox and releases network and host ports. The record stays until removed.
    fn stop_sandbox(&self, id: SandboxId) -> impl Future<Output = Result<()>> + Send;

    /// Removes the sandbox and everything of it, containers included. Afterwards nothing of the pod remains in the
    /// runtime: task, snapshot, namespace, address, port rule, mount, cgroup (invariant I6).
    fn remove_sandbox(&self, id: SandboxId) -> impl Future<Output = Result<()>> + Send;

    /// Prepares a container in a running sandbox, without starting it. Its image must be present, and those that it mounts.
    fn create_container(&self, config: ContainerConfig) -> impl Future<Output = Result<ContainerId>> + Send;

    /// Starts a created container. A container starts once in its life; a restart is a new one with the next attempt.
    fn start_container(&self, id: ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Sends the image's stop signal (default `SIGTERM`), waits at most `grace`, then sends `SIGKILL`, and returns when
    /// the container has exited. A `grace` of zero kills at once.
    fn stop_container(&self, id: ContainerId, grace: Duration) -> impl Future<Output = Result<()>> + Send;

    /// Removes a container and its files, killing it first if it runs. Its log files belong to the agent and stay.
    fn remove_container(&self, id: ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Every sandbox and container of ours, in one pass that misses nothing that existed throughout.
    fn list(&self) -> impl Future<Output = Result<Inventory>> + Send;

    /// What [`list`](Runtime::list) would say of one pod, of all its incarnations. The agent asks after every step that it
    /// takes for a pod: a runtime that can find a pod without looking at everything should.
    fn list_pod(&self, pod: PodName) -> impl Future<Output = Result<Inventory>> + Send {
        async move { Ok(self.list().await?.of_pod(&pod)) }
    }

    /// Resource use of all running containers.
    fn stats(&self) -> impl Future<Output = Result<Stats>> + Send {
        let error = Error::unsupported("telling what containers use");
        async { Err(error) }
    }

    /// What a container's own files take of the disk; nothing before it has been started. A runtime may have to look at all of
    /// them for that: the agent asks only for containers of pods with a limit of ephemeral storage, now and then. Errors:
    /// `NotFound`.
    fn disk_usage(&self, id: ContainerId) -> impl Future<Output = Result<DiskUsage>> + Send {
        let error = Error::unsupported(format!("telling what the files of container {id} take"));
        async { Err(error) }
    }

    /// Runs a process in a running container and answers when it has exited. With a terminal, `stdio.stderr` is unused.
    fn exec(&self, request: ExecRequest, stdio: ExecStdio) -> impl Future<Output = Result<ExitStatus>> + Send {
        drop(stdio);
        let error = Error::unsupported(format!("running a program in container {}", request.container));
        async { Err(error) }
    }

    /// Sets the terminal size of a running exec.
    fn resize_exec(&self, id: ExecId, size: TerminalSize) -> impl Future<Output = Result<()>> + Send {
        let error = Error::unsupported(format!("resizing the terminal of {id} to {}×{}", size.width, size.height));
        async { Err(error) }
    }

    /// Copies the output kept for a container into `sink`, as CRI log lines, to its end. Only for backends without
    /// [`Capabilities::log_files`](crate::Capabilities::log_files); the others have written the file at `log_path`.
    fn logs(&self, id: ContainerId, sink: OwnedFd) -> impl Future<Output = Result<()>> + Send {
        drop(sink);
        let error = Error::unsupported(format!("reading the output of container {id}"));
        async { Err(error) }
    }

    /// What happens in the runtime from now on. Events are hints to look sooner: they may be missed or repeated, and
    /// [`EventKind::Resync`](crate::EventKind::Resync) says that some were. The stream ends with an error when the runtime goes away; the agent then
    /// subscribes again. The first item is `Resync`, sent once the subscription is in force.
    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static;
}
