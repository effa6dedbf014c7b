//! The last words of containers that have ended (R-TMSG).

use std::{sync::Arc, time::Duration};

use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState, Runtime};

use super::Worker;
use crate::{
    desired::DesiredPod,
    logs::{self, LogOptions},
    observe::Remains,
    plan::view::View,
};

/// What of a log stands for words that a container did not leave: lines, and bytes of them (R-TMSG-3).
const FROM_LOG: (usize, usize) = (80, 2048);
/// How often and how long it is waited for what a container wrote last to reach its log.
const LATE: (u32, Duration) = (10, Duration::from_millis(20));

impl<R: Runtime> Worker<R> {
    /// Reads the words of those that have ended since the last time.
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
        let read = tokio::task::spawn_blocking(move || files.message(&name, attempt)).await;
        let words = match read.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok(words) => words,
            Err(error) => return format!("Error on reading termination log {path}: {error}"),
        };
        let failed = !matches!(info.state, ContainerState::Exited { code: Some(0), .. });
        if !words.is_empty() || !failed || !container.message_from_log {
            return words;
        }
        // Its last line may be written after its end: what was read twice is all of it.
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
        let options = LogOptions { tail: Some(FROM_LOG.0), ..LogOptions::default() };
        let path = self.files(pod.uid.clone()).log(&container.name, info.attempt);
        let read = tokio::task::spawn_blocking(move || logs::read(&path, &options)).await;
        let text = match read {
            Ok(Ok((text, _))) => text,
            _ => match self.runtime(home) {
                Ok(runtime) => {
                    let kept = logs::kept(&*runtime, &info.id, options, None).await;
                    kept.map(|(text, _)| text).unwrap_or_default()
                }
                Err(_) => String::new(),
            },
        };
        let mut start = text.len().saturating_sub(FROM_LOG.1);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }
}
