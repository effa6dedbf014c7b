//! Termination messages of containers that have ended (R-TMSG).

use std::time::Duration;

use stanchion_plan::{history::History, observed::Observed, view::View};
use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState, Runtime};

use super::context::Context;
use crate::{blocking, logs};

/// Largest part of the log's tail that replaces a missing termination message: number of lines, and bytes (R-TMSG-3).
const LOG_TAIL: (usize, usize) = (80, 2048);
/// Number and interval of reads that wait for a container's last output to reach its log.
const LOG_DELAY: (u32, Duration) = (10, Duration::from_millis(20));

/// Reads the termination messages of containers that have ended since the last call. `pod` is the revision that is shown.
pub(super) async fn read<R: Runtime>(context: &Context<R>, pod: &Pod, observed: &Observed, history: &mut History) {
    let is_new = |info: &&ContainerInfo| {
        matches!(info.state, ContainerState::Exited { .. }) && history.message(&info.id).is_none()
    };
    if !observed.containers().any(|info| is_new(&info)) {
        return;
    }
    let mut messages = Vec::new();
    for (backend, _) in observed.backends() {
        let view = View { backend: backend.to_owned(), observed: observed.clone() };
        for container in pod.all_containers() {
            for info in view.instances(pod, &container.name).into_iter().map(|it| it.container).filter(is_new) {
                messages.push((info.id.clone(), message(context, pod, container, info, backend).await));
            }
        }
    }
    messages.into_iter().for_each(|(id, message)| history.set_message(id, message));
}

async fn message<R: Runtime>(
    context: &Context<R>,
    pod: &Pod,
    container: &Container,
    info: &ContainerInfo,
    backend: &str,
) -> String {
    let Some(path) = &container.message_path else { return String::new() };
    let (files, name, attempt) = (context.files(pod.uid.clone()), container.name.clone(), info.attempt);
    let message = match blocking(move || files.message(&name, attempt)).await {
        Ok(message) => message,
        Err(error) => return format!("Error on reading termination log {path}: {error}"),
    };
    let failed = !matches!(info.state, ContainerState::Exited { code: Some(0), .. });
    if !message.is_empty() || !failed || !container.message_from_log {
        return message;
    }
    // The runtime may write the last line after the container's end. The log is complete when two reads agree.
    let mut last = String::new();
    for _ in 0..LOG_DELAY.0 {
        let tail = end_of_log(context, pod, container, info, backend).await;
        if !tail.is_empty() && tail == last {
            return tail;
        }
        last = tail;
        tokio::time::sleep(LOG_DELAY.1).await;
    }
    last
}

async fn end_of_log<R: Runtime>(
    context: &Context<R>,
    pod: &Pod,
    container: &Container,
    info: &ContainerInfo,
    backend: &str,
) -> String {
    let path = context.files(pod.uid.clone()).log(&container.name, info.attempt);
    let text = match blocking(move || logs::end(&path, LOG_TAIL.0, LOG_TAIL.1)).await {
        Ok(text) => text,
        Err(_) => match context.runtime(backend) {
            Ok(runtime) => {
                logs::end_of_runtime_log(&*runtime, &info.id, LOG_TAIL.0, LOG_TAIL.1).await.unwrap_or_default()
            }
            Err(_) => Vec::new(),
        },
    };
    // The tail may begin inside a character.
    let start = text.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    String::from_utf8_lossy(&text[start..]).into_owned()
}
