//! Asks one plugin for one image's credentials: it writes a request to the plugin's standard input, and reads the
//! answer from its standard output.

use std::{io, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::{
    error::{CallError, ProviderError},
    settings::{Provider, duration},
};
use crate::config::CredentialProviders;

/// Time that a plugin may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum length of an answer, bytes.
pub(super) const MAX_ANSWER: u64 = 1 << 20;

/// Cache key of an answer (`cacheKeyType`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Image(String),
    Registry(String),
    Global,
}

impl Key {
    /// Returns the keys under which an answer for an image may be cached.
    pub fn all_for(image: &str) -> [Self; 3] {
        let registry = image.split_once('/').map_or(image, |(registry, _)| registry);
        [Self::Image(image.to_owned()), Self::Registry(registry.to_owned()), Self::Global]
    }
}

/// Answer of a plugin.
pub(super) struct PluginAnswer {
    pub key: Key,
    /// Cache duration of the answer; `None`: the settings' duration counts.
    pub keep_for: Option<Duration>,
    /// Table of credentials by registry and path, as in Docker's config.json.
    pub auths: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: String,
    cache_duration: Option<String>,
    auth: Option<Map<String, Value>>,
}

/// Asks a plugin. Errors quote nothing of its answer (I10).
pub(super) async fn ask(
    paths: &CredentialProviders,
    provider: &Provider,
    image: &str,
) -> Result<PluginAnswer, ProviderError> {
    let request = json!({ "apiVersion": provider.api_version, "kind": "CredentialProviderRequest", "image": image });
    let path = paths.bin_dir.join(&provider.name);
    let said = run(&path, provider, &request.to_string()).await;
    let said = said.map_err(|error| ProviderError::Call { error, request: request.to_string(), path })?;
    answer(&said, provider, image)
}

async fn run(path: &Path, provider: &Provider, request: &str) -> Result<Vec<u8>, CallError> {
    let mut command = Command::new(path);
    command.args(&provider.args).envs(provider.env.iter().map(|it| (&it.name, &it.value)));
    // Its error output may hold secrets.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(CallError::Start)?;
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    match tokio::time::timeout(ANSWER_TIMEOUT, exchange(&mut child, request)).await {
        Ok(said) => said,
        Err(_) => Err(CallError::Late),
    }
}

async fn exchange(child: &mut Child, request: &str) -> Result<Vec<u8>, CallError> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        match stdin.write_all(request.as_bytes()).await {
            // A plugin that always gives the same answer may not read its input.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER + 1).read_to_end(&mut said).await?;
        }
        Ok(said)
    };
    let ((), said) = tokio::try_join!(write, read).map_err(CallError::Talk)?;
    if said.len() as u64 > MAX_ANSWER {
        return Err(CallError::TooLong);
    }
    match child.wait().await.map_err(CallError::Talk)? {
        status if status.success() => Ok(said),
        status => Err(CallError::Ended(status)),
    }
}

/// Process group of a plugin. Its drop kills the plugin and all processes that the plugin has started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Mostly the group has ended already.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

fn answer(said: &[u8], provider: &Provider, image: &str) -> Result<PluginAnswer, ProviderError> {
    let response: Response = serde_json::from_slice(said).map_err(|error| {
        // The error's own message may quote the answer.
        ProviderError::NoResponse { category: error.classify(), line: error.line(), column: error.column() }
    })?;
    if response.kind != "CredentialProviderResponse" || response.api_version != provider.api_version {
        return Err(ProviderError::OtherVersion(provider.api_version.clone()));
    }
    let [of_image, of_registry, global] = Key::all_for(image);
    let key = match response.cache_key_type.as_str() {
        "Image" => of_image,
        "Registry" => of_registry,
        "Global" => global,
        _ => return Err(ProviderError::CacheKeyType),
    };
    let keep_for = match response.cache_duration.as_deref() {
        None => None,
        Some(text) => Some(duration(text).ok_or(ProviderError::CacheDuration)?),
    };
    let auths = Value::Object(response.auth.unwrap_or_default()).to_string().into_bytes();
    Ok(PluginAnswer { key, keep_for, auths })
}
