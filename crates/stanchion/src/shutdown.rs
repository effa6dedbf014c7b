//! Whether the node shuts down.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// How long systemd may take to answer: it is busy then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether systemd is shutting the node down, for a reboot too. Without systemd nobody can tell.
pub async fn is_under_way() -> bool {
    let mut systemctl = Command::new("systemctl");
    systemctl.arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, systemctl.output()).await {
        // Of any state but `running` it says so with an error.
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
