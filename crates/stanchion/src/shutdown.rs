//! Detection of a node shutdown.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// Time limit for systemd's answer: it is busy during a shutdown.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns whether systemd is shutting the node down, also for a reboot; false without systemd.
pub async fn is_under_way() -> bool {
    let mut systemctl = Command::new("systemctl");
    systemctl.arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, systemctl.output()).await {
        // systemctl exits with an error in every state but `running`, so only its output counts.
        Ok(Ok(said)) => said.stdout.trim_ascii() == b"stopping",
        Ok(Err(error)) => {
            tracing::debug!(%error, "systemctl cannot be asked whether the node shuts down");
            false
        }
        Err(_) => {
            tracing::warn!("systemd does not say whether the node shuts down; the pods run on");
            false
        }
    }
}
