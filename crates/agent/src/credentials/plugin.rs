//! Asks one plugin for one image: a request to its standard input, an answer from its standard output.

use std::{io, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::settings::{Provider, duration};
use crate::config::CredentialProviders;

/// Time that a plugin may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Maximum length of its answer, bytes.
const MOST: u64 = 1 << 20;

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
pub(super) struct Answer {
    pub key: Key,
    /// Time for which it may be cached; `None`: as the settings say.
    pub keep_for: Option<Duration>,
    /// The table of credentials by registry and path, as in Docker's config.json.
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
pub(super) async fn ask(places: &CredentialProviders, provider: &Provider, image: &str) -> Result<Answer, String> {
    let request = json!({ "apiVersion": provider.api_version, "kind": "CredentialProviderRequest", "image": image });
    let path = places.bin_dir.join(&provider.name);
    let said = run(&path, provider, &request.to_string()).await.map_err(|why| {
        format!("{why}; to see what it says run it with its arguments: echo '{request}' | {}", path.display())
    })?;
    answer(&said, provider, image)
}

async fn run(path: &Path, provider: &Provider, request: &str) -> Result<Vec<u8>, String> {
    let mut command = Command::new(path);
    command.args(&provider.args).envs(provider.env.iter().map(|it| (&it.name, &it.value)));
    // Its error output may hold secrets.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    match tokio::time::timeout(PATIENCE, talk(&mut child, request)).await {
        Ok(said) => said,
        Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    }
}

async fn talk(child: &mut Child, request: &str) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("talking to it failed: {error}");
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        match stdin.write_all(request.as_bytes()).await {
            // A plugin that always answers the same need not read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MOST + 1).read_to_end(&mut said).await?;
        }
        Ok(said)
    };
    let ((), said) = tokio::try_join!(write, read).map_err(failed)?;
    if said.len() as u64 > MOST {
        return Err(format!("it answered more than {MOST} bytes"));
    }
    match child.wait().await.map_err(failed)? {
        status if status.success() => Ok(said),
        status => Err(format!("it ended with {status}")),
    }
}

/// Process group of a plugin, killed on drop: whatever the plugin has started ends with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The group is gone already, mostly.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

fn answer(said: &[u8], provider: &Provider, image: &str) -> Result<Answer, String> {
    let response: Response = serde_json::from_slice(said).map_err(|error| {
        // The error's own message may quote the answer.
        let place = format!("line {}, column {}", error.line(), error.column());
        format!("its answer is not a CredentialProviderResponse: {:?} at {place}", error.classify())
    })?;
    if response.kind != "CredentialProviderResponse" || response.api_version != provider.api_version {
        let wanted = &provider.api_version;
        return Err(format!(
            "its answer must be a CredentialProviderResponse of {wanted}, as its apiVersion in the settings is"
        ));
    }
    let [of_image, of_registry, global] = Key::all_for(image);
    let key = match response.cache_key_type.as_str() {
        "Image" => of_image,
        "Registry" => of_registry,
        "Global" => global,
        _ => return Err("its answer's cacheKeyType must be Image, Registry or Global".to_owned()),
    };
    let keep_for = match response.cache_duration.as_deref() {
        None => None,
        Some(text) => {
            Some(duration(text).ok_or("its answer's cacheDuration must be a time such as \"12h\"".to_owned())?)
        }
    };
    let auths = Value::Object(response.auth.unwrap_or_default()).to_string().into_bytes();
    Ok(Answer { key, keep_for, auths })
}
