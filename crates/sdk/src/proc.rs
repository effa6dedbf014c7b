//! The kernel's version, and its files about the whole node, which containers must not read or write (R-SEC-7).

use std::{fs, sync::OnceLock};

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Returns the paths that containers must not read.
#[must_use]
pub fn masked() -> Vec<String> {
    MASKED.iter().map(|path| (*path).to_owned()).chain(thermal_throttles().iter().cloned()).collect()
}

/// Returns the paths that containers must not write.
#[must_use]
pub fn read_only() -> Vec<String> {
    READ_ONLY.iter().map(|path| (*path).to_owned()).collect()
}

/// Returns the kernel's version: major and minor.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|char: char| !char.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Returns the thermal files of the processors: a container could infer another's work from the temperature.
fn thermal_throttles() -> &'static [String] {
    static THROTTLES: OnceLock<Vec<String>> = OnceLock::new();
    THROTTLES.get_or_init(|| {
        let processors = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let throttles = processors.map(|processor| processor.path().join("thermal_throttle"));
        throttles.filter(|path| path.is_dir()).map(|path| path.to_string_lossy().into_owned()).collect()
    })
}
