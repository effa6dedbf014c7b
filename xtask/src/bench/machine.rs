//! Description of the machine that was measured.

use std::{fs, process::Command, thread::available_parallelism};

use anyhow::{Context as _, Result};
use stanchion_tests::{process::text, tools};

/// Returns processor, memory, kernel, versions of the runtimes, profile and date as a line of Markdown.
pub fn describe(dev: bool) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = field(&cpu, "model name").unwrap_or("processor of unknown model");
    let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib: u64 = field(&memory, "MemTotal").and_then(|value| value.split(' ').next()?.parse().ok()).unwrap_or(0);
    let kernel = text(Command::new("uname").arg("-r"))?;
    let containerd = text(tools::command("containerd")?.arg("--version"))?;
    let docker = text(tools::command("dockerd")?.arg("--version"))?;
    let runc = text(tools::command("runc")?.arg("--version"))?;
    Ok(format!(
        "{model}, {} cores, {} GiB; Linux {}; {}; {}; {}; {} build; {}\n",
        available_parallelism().map_or(0, usize::from),
        kib.div_ceil(1 << 20),
        kernel.trim(),
        containerd.trim(),
        docker.trim(),
        runc.lines().next().unwrap_or_default(),
        if dev { "dev" } else { "release" },
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    ))
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
