//! Fetching images for one backend: each reference once at a time, whoever asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stanchion_runtime::{Error, Image, Progress, PullImage, PullProgress, RegistryAuth, Runtime};
use tokio::{sync::watch, time::Instant};

use crate::supervisor::Supervisor;

/// How long an image that was seen counts as present without asking again. If it is gone after all, creating the
/// container says so and it is asked for anew.
const TRUST: Duration = Duration::from_secs(5);

/// The images of one backend.
#[derive(Debug, Default)]
pub(crate) struct Images {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: HashMap<String, Instant>,
    pulls: Vec<Going>,
}

/// A pull that is going on. With other credentials it is another: it may be given what this one is not.
#[derive(Debug)]
struct Going {
    reference: String,
    auth: Option<RegistryAuth>,
    pull: watch::Receiver<Pull>,
}

impl Going {
    fn is(&self, reference: &str, auth: Option<&RegistryAuth>) -> bool {
        self.reference == reference && self.auth.as_ref() == auth
    }
}

/// How far a pull is.
#[derive(Clone, Debug)]
pub(crate) enum Pull {
    /// Going on.
    Running(PullProgress),
    /// Over.
    Done(Result<Image, Error>),
}

impl Images {
    /// Whether the image of a full reference is present.
    pub async fn is_present<R: Runtime>(&self, runtime: &R, reference: &str) -> Result<bool, Error> {
        if self.lock().seen.get(reference).is_some_and(|seen| seen.elapsed() < TRUST) {
            return Ok(true);
        }
        let images = runtime.list_images().await?;
        let now = Instant::now();
        let mut state = self.lock();
        state.seen = images.into_iter().map(|image| (image.reference, now)).collect();
        Ok(state.seen.contains_key(reference))
    }

    /// Forgets that an image was seen.
    pub fn forget(&self, reference: &str) {
        self.lock().seen.remove(reference);
    }

    /// Pulls an image, or joins the pull of it that is going on.
    pub fn pull<R: Runtime>(
        self: &Arc<Self>,
        runtime: &Arc<R>,
        reference: &str,
        auth: Option<RegistryAuth>,
        tasks: &Supervisor,
    ) -> watch::Receiver<Pull> {
        let mut state = self.lock();
        if let Some(going) = state.pulls.iter().find(|going| going.is(reference, auth.as_ref())) {
            return going.pull.clone();
        }
        let (tell, pull) = watch::channel(Pull::Running(PullProgress::default()));
        state.pulls.push(Going { reference: reference.to_owned(), auth: auth.clone(), pull: pull.clone() });
        drop(state);

        let (images, runtime, reference) = (Arc::clone(self), Arc::clone(runtime), reference.to_owned());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn(format!("pull {reference}"), async move {
            let progress = tell.clone();
            let progress = Progress::new(move |now| drop(progress.send_replace(Pull::Running(now))));
            let request = PullImage { reference: reference.clone(), auth: auth.clone() };
            // A pull that is cut off resumes with the next one.
            let pulled = shutdown.run_until_cancelled(runtime.pull_image(request, progress)).await;
            let mut state = images.lock();
            state.pulls.retain(|going| !going.is(&reference, auth.as_ref()));
            if let Some(Ok(_)) = pulled {
                state.seen.insert(reference, Instant::now());
            }
            drop(state);
            if let Some(pulled) = pulled {
                tell.send_replace(Pull::Done(pulled));
            }
        });
        pull
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
