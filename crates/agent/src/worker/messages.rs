//! Termination messages of containers that have ended (R-TMSG).

use std::{sync::Arc, time::Duration};

use stanchion_plan::{observed::Remains, view::View};
use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState, Runtime};

use super::Worker;
use crate::{blocking::blocking, desired::DesiredPod, logs};

/// Largest part of the log's tail that replaces a missing termination message: lines, and bytes of them (R-TMSG-3).
const FROM_LOG: (usize, usize) = (80, 2048);
/// Number and interval of the reads that wait until a container's last output has reached its log.
const LATE: (u32, Duration) = (10, Duration::from_millis(20));

impl<R: Runtime> Worker<R> {
    /// Reads the termination messages of containers that have ended since the last call.
    pub(super) async fn read_messages(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) {
        let ended = |info: &&ContainerInfo| matches!(info.state, ContainerState::Exited { .. });
        let mut all = remains.iter().flat_map(|(_, remains)| &remains.containers).filter(ended);
        if !all.any(|info| self.history.message(&info.id).is_none()) {
            return;
        }
        let Some(pod) = self.shown(desired, remains) else { return };
        for (home, _) in remains {
            let view = View { home: home.clone(), remains: remains.to_vec() };
            for container in pod.all_containers() {
                for info in view.instances(&pod, &container.name).into_iter().map(|it| it.container).filter(ended) {
                    if self.history.message(&info.id).is_none() {
                        let words = self.words(&pod, container, info, home).await;
                        self.history.set_message(info.id.clone(), words);
                    }
                }
            }
        }
    }

    async fn words(&self, pod: &Pod, container: &Container, info: &ContainerInfo, home: &str) -> String {
        let Some(path) = &container.message_path else { return String::new() };
        let (files, name, attempt) = (self.files(pod.uid.clone()), container.name.clone(), info.attempt);
        let words = match blocking(move || files.message(&name, attempt)).await {
            Ok(words) => words,
            Err(error) => return format!("Error on reading termination log {path}: {error}"),
        };
        let failed = !matches!(info.state, ContainerState::Exited { code: Some(0), .. });
        if !words.is_empty() || !failed || !container.message_from_log {
            return words;
        }
        // The runtime may write the last line after the container's end: the log is complete when two reads agree.
        let mut last = String::new();
        for _ in 0..LATE.0 {
            let words = self.end_of_log(pod, container, info, home).await;
            if !words.is_empty() && words == last {
                return words;
            }
            last = words;
            tokio::time::sleep(LATE.1).await;
        }
        last
    }

    async fn end_of_log(&self, pod: &Pod, container: &Container, info: &ContainerInfo, home: &str) -> String {
        let path = self.files(pod.uid.clone()).log(&container.name, info.attempt);
        let text = match blocking(move || logs::end(&path, FROM_LOG.0, FROM_LOG.1)).await {
            Ok(text) => text,
            Err(_) => match self.runtime(home) {
                Ok(runtime) => {
                    let kept = logs::end_of_kept(&*runtime, &info.id, FROM_LOG.0, FROM_LOG.1).await;
                    kept.unwrap_or_default()
                }
                Err(_) => Vec::new(),
            },
        };
        // The tail may begin inside a character.
        let start = text.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
        String::from_utf8_lossy(&text[start..]).into_owned()
    }
}
