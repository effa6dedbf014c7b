//! Columns and ages as kubectl prints them.

use jiff::Timestamp;
use stanchion_board::view::PodView;
use stanchion_pod::k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use stanchion_runtime::clock::now;
use stanchion_untrusted::text::escaped;

use crate::limits::{CELL, DETAIL};

/// Prints a table, whose first row is the head.
pub fn print(rows: &[Vec<String>]) {
    print!("{}", aligned(rows));
}

/// Formats rows with three blanks between columns. Each row is one line, whatever its texts contain.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let length = |text: &String| text.chars().count();
    let width = |column: usize| cells.iter().filter_map(|row| row.get(column)).map(length).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut lines = String::new();
    for row in &cells {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            line.push_str(text);
            // A width in a format string has only 16 bits, so pad by hand.
            line.push_str(&" ".repeat(width + 3 - length(text)));
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

/// Shortens a text for a table, and escapes characters that a terminal would obey.
fn cell(text: &str) -> String {
    let start = text.char_indices().nth(CELL.size()).map_or(text, |(end, _)| &text[..end]);
    let shown = escaped(start);
    match start.len() < text.len() || shown.chars().count() > CELL.size() {
        true => shown.chars().take(CELL.size() - 1).chain(['…']).collect(),
        false => shown.into_owned(),
    }
}

/// Shortens a text for a description or a message, and escapes characters that a terminal would obey.
pub fn shown(text: &str) -> String {
    escaped(&DETAIL.cut(text)).into_owned()
}

/// Returns a row of texts.
pub fn row<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Formats the time since then in kubectl's short form: `5s`, `2m10s`, `3h`, `4d`.
pub fn age(at: Option<Timestamp>) -> String {
    let Some(at) = at else { return "<unknown>".to_owned() };
    let seconds = now().duration_since(at).as_secs().max(0);
    match (seconds / 60, seconds / 3600, seconds / 86400) {
        (0..2, _, _) => format!("{seconds}s"),
        (minutes @ 2..10, _, _) if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        (minutes @ 2..180, _, _) => format!("{minutes}m"),
        (minutes, hours @ 3..8, _) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (_, hours @ 3..48, _) => format!("{hours}h"),
        (_, _, days) => format!("{days}d"),
    }
}

/// Returns the statuses of a pod's init containers.
pub fn init_statuses(pod: &PodView) -> &[ContainerStatus] {
    pod.pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default()
}

/// Returns the statuses of a pod's containers.
pub fn statuses(pod: &PodView) -> &[ContainerStatus] {
    pod.pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

/// Columns of a pod in kubectl's table.
pub struct Summary {
    /// Ready containers, e.g. `1/2`.
    pub ready: String,
    /// Most specific reason, e.g. `Init:0/1` or `CrashLoopBackOff`.
    pub status: String,
    /// Restarts, e.g. `3 (20s ago)`.
    pub restarts: String,
}

/// Summarizes a pod as kubectl does.
pub fn summary(pod: &PodView) -> Summary {
    let inits = pod.pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<_> =
        inits.filter(|init| init.restart_policy.as_deref() == Some("Always")).map(|init| init.name.as_str()).collect();
    let is_sidecar = |status: &&ContainerStatus| sidecars.contains(&status.name.as_str());
    let all = pod.pod.spec.as_ref().map_or(0, |spec| spec.containers.len()) + sidecars.len();
    let init = initializing(pod, is_sidecar);
    let begun = init_statuses(pod).iter().filter(is_sidecar);
    let mut ready = begun.clone().filter(|it| it.ready && it.started == Some(true)).count();
    let mut counted: Vec<_> = match init {
        Some(_) => init_statuses(pod).iter().collect(),
        None => begun.collect(),
    };
    let phase = pod.pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    let reason = pod.pod.status.as_ref().and_then(|status| status.reason.clone());
    let mut status = init.clone().or(reason).unwrap_or_else(|| phase.clone());
    if init.is_none() {
        let mut any_runs = false;
        for container in statuses(pod).iter().rev() {
            let ContainerState { waiting, terminated, running } = container.state.clone().unwrap_or_default();
            let reason = waiting.and_then(|it| it.reason).or_else(|| terminated.and_then(|it| it.reason));
            if container.ready && running.is_some() {
                any_runs = true;
                ready += 1;
            }
            status = reason.unwrap_or(status);
        }
        if status == "Completed" && any_runs {
            status = if has(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
        counted.extend(statuses(pod));
    }
    if pod.pod.metadata.deletion_timestamp.is_some() && !matches!(phase.as_str(), "Succeeded" | "Failed") {
        status = "Terminating".to_owned();
    }
    Summary { ready: format!("{ready}/{all}"), status, restarts: restarts(&counted) }
}

/// Returns the state of the init containers; `None` when they have finished.
fn initializing(pod: &PodView, is_sidecar: impl Fn(&&ContainerStatus) -> bool) -> Option<String> {
    if has(pod, "Initialized") {
        return None;
    }
    let all = init_statuses(pod);
    all.iter().enumerate().find_map(|(place, status)| {
        let ContainerState { waiting, terminated, .. } = status.state.clone().unwrap_or_default();
        match (terminated, waiting.and_then(|waiting| waiting.reason)) {
            (Some(ended), _) if ended.exit_code == 0 => None,
            _ if is_sidecar(&status) && status.started == Some(true) => None,
            (Some(ended), _) => {
                let reason = ended.reason.unwrap_or_else(|| format!("ExitCode:{}", ended.exit_code));
                Some(format!("Init:{reason}"))
            }
            (None, Some(reason)) if reason != "PodInitializing" => Some(format!("Init:{reason}")),
            _ => Some(format!("Init:{place}/{}", all.len())),
        }
    })
}

fn has(pod: &PodView, condition: &str) -> bool {
    let conditions = pod.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == condition && it.status == "True")
}

fn restarts(statuses: &[&ContainerStatus]) -> String {
    let count = statuses.iter().fold(0_i32, |sum, status| sum.saturating_add(status.restart_count));
    let ended = |status: &&ContainerStatus| status.last_state.clone()?.terminated?.finished_at.map(|time| time.0);
    match statuses.iter().filter_map(ended).max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", age(Some(last))),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_a_table() {
        let long = "x".repeat(70_000);
        let rows = [row(["A", "B"]), row([&long, "b"]), row(["\u{1b}[2J\nForged   row", "\u{202e}"])];
        let table = aligned(&rows);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with('A') && lines[0].ends_with("   B"));
        assert_eq!(lines[1].chars().count(), CELL.size() + 4);
        assert_eq!(lines[1].split_whitespace().next().map(|text| text.ends_with("x…")), Some(true));
        let cells: Vec<_> = lines[2].split("     ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["\\x1b[2J\\nForged   row", "\\u{202e}"]);
        assert_eq!(aligned(&[row(["größer", "b"]), row(["a"; 2])]), "größer   b\na        a\n");
        assert_eq!(aligned(&[]), "");
        assert!(shown(&long).len() <= DETAIL.size());
    }
}
