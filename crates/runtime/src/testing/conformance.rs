//! The suite that every backend must pass: the rules in the documentation of [`Runtime`], as cases.
//!
//! # Layout
//! - [`run`], [`Options`], [`Transcript`]: the interface for backends' tests and `stanchion backend check`.
//! - `image`: an image built from this node's own programs.
//! - `kit`, `io`: tools for the cases. Every case has its own pod identity, and the suite cleans up after each.
//! - `images`, `sandboxes`, `sharing`, `users`, `containers`, `starting`, `stopping`, `environment`, `security`,
//!   `exec`, `logs`, `events`, `abandoned`: the cases.
//!
//! The image must have a `sh` with the commands of busybox, in `/bin`. The suite needs nothing else in it.

mod abandoned;
mod containers;
mod environment;
mod events;
mod exec;
mod image;
mod images;
mod io;
mod kit;
mod logs;
mod sandboxes;
mod security;
mod sharing;
mod starting;
mod stopping;
mod transcript;
mod users;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use self::kit::Kit;
use crate::{RegistryAuth, Runtime};

pub use self::transcript::{Case, Transcript, Verdict};

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Full reference of an image with a busybox-like `sh`.
    pub image: String,
    /// Source of the image.
    pub source: ImageSource,
    /// Absolute path of a directory on the node for log files and mounts. It exists, only the suite uses it, and the
    /// suite can read the files that the runtime's containers write there.
    pub dir: PathBuf,
    /// Time limit of one case; a case that exceeds it counts as hanging.
    pub patience: Duration,
    /// Prefix of the names of the cases to run; `None` runs all.
    pub only: Option<String>,
    /// Callback after each case, with its duration.
    pub on_case: Option<fn(&Case, Duration)>,
}

/// Source of the image.
#[derive(Clone, Debug)]
pub enum ImageSource {
    /// The image is present already, and stays.
    Present,
    /// The suite pulls the image; the cases about pulling run too.
    Pull {
        /// Credentials, if the registry requires some.
        auth: Option<RegistryAuth>,
    },
    /// The suite imports the image from this archive; the cases about importing run too.
    Import {
        /// Path of the archive.
        archive: PathBuf,
    },
}

impl Options {
    /// Returns options for an image that is pulled without credentials; a case may take a minute.
    pub fn pulling(image: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        let (image, source) = (image.into(), ImageSource::Pull { auth: None });
        Self { image, source, dir: dir.into(), patience: Duration::from_secs(60), only: None, on_case: None }
    }

    /// Builds an image from this node's own shell, so that the suite needs no registry, and returns options for it;
    /// `dir` is [`Options::dir`].
    ///
    /// # Errors
    /// One of the few programs is missing on this node, or the archive cannot be written to `dir`.
    pub fn making_the_image(dir: &Path) -> std::io::Result<Self> {
        let archive = dir.join("image.tar");
        image::archive(&archive)?;
        let options = Self::pulling(image::REFERENCE, dir);
        Ok(Self { source: ImageSource::Import { archive }, ..options })
    }
}

/// Runs each case with its own kit, and records its outcome.
macro_rules! suite {
    ($runtime:ident, $options:ident, $transcript:ident; $($name:literal => $case:path,)*) => {$(
        if $options.only.as_deref().is_none_or(|only| $name.starts_with(only)) {
            let start = Instant::now();
            let kit = Kit::new($runtime, $options, $name);
            let outcome = kit.within(Box::pin($case(&kit))).await;
            let outcome = kit.clean_up(outcome).await;
            $transcript.add($name, outcome, start.elapsed());
            if let (Some(on_case), Some(case)) = ($options.on_case, $transcript.cases.last()) {
                on_case(case, start.elapsed());
            }
        }
    )*};
}

