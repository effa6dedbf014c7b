//! The trait that every backend implements.

use std::{future::Future, os::fd::OwnedFd, time::Duration};

use futures_util::Stream;

use crate::{
    ContainerConfig, ContainerId, DiskUsage, Error, Event, ExecId, ExecRequest, ExecStdio, ExitStatus, Health, Image,
    ImageDetails, ImageStore, ImportImages, Inventory, PodName, Progress, PullImage, Result, SandboxConfig, SandboxId,
    SandboxInfo, Stats, TerminalSize, UnusedImage, Version,
};

/// A container runtime: the verbs of CRI on plain data.
///
/// Authors write plain `async fn`. Rules that hold for every method:
///
/// - **Truth is [`list`](Runtime::list).** The agent lists, acts once, and lists again; it remembers no answer of a
///   method beyond the next list.
/// - **Cancellation.** When the agent gives up, it drops the future at its next await. At every await, a mutating
///   method must be in a state that `list` can report and that the remove methods can clean up.
/// - **Idempotence.** Stopping a stopped object and removing an absent one succeed. Creating an object that exists
///   under the same identity (pod uid, container name, attempt) fails with
///   [`AlreadyExists`](crate::ErrorKind::AlreadyExists) and leaves the existing one alone; so no restart of the agent
///   can double anything.
/// - **Ownership.** A backend lists and touches only objects with Stanchion's labels.
/// - **Minimum.** A backend that implements the methods without a default body can run pods; `pull_image` or
///   `import_images` brings images. A method that it leaves out keeps its default here; most of these answer
///   [`Unsupported`](crate::ErrorKind::Unsupported).
/// - **Unreachable runtime.** Answer [`Unavailable`](crate::ErrorKind::Unavailable) quickly; the agent backs off and
///   asks again. A backend must not touch running containers because the runtime went away and came back.
pub trait Runtime: Send + Sync + 'static {
    /// Returns name, version and capabilities of the runtime behind this backend.
    fn version(&self) -> impl Future<Output = Result<Version>> + Send;

    /// Returns the runtime's health, also during an outage: the backend's explanation, and the treatment of pods
    /// meanwhile. The agent calls it after every full `list`, so it must be cheap and not wait for the runtime.
    fn health(&self) -> impl Future<Output = Result<Health>> + Send {
        async { Ok(Health::default()) }
    }

    /// Pulls an image from its registry, whether or not it is present, and makes it ready to run. Reports to `progress`
    /// meanwhile. Errors: `NotFound` (no such image), `Permission` (credentials), `Unavailable` (registry unreachable
    /// or busy, with `retry_after`), `Invalid` (reference, digest or format).
    fn pull_image(&self, request: PullImage, progress: Progress) -> impl Future<Output = Result<Image>> + Send {
        drop(progress);
        let error = Error::unsupported(format!("pulling image {}", request.reference));
        async { Err(error) }
    }

    /// Lists the images that are present and ready to run.
    fn list_images(&self) -> impl Future<Output = Result<Vec<Image>>> + Send;

    /// Returns the parts of a present image's configuration that the agent needs. Errors: `NotFound`.
    fn inspect_image(&self, reference: String) -> impl Future<Output = Result<ImageDetails>> + Send {
        let error = Error::unsupported(format!("inspecting image {reference}"));
        async { Err(error) }
    }

    /// Removes an image's reference; its layers go when nothing else uses them.
    fn remove_image(&self, reference: String) -> impl Future<Output = Result<()>> + Send {
        let error = Error::unsupported(format!("removing image {reference}"));
        async { Err(error) }
    }

    /// Removes an image and the layers that nothing else uses, and returns when both are gone. An absent image is no
    /// error. Errors: `Conflict` if any container, Stanchion's or not, uses or mounts the image, or if the reference
    /// now has another digest; in both cases nothing is removed.
    fn remove_unused_image(&self, image: UnusedImage) -> impl Future<Output = Result<()>> + Send {
        let error = Error::unsupported(format!("removing image {} if it is unused", image.reference));
        async { Err(error) }
    }

    /// Returns the directory of the image store, its free space and the images in use.
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

    /// Kills all containers in the sandbox and releases network and host ports. The record stays until removed.
    fn stop_sandbox(&self, id: SandboxId) -> impl Future<Output = Result<()>> + Send;

    /// Removes the sandbox with its containers. Afterwards nothing of the pod remains in the runtime: task, snapshot,
    /// namespace, address, port rule, mount, cgroup (invariant I6).
    fn remove_sandbox(&self, id: SandboxId) -> impl Future<Output = Result<()>> + Send;

    /// Prepares a container in a running sandbox, without starting it. Its image and the images that it mounts must be
    /// present.
    fn create_container(&self, config: ContainerConfig) -> impl Future<Output = Result<ContainerId>> + Send;

    /// Starts a created container. A container starts only once; a restart is a new container with the next attempt.
    fn start_container(&self, id: ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Sends the image's stop signal (default `SIGTERM`), waits at most `grace`, then sends `SIGKILL`, and returns when
    /// the container has exited. A `grace` of zero kills at once.
    fn stop_container(&self, id: ContainerId, grace: Duration) -> impl Future<Output = Result<()>> + Send;

    /// Removes a container and its files, killing it first if it runs. Its log files belong to the agent and stay.
    fn remove_container(&self, id: ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Lists all of Stanchion's sandboxes and containers, in one pass that misses none that existed throughout.
    fn list(&self) -> impl Future<Output = Result<Inventory>> + Send;

    /// Returns the part of [`list`](Runtime::list) that belongs to one pod, all incarnations included. The agent calls
    /// it after every step for a pod, so a runtime that can find a pod without a full listing should implement it.
    fn list_pod(&self, pod: PodName) -> impl Future<Output = Result<Inventory>> + Send {
        async move { Ok(self.list().await?.of_pod(&pod)) }
    }

    /// Returns the resource use of all running containers.
    fn stats(&self) -> impl Future<Output = Result<Stats>> + Send {
        let error = Error::unsupported("telling what containers use");
        async { Err(error) }
    }

    /// Returns the disk usage of a container's own files; zero before its start. Because a runtime may have to scan all
    /// of them, the agent asks only now and then, for pods with a limit of ephemeral storage. Errors: `NotFound`.
    fn disk_usage(&self, id: ContainerId) -> impl Future<Output = Result<DiskUsage>> + Send {
        let error = Error::unsupported(format!("telling what the files of container {id} take"));
        async { Err(error) }
    }

    /// Runs a process in a running container and returns when it has exited. With a terminal, `stdio.stderr` is unused.
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

    /// Copies all stored output of a container into `sink`, as CRI log lines. Only for backends without
    /// [`Capabilities::log_files`](crate::Capabilities::log_files); the others have written the file at `log_path`.
    fn logs(&self, id: ContainerId, sink: OwnedFd) -> impl Future<Output = Result<()>> + Send {
        drop(sink);
        let error = Error::unsupported(format!("reading the output of container {id}"));
        async { Err(error) }
    }

    /// Streams the runtime's events from now on. Events are hints to look sooner: the backend may miss or repeat some,
    /// and [`EventKind::Resync`](crate::EventKind::Resync) says that it may have missed some. The first item is
    /// `Resync`, sent once the subscription is in force. The stream ends with an error when the runtime goes away; the
    /// agent then subscribes again.
    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static;
}
