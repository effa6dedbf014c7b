//! `cargo xtask vm`: runs end-to-end tests on an emulated machine, and reboots it. The machine is a Debian 13 with
//! systemd, cgroup v2, containerd 1.7 and Docker 26.
//!
//! Emulation is slow: tests that measure time do not belong there, and CI does not run it. The machine mounts the
//! workspace at its own path; the tests are built outside.

mod image;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use stanchion_tests::tools;

use crate::{build, deps, say};
use image::Image;

/// Default tests: limits, security, Docker, node shutdown.
const TESTS: [&str; 4] = ["e2e_pods", "e2e_security", "e2e_docker", "e2e_shutdown"];
/// Most seconds of one boot, with its script.
const LIMIT: u32 = 1800;
/// First line of every script that the machine runs.
const BEGIN: &str = "cd WORKSPACE/tests && export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n";
/// Script of both boots of the reboot.
const REBOOT: &str = include_str!("vm/reboot.sh");

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// End-to-end tests to run instead of the usual ones, e.g. `e2e_network`; `reboot` is the reboot
    tests: Vec<String>,
    /// Who makes cgroups, `systemd` or `cgroupfs`
    #[arg(long, default_value = "systemd")]
    cgroup_driver: String,
}

/// Builds the tests and the machine's image, and runs each test on a boot of its own.
pub fn run(options: &Options) -> Result<()> {
    deps::ensure_all()?;
    deps::ensure_emulator()?;
    build::run(&["build", "--workspace", "--all-targets"])?;
    let image = Image::made()?;
    let all = TESTS.iter().map(|test| (*test).to_owned()).chain(["reboot".to_owned()]);
    let tests = if options.tests.is_empty() { all.collect() } else { options.tests.clone() };
    let mut failed = Vec::new();
    for test in tests {
        let begun = Instant::now();
        say(format!("{test} on an emulated machine"));
        let passed = match &*test {
            "reboot" => reboot(&image)?,
            _ => suite(&image, &test, &options.cgroup_driver)?,
        };
        say(format!("{test}: {} in {} s", if passed { "passed" } else { "FAILED" }, begun.elapsed().as_secs()));
        if !passed {
            failed.push(test);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Runs one end-to-end test program; returns whether it passed.
fn suite(image: &Image, test: &str, driver: &str) -> Result<bool> {
    let program = newest(test)?;
    let script = format!(
        "export STANCHION_TEST_CGROUP_DRIVER={driver} RUST_BACKTRACE=0\n{} > /vm/out 2>&1; echo $? > /vm/status\n",
        program.display()
    );
    boot(image, &format!("{script}systemctl --no-block poweroff\n"), false)
}

/// Installs the agent as README.md says, reboots, and checks how the pods ended and that they run again.
fn reboot(image: &Image) -> Result<bool> {
    image.keep()?;
    // The emulator ends instead of rebooting, so boot again.
    twice(|| boot(image, REBOOT, true))
}

/// Boots twice; the second time only if the first boot passed. Returns whether both did.
fn twice(mut boot: impl FnMut() -> Result<bool>) -> Result<bool> {
    Ok(boot()? && boot()?)
}

/// Boots, waits until the machine ends, and returns whether the script wrote status 0.
fn boot(image: &Image, script: &str, keeps: bool) -> Result<bool> {
    let share = image.share()?;
    for file in ["out", "status"] {
        fs::write(share.join(file), "").with_context(|| format!("cannot write {file}"))?;
    }
    let script = format!("{BEGIN}{script}").replace("WORKSPACE", &tools::workspace_dir().display().to_string());
    fs::write(share.join("run"), script).context("cannot write the script")?;
    let status = emulator(image, &share, keeps)?.status().context("cannot start qemu")?;
    ensure!(status.success(), "the machine did not shut down within {LIMIT} s ({status})");
    let read = |file: &str| fs::read_to_string(share.join(file)).with_context(|| format!("cannot read {file}"));
    print!("{}", read("out")?);
    Ok(read("status")?.trim() == "0")
}

fn emulator(image: &Image, share: &Path, keeps: bool) -> Result<Command> {
    let shared = |path: &Path, tag: &str| {
        format!("local,path={},mount_tag={tag},security_model=none,multidevs=remap", path.display())
    };
    let mut command = Command::new("timeout");
    command.args([&LIMIT.to_string(), "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
    command.args(["-m", "4096", "-nographic", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.args(["-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 panic=-1"]);
    command.arg("-drive").arg(image.drive(keeps));
    command.arg("-virtfs").arg(shared(&tools::workspace_dir(), "work"));
    command.arg("-virtfs").arg(shared(share, "vm"));
    let log = fs::File::create(share.join("console")).context("cannot make the console's log")?;
    command.stdin(Stdio::null()).stdout(log);
    Ok(command)
}

/// Returns the newest build of a test.
fn newest(test: &str) -> Result<std::path::PathBuf> {
    let dir = tools::target_dir()?.join("debug/deps");
    let is_it = |name: &str| name.strip_prefix(test).is_some_and(|rest| rest.starts_with('-') && !rest.contains('.'));
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let found = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_it));
    let newest = found.max_by_key(|entry| entry.metadata().and_then(|it| it.modified()).ok());
    match newest {
        Some(entry) => Ok(entry.path()),
        None => bail!("there is no test {test:?}; tests/tests has their names"),
    }
}

#[cfg(test)]
mod tests {
    use super::{REBOOT, twice};

    #[test]
    fn both_boots_have_to_pass() {
        for (verdicts, passed) in [([true, true], true), ([true, false], false), ([false, true], false)] {
            let mut left = verdicts.into_iter();
            let boot = || Ok(left.next().expect("two boots at most"));
            assert_eq!(twice(boot).expect("it boots"), passed, "{verdicts:?}");
            assert_eq!(left.count() == 0, verdicts[0], "a machine that was not installed boots again");
        }
    }

    #[test]
    fn the_first_boot_says_that_it_passed() {
        let (first, _) = REBOOT.split_once("systemctl --no-block reboot").expect("it reboots");
        assert!(first.ends_with("echo 0 > /vm/status\n    sync\n    "), "{first}");
    }
}