/// Runs every case against `runtime`, one after the other.
///
/// Leaves nothing behind if the backend keeps the contract, and keeps the image only if it was present before. Needs a
/// tokio runtime with I/O and time enabled.
pub async fn run(runtime: &impl Runtime, options: &Options) -> Transcript {
    let mut transcript = Transcript::default();
    let image_was_there = images::is_there(runtime, &options.image).await;
    if let ImageSource::Pull { .. } = options.source {
        suite! { runtime, options, transcript;
            "images.pull" => images::pull,
            "images.pull_again" => images::pull_again,
            "images.pull_absent" => images::pull_absent,
            "images.pull_malformed" => images::pull_malformed,
        }
    }
    if let ImageSource::Import { .. } = options.source {
        suite! { runtime, options, transcript;
            "images.import" => images::import,
            "images.import_again" => images::import_again,
        }
    }
    // With `only`, no case may have provided the image yet. If this fails, every case reports it.
    images::provide(&Kit::new(runtime, options, "images.provide")).await.ok();
    suite! { runtime, options, transcript;
        "version" => images::version,
        "images.import_absent" => images::import_absent,
        "images.inspect" => images::inspect,
        "images.remove_absent" => images::remove_absent,
        "images.store" => images::store,
        "images.in_use" => images::in_use,
        "sandbox.create" => sandboxes::create,
        "sandbox.create_twice" => sandboxes::create_twice,
        "sandbox.next_attempt" => sandboxes::next_attempt,
        "sandbox.addresses_differ" => sandboxes::addresses_differ,
        "sandbox.list_pod" => sandboxes::list_pod,
        "sandbox.host_network" => sandboxes::host_network,
        "sandbox.stop" => sandboxes::stop,
        "sandbox.stop_absent" => sandboxes::stop_absent,
        "sandbox.remove" => sandboxes::remove,
        "sandbox.remove_leaves_others" => sandboxes::remove_leaves_others,
        "sandbox.identity_is_free_after_remove" => sandboxes::identity_is_free_after_remove,
        "sharing.processes_apart" => sharing::processes_apart,
        "sharing.processes_of_pod" => sharing::processes_of_pod,
        "sharing.processes_of_node" => sharing::processes_of_node,
        "sharing.ipc_of_pod" => sharing::ipc_of_pod,
        "sharing.ipc_of_node" => sharing::ipc_of_node,
        "sharing.sysctls" => sharing::sysctls,
        "users.own" => users::own,
        "users.files" => users::files,
        "users.image_mount" => users::image_mount,
        "users.sysctls" => users::sysctls,
        "users.processes_of_pod" => users::processes_of_pod,
        "container.create" => containers::create,
        "container.create_twice" => containers::create_twice,
        "container.create_twice_after_exit" => containers::create_twice_after_exit,
        "container.create_without_image" => containers::create_without_image,
        "container.create_in_absent_sandbox" => containers::create_in_absent_sandbox,
        "container.create_in_stopped_sandbox" => containers::create_in_stopped_sandbox,
        "container.next_attempt" => containers::next_attempt,
        "container.remove" => containers::remove,
        "container.remove_absent" => containers::remove_absent,
        "container.start" => starting::start,
        "container.start_running" => starting::start_running,
        "container.start_exited" => starting::start_exited,
        "container.start_absent" => starting::start_absent,
        "container.start_impossible" => starting::start_impossible,
        "container.exit_code" => starting::exit_code,
        "container.out_of_memory" => starting::out_of_memory,
        "container.stats" => starting::stats,
        "container.disk_usage" => starting::disk_usage,
        "container.stop_signal" => stopping::signal,
        "container.stop_grace" => stopping::grace,
        "container.stop_at_once" => stopping::at_once,
        "container.stop_created" => stopping::created,
        "container.stop_exited" => stopping::exited,
        "container.stop_absent" => stopping::absent,
        "environment.command_and_args" => environment::command_and_args,
        "environment.variables" => environment::variables,
        "environment.working_dir" => environment::working_dir,
        "environment.hostname" => environment::hostname,
        "environment.terminal" => environment::terminal,
        "environment.input" => environment::input,
        "environment.mounts" => environment::mounts,
        "environment.read_only_mount" => environment::read_only_mount,
        "environment.image_mount" => environment::image_mount,
        "environment.image_mount_absent" => environment::image_mount_absent,
        "environment.fresh_files" => environment::fresh_files,
        "security.usual" => security::usual,
        "security.user" => security::user,
        "security.groups" => security::groups,
        "security.capabilities" => security::capabilities,
        "security.all_capabilities" => security::all_capabilities,
        "security.privileged" => security::privileged,
        "security.no_new_privileges" => security::no_new_privileges,
        "security.read_only_root" => security::read_only_root,
        "security.masked_proc" => security::masked_proc,
        "security.seccomp" => security::seccomp,
        "security.seccomp_absent" => security::seccomp_absent,
        "security.oom_score_adj" => security::oom_score_adj,
        "exec.output" => exec::output,
        "exec.exit_code" => exec::exit_code,
        "exec.input" => exec::input,
        "exec.no_input" => exec::no_input,
        "exec.output_discarded" => exec::output_discarded,
        "exec.environment" => exec::environment,
        "exec.terminal" => exec::terminal,
        "exec.resize" => exec::resize,
        "exec.no_such_program" => exec::no_such_program,
        "exec.in_exited" => exec::in_exited,
        "exec.in_absent" => exec::in_absent,
        "exec.ends_with_container" => exec::ends_with_container,
        "logs.lines" => logs::lines,
        "logs.long_line" => logs::long_line,
        "logs.stay" => logs::stay,
        "events.resync_first" => events::resync_first,
        "events.exit" => events::exit,
        "events.two_subscribers" => events::two_subscribers,
        "abandoned.create_sandbox" => abandoned::create_sandbox,
        "abandoned.container" => abandoned::container,
    }
    if !matches!(options.source, ImageSource::Present) {
        suite! { runtime, options, transcript;
            "images.remove" => images::remove,
            "images.remove_unused" => images::remove_unused,
        }
        if !image_was_there {
            // If this fails, so did the case before.
            runtime.remove_image(options.image.clone()).await.ok();
        }
    }
    transcript
}
