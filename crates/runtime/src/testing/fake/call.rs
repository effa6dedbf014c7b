//! Recorded calls.

use std::{fmt, time::Duration};

use crate::{
    ContainerConfig, ContainerId, ExecId, ExecRequest, ImportImages, PullImage, SandboxConfig, SandboxId, TerminalSize,
    UnusedImage,
};

/// A method of [`Runtime`](crate::Runtime).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    Version,
    PullImage,
    ListImages,
    InspectImage,
    RemoveImage,
    RemoveUnusedImage,
    ImageStore,
    ImportImages,
    CreateSandbox,
    StopSandbox,
    RemoveSandbox,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    List,
    Stats,
    DiskUsage,
    Exec,
    ResizeExec,
    Logs,
    Events,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 22] = [
        Self::Version,
        Self::PullImage,
        Self::ListImages,
        Self::InspectImage,
        Self::RemoveImage,
        Self::RemoveUnusedImage,
        Self::ImageStore,
        Self::ImportImages,
        Self::CreateSandbox,
        Self::StopSandbox,
        Self::RemoveSandbox,
        Self::CreateContainer,
        Self::StartContainer,
        Self::StopContainer,
        Self::RemoveContainer,
        Self::List,
        Self::Stats,
        Self::DiskUsage,
        Self::Exec,
        Self::ResizeExec,
        Self::Logs,
        Self::Events,
    ];

    /// Methods that the agent calls for pods and depends on.
    pub const OF_PODS: [Self; 11] = [
        Self::CreateSandbox,
        Self::StopSandbox,
        Self::RemoveSandbox,
        Self::CreateContainer,
        Self::StartContainer,
        Self::StopContainer,
        Self::RemoveContainer,
        Self::PullImage,
        Self::ListImages,
        Self::List,
        Self::Exec,
    ];

    /// Returns the method's name in the trait.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::PullImage => "pull_image",
            Self::ListImages => "list_images",
            Self::InspectImage => "inspect_image",
            Self::RemoveImage => "remove_image",
            Self::RemoveUnusedImage => "remove_unused_image",
            Self::ImageStore => "image_store",
            Self::ImportImages => "import_images",
            Self::CreateSandbox => "create_sandbox",
            Self::StopSandbox => "stop_sandbox",
            Self::RemoveSandbox => "remove_sandbox",
            Self::CreateContainer => "create_container",
            Self::StartContainer => "start_container",
            Self::StopContainer => "stop_container",
            Self::RemoveContainer => "remove_container",
            Self::List => "list",
            Self::Stats => "stats",
            Self::DiskUsage => "disk_usage",
            Self::Exec => "exec",
            Self::ResizeExec => "resize_exec",
            Self::Logs => "logs",
            Self::Events => "events",
        }
    }

    /// Returns whether the method changes no sandbox, container or image.
    #[must_use]
    pub const fn only_reads(self) -> bool {
        matches!(
            self,
            Self::Version
                | Self::ListImages
                | Self::InspectImage
                | Self::ImageStore
                | Self::List
                | Self::Stats
                | Self::DiskUsage
                | Self::Logs
                | Self::Events
                | Self::ResizeExec
        )
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One call with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a call of the method of that name, with its arguments")]
#[expect(clippy::large_enum_variant, reason = "a test holds few of them")]
pub enum Call {
    Version,
    PullImage(PullImage),
    ListImages,
    InspectImage(String),
    RemoveImage(String),
    RemoveUnusedImage(UnusedImage),
    ImageStore,
    ImportImages(ImportImages),
    CreateSandbox(SandboxConfig),
    StopSandbox(SandboxId),
    RemoveSandbox(SandboxId),
    CreateContainer(ContainerConfig),
    StartContainer(ContainerId),
    StopContainer(ContainerId, Duration),
    RemoveContainer(ContainerId),
    List,
    Stats,
    DiskUsage(ContainerId),
    Exec(ExecRequest),
    ResizeExec(ExecId, TerminalSize),
    Logs(ContainerId),
    Events,
}

impl Call {
    /// Returns the method of this call.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Version => Method::Version,
            Self::PullImage(_) => Method::PullImage,
            Self::ListImages => Method::ListImages,
            Self::InspectImage(_) => Method::InspectImage,
            Self::RemoveImage(_) => Method::RemoveImage,
            Self::RemoveUnusedImage(_) => Method::RemoveUnusedImage,
            Self::ImageStore => Method::ImageStore,
            Self::ImportImages(_) => Method::ImportImages,
            Self::CreateSandbox(_) => Method::CreateSandbox,
            Self::StopSandbox(_) => Method::StopSandbox,
            Self::RemoveSandbox(_) => Method::RemoveSandbox,
            Self::CreateContainer(_) => Method::CreateContainer,
            Self::StartContainer(_) => Method::StartContainer,
            Self::StopContainer(..) => Method::StopContainer,
            Self::RemoveContainer(_) => Method::RemoveContainer,
            Self::List => Method::List,
            Self::Stats => Method::Stats,
            Self::DiskUsage(_) => Method::DiskUsage,
            Self::Exec(_) => Method::Exec,
            Self::ResizeExec(..) => Method::ResizeExec,
            Self::Logs(_) => Method::Logs,
            Self::Events => Method::Events,
        }
    }
}
