//! Tests of the conformance suite itself: FakeRuntime passes it, and every mutant of FakeRuntime fails it.

mod mutant;

use std::{path::Path, time::Duration};

use mutant::{Broken, Mutant};
use stanchion_runtime::testing::{
    FakeRuntime,
    conformance::{self, ImageSource, Options, Transcript, Verdict},
};
use tempfile::TempDir;

const IMAGE: &str = "registry.test/busybox:1";

fn fake() -> FakeRuntime {
    let fake = FakeRuntime::new();
    fake.publish(IMAGE, 2_000_000);
    fake
}

fn options(dir: &Path) -> Options {
    Options { patience: Duration::from_secs(20), ..Options::pulling(IMAGE, dir) }
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn assert_all_passed(transcript: &Transcript) {
    let passed = transcript.cases.iter().all(|case| case.verdict == Verdict::Passed);
    assert!(passed && transcript.cases.len() > 20, "{transcript}");
}

#[tokio::test]
async fn the_fake_passes_with_its_output_kept() {
    let (fake, dir) = (fake(), dir());
    let transcript = conformance::run(&fake, &options(dir.path())).await;
    assert_all_passed(&transcript);
    assert_eq!(fake.inventory(), Default::default(), "the suite leaves nothing behind");
    assert_eq!(fake.violations(), []);
}

#[tokio::test]
async fn the_fake_passes_with_log_files() {
    let (fake, dir) = (fake(), dir());
    fake.set_log_files(true);
    assert_all_passed(&conformance::run(&fake, &options(dir.path())).await);
}

#[tokio::test]
async fn the_fake_passes_with_an_imported_image() {
    let (fake, dir) = (FakeRuntime::new(), dir());
    let archive = dir.path().join("busybox.tar");
    fake.add_archive(&archive, &[IMAGE]);
    let options = Options { source: ImageSource::Import { archive }, ..options(dir.path()) };
    assert_all_passed(&conformance::run(&fake, &options).await);
}

#[tokio::test]
async fn transcripts_of_two_runs_are_equal() {
    let (one, two) = (dir(), dir());
    let (one, two) = tokio::join!(run_on_new_fake(one.path()), run_on_new_fake(two.path()));
    assert_eq!(one, two);
    assert_eq!(one.cases.len(), one.durations.len());
}

async fn run_on_new_fake(dir: &Path) -> Transcript {
    conformance::run(&fake(), &options(dir)).await
}

#[tokio::test]
async fn a_backend_that_supports_nothing_is_unsupported_and_not_failed() {
    let (mutant, dir) = (Mutant::new(fake(), Broken::SupportsNothing), dir());
    let transcript = conformance::run(&mutant, &options(dir.path())).await;
    assert_eq!(transcript.unsupported().len(), transcript.cases.len(), "{transcript}");
}

/// Checks that the named case fails for each mutant.
#[tokio::test]
async fn every_mutant_is_caught() {
    let caught_by = [
        (Broken::SandboxTwice, "sandbox.create_twice"),
        (Broken::SandboxAddressShared, "sandbox.addresses_differ"),
        (Broken::SandboxAddressOnHost, "sandbox.host_network"),
        (Broken::SandboxStopDoesNothing, "sandbox.stop"),
        (Broken::SandboxStopForgets, "sandbox.stop"),
        (Broken::SandboxRemoveLeavesRecord, "sandbox.remove"),
        (Broken::SandboxRemoveTakesAll, "sandbox.remove_leaves_others"),
        (Broken::SandboxOfGoneFails, "sandbox.stop_absent"),
        (Broken::HostnameIgnored, "environment.hostname"),
        (Broken::LabelsLost, "sandbox.create"),
        (Broken::ContainerTwice, "container.create_twice"),
        (Broken::ContainerTwiceReplaces, "container.create_twice_after_exit"),
        (Broken::CreateStarts, "container.create"),
        (Broken::AttemptLost, "container.create"),
        (Broken::ImageNotChecked, "container.create_without_image"),
        (Broken::ListForgetsExited, "container.next_attempt"),
        (Broken::RemoveLeavesRecord, "container.remove"),
        (Broken::RemoveOfGoneFails, "container.remove_absent"),
        (Broken::StartsAgain, "container.start_exited"),
        (Broken::ExitCodeLost, "container.exit_code"),
        (Broken::MemoryLimitIgnored, "container.out_of_memory"),
        (Broken::OomNotTold, "container.out_of_memory"),
        (Broken::StatsEmpty, "container.stats"),
        (Broken::DiskUsageNone, "container.disk_usage"),
        (Broken::StopKillsAtOnce, "container.stop_signal"),
        (Broken::StopNeverKills, "container.stop_grace"),
        (Broken::StopAsksWithoutGrace, "container.stop_at_once"),
        (Broken::StopOfGoneFails, "container.stop_absent"),
        (Broken::ArgsIgnored, "environment.command_and_args"),
        (Broken::EnvironmentIgnored, "environment.variables"),
        (Broken::WorkingDirIgnored, "environment.working_dir"),
        (Broken::MountsIgnored, "environment.mounts"),
        (Broken::ReadOnlyIgnored, "environment.read_only_mount"),
        (Broken::ImageMountsIgnored, "environment.image_mount"),
        (Broken::ImageMountsWhole, "environment.image_mount"),
        (Broken::ImageMountsUnchecked, "environment.image_mount_absent"),
        (Broken::UserIgnored, "security.user"),
        (Broken::GroupsIgnored, "security.groups"),
        (Broken::CapabilitiesIgnored, "security.capabilities"),
        (Broken::CapabilitiesIgnored, "security.all_capabilities"),
        (Broken::PrivilegedIgnored, "security.privileged"),
        (Broken::NoNewPrivilegesIgnored, "security.no_new_privileges"),
        (Broken::ReadOnlyRootIgnored, "security.read_only_root"),
        (Broken::UnmaskedProcIgnored, "security.masked_proc"),
        (Broken::SeccompIgnored, "security.seccomp"),
        (Broken::SeccompIgnored, "security.seccomp_absent"),
        (Broken::SeccompIgnored, "security.usual"),
        (Broken::OomScoreIgnored, "security.oom_score_adj"),
        (Broken::SysctlsIgnored, "sharing.sysctls"),
        (Broken::PidModeIgnored, "sharing.processes_of_pod"),
        (Broken::PidModeIgnored, "sharing.processes_of_node"),
        (Broken::IpcModeIgnored, "sharing.ipc_of_node"),
        (Broken::ImageUserInvented, "images.inspect"),
        (Broken::TerminalIgnored, "environment.terminal"),
        (Broken::InputIgnored, "environment.input"),
        (Broken::ExecSucceedsAlways, "exec.exit_code"),
        (Broken::ExecMergesOutput, "exec.output"),
        (Broken::ExecIgnoresInput, "exec.input"),
        (Broken::ExecKeepsOutputOpen, "exec.output"),
        (Broken::ExecWithoutTerminal, "exec.terminal"),
        (Broken::ResizeOfGoneSucceeds, "exec.resize"),
        (Broken::LogsEmpty, "logs.lines"),
        (Broken::LogsOneStream, "logs.lines"),
        (Broken::EventsWithoutResync, "events.resync_first"),
        (Broken::EventsSilent, "events.exit"),
        (Broken::AbandonedIsHidden, "abandoned.create_sandbox"),
        (Broken::PullSilent, "images.pull"),
        (Broken::PullNotListed, "images.pull"),
        (Broken::PullOfAnythingSucceeds, "images.pull_absent"),
        (Broken::ImageRemoveDoesNothing, "images.remove"),
        (Broken::ImageStoreNowhere, "images.store"),
        (Broken::ImageStoreIdle, "images.in_use"),
        (Broken::UsedImageRemoved, "images.in_use"),
        (Broken::UnusedImageStays, "images.remove_unused"),
        (Broken::UnusedImageUnchecked, "images.remove_unused"),
        (Broken::VersionNameless, "version"),
    ];
    // Boxed, because this many large futures do not fit on a test's stack.
    let run = |(broken, case): (Broken, &'static str)| async move {
        let dir = dir();
        let fake = fake();
        fake.add_image(IMAGE, 2_000_000);
        let patience = Duration::from_secs(4);
        let options = Options { patience, only: Some(case.to_owned()), ..options(dir.path()) };
        let transcript = conformance::run(&Mutant::new(fake, broken), &options).await;
        let caught = transcript.failures().iter().any(|failure| failure.name == case);
        (!caught).then(|| format!("{broken:?} is not caught by {case}:\n{transcript}"))
    };
    let runs = caught_by.into_iter().map(|mutant| Box::pin(run(mutant)));
    let missed: Vec<_> = futures_util::future::join_all(runs).await.into_iter().flatten().collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
