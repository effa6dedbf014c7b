//! Columns and ages as kubectl prints them.

use jiff::Timestamp;
use stanchion_agent::view::PodView;
use stanchion_pod::k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};

/// Prints rows below their heads, three blanks between columns.
pub fn print(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let line =
            row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect::<Vec<_>>().join("   ");
        println!("{}", line.trim_end());
    }
}

/// A row of text.
pub fn row<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// How long ago, in kubectl's short form: `5s`, `2m10s`, `3h`, `4d`.
pub fn age(at: Option<Timestamp>) -> String {
    let Some(at) = at else { return "<unknown>".to_owned() };
    let seconds = Timestamp::now().duration_since(at).as_secs().max(0);
    match (seconds / 60, seconds / 3600, seconds / 86400) {
        (0..2, _, _) => format!("{seconds}s"),
        (minutes @ 2..10, _, _) if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        (minutes @ 2..180, _, _) => format!("{minutes}m"),
        (minutes, hours @ 3..8, _) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (_, hours @ 3..48, _) => format!("{hours}h"),
        (_, _, days) => format!("{days}d"),
    }
}

/// The statuses of a pod's containers.
pub fn statuses(pod: &PodView) -> &[ContainerStatus] {
    pod.pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

/// `1/2`
pub fn ready(pod: &PodView) -> String {
    let all = pod.pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    format!("{}/{all}", statuses(pod).iter().filter(|status| status.ready).count())
}

/// kubectl's STATUS: the most telling reason.
pub fn status(pod: &PodView) -> String {
    let phase = pod.pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    if pod.pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let mut shown = pod.pod.status.as_ref().and_then(|status| status.reason.clone()).unwrap_or(phase);
    for status in statuses(pod).iter().rev() {
        let ContainerState { waiting, terminated, .. } = status.state.clone().unwrap_or_default();
        let reason = waiting.and_then(|waiting| waiting.reason).or_else(|| terminated.and_then(|ended| ended.reason));
        if let Some(reason) = reason {
            shown = reason;
        }
    }
    let any_running = statuses(pod).iter().any(|status| status.ready);
    if shown == "Completed" && any_running { "Running".to_owned() } else { shown }
}

/// `3 (20s ago)`
pub fn restarts(pod: &PodView) -> String {
    let count: i32 = statuses(pod).iter().map(|status| status.restart_count).sum();
    let ended = |status: &ContainerStatus| status.last_state.clone()?.terminated?.finished_at.map(|time| time.0);
    match statuses(pod).iter().filter_map(ended).max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", age(Some(last))),
        _ => count.to_string(),
    }
}
