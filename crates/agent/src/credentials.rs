//! Registry credentials from a kubelet's credential provider plugins (R-IMG-10).
//!
//! # Layout
//! - [`Providers`]: the plugins, and their cached answers. [`settings`]: a kubelet's file, `CredentialProviderConfig`.
//!   [`plugin`]: calls of one plugin. [`ProviderError`]: failures. [`matching`]: `matchImages`.

mod error;
mod matching;
mod plugin;
mod settings;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use stanchion_pod::{Credential, credentials_in};
use stanchion_runtime::RegistryAuth;
use tokio::sync::Semaphore;

use crate::{blocking, config::CredentialProviders, reference::repository};
use error::{ProviderError, SettingsError};
use plugin::{Key, PluginAnswer};
use settings::{Provider, Settings};

/// Credential providers of the node.
#[derive(Debug, Default)]
pub(crate) struct Providers {
    paths: Option<CredentialProviders>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Cached answers, by provider and cache key.
    kept: HashMap<(Arc<str>, Key), CachedAnswer>,
    /// Permits for calls, by provider: one call at a time, so that a caller that waits finds the answer in the cache.
    permits: HashMap<Arc<str>, Arc<Semaphore>>,
}

/// A cached answer.
struct CachedAnswer {
    until: Instant,
    auths: Arc<[u8]>,
}

// Answers are secret (I10).
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Credentials of a provider for an image.
#[derive(Debug)]
pub(crate) struct ProviderAnswer {
    /// Name of the provider.
    pub provider: String,
    /// Credentials, the most specific first, or the failure of the provider.
    pub credentials: Result<Vec<RegistryAuth>, ProviderError>,
}

impl Providers {
    pub fn new(paths: Option<CredentialProviders>) -> Self {
        Self { paths, state: Mutex::default() }
    }

    /// Returns the path of the settings with their problems; `None` if no settings are configured.
    pub async fn check(&self) -> Option<(PathBuf, Vec<SettingsError>)> {
        let paths = self.paths.clone()?;
        let settings = read(paths.clone()).await;
        let bare = |provider: &&Provider| !paths.bin_dir.join(&provider.name).is_file();
        let bare = settings
            .providers
            .iter()
            .filter(bare)
            .map(|it| SettingsError::NoProgram { path: paths.bin_dir.join(&it.name), provider: it.name.clone() });
        Some((paths.config.clone(), settings.problems.into_iter().chain(bare).collect()))
    }

    /// Asks the providers that match the image of a full reference, in the order of the file.
    pub async fn credentials(&self, reference: &str) -> Vec<ProviderAnswer> {
        let Some(paths) = self.paths.clone() else { return Vec::new() };
        // As a kubelet does, ask for the repository without tag and digest.
        let image = repository(reference);
        let mut given = Vec::new();
        let settings = read(paths.clone()).await;
        for problem in &settings.problems {
            tracing::warn!(problem = problem.to_string(), "a credential provider is left out");
        }
        for provider in settings.providers {
            if !provider.match_images.iter().any(|pattern| matching::covers(pattern, image)) {
                continue;
            }
            let answered = self.ask(&paths, &provider, image).await;
            let auth =
                |Credential { username, password, identity_token }| RegistryAuth { username, password, identity_token };
            let credentials = answered.map(|auths| credentials_in(&auths, reference).into_iter().map(auth).collect());
            given.push(ProviderAnswer { provider: provider.name, credentials });
        }
        given
    }

    async fn ask(
        &self,
        paths: &CredentialProviders,
        provider: &Provider,
        image: &str,
    ) -> Result<Arc<[u8]>, ProviderError> {
        let id: Arc<str> = provider.id(paths).into();
        let permit =
            Arc::clone(self.lock().permits.entry(Arc::clone(&id)).or_insert_with(|| Arc::new(Semaphore::new(1))));
        let _permit = permit.acquire().await.map_err(|_| ProviderError::Stopping)?;
        if let Some(kept) = self.cached(&id, image) {
            return Ok(kept);
        }
        let PluginAnswer { key, keep_for, auths } = plugin::ask(paths, provider, image).await?;
        let auths: Arc<[u8]> = auths.into();
        if let Some(keep_for) = Some(keep_for.unwrap_or(provider.cache_duration)).filter(|time| !time.is_zero()) {
            let until = crate::clock::instant() + keep_for.min(Duration::from_secs(86_400 * 365));
            let mut state = self.lock();
            state.kept.retain(|_, kept| kept.until > crate::clock::instant());
            state.kept.insert((id, key), CachedAnswer { until, auths: Arc::clone(&auths) });
        }
        Ok(auths)
    }

    fn cached(&self, id: &Arc<str>, image: &str) -> Option<Arc<[u8]>> {
        let state = self.lock();
        let found = Key::all_for(image).into_iter().find_map(|key| state.kept.get(&(Arc::clone(id), key)));
        found.filter(|kept| kept.until > crate::clock::instant()).map(|kept| Arc::clone(&kept.auths))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the settings. Each pull does that, so that an edit needs no restart.
async fn read(paths: CredentialProviders) -> Settings {
    blocking(move || settings::read(&paths.config)).await
}

#[cfg(test)]
mod tests;
