//! Reads the kubelet's file of credential providers, `CredentialProviderConfig`, or a directory of such files.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanchion_untrusted::{Links, read_text};

use crate::{config::CredentialProviders, limits};

/// Versions of the file, and of a plugin's requests and answers. The used fields are the same in all of them.
const FILE_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
const PLUGIN_VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// Content of the files. Invalid providers are left out.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub providers: Vec<Provider>,
    pub problems: Vec<String>,
}

/// A valid provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Provider {
    /// Name of the provider and of its program.
    pub name: String,
    pub match_images: Vec<String>,
    /// Cache duration of answers that do not name one.
    pub cache_duration: Duration,
    pub api_version: String,
    pub args: Vec<String>,
    pub env: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    token_attributes: Option<Value>,
}

impl Provider {
    /// Returns a key, which differs between providers whose answers may differ.
    pub fn id(&self, paths: &CredentialProviders) -> String {
        format!("{} {self:?}", paths.bin_dir.display())
    }
}

/// Reads the file, or all files of the directory.
pub(super) fn read(path: &Path) -> Settings {
    let mut settings = Settings::default();
    let files = match files(path) {
        Ok(files) => files,
        Err(error) => {
            settings.problems.push(format!("{} cannot be read: {error}", path.display()));
            return settings;
        }
    };
    let mut names = BTreeSet::new();
    for path in files {
        let read = read_text(&path, Links::Follow, limits::SETTINGS_FILE);
        let read = read.map_err(|error| error.to_string()).and_then(|text| parse(&text));
        let providers = read.unwrap_or_else(|problem| vec![Err(problem)]);
        for provider in providers {
            match provider {
                Ok(provider) if !names.insert(provider.name.clone()) => {
                    let name = provider.name;
                    settings.problems.push(format!("{}: there are two providers named {name:?}", path.display()));
                }
                Ok(provider) => settings.providers.push(provider),
                Err(problem) => settings.problems.push(format!("{}: {problem}", path.display())),
            }
        }
    }
    settings
}

/// Returns the file, or the files of a directory in the order of their names.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_one =
        |path: &PathBuf| path.extension().is_some_and(|it| ["json", "yaml", "yml"].iter().any(|known| it == *known));
    let mut files: Vec<_> = entries.into_iter().filter(is_one).collect();
    files.sort();
    Ok(files)
}

fn parse(text: &str) -> Result<Vec<Result<Provider, String>>, String> {
    let value = stanchion_pod::from_yaml(text).map_err(|problem| problem.to_string())?;
    let file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if file.kind != "CredentialProviderConfig" || !FILE_VERSIONS.contains(&&*file.api_version) {
        return Err(format!(
            "it is {} of {}, not CredentialProviderConfig of {}",
            file.kind, file.api_version, FILE_VERSIONS[0]
        ));
    }
    if file.providers.is_empty() {
        return Err("it has no providers".to_owned());
    }
    let check = |(number, value): (usize, Value)| {
        let raw = serde_json::from_value::<Raw>(value).map_err(|error| error.to_string());
        raw.and_then(check).map_err(|problem| format!("providers[{number}]: {problem}"))
    };
    Ok(file.providers.into_iter().enumerate().map(check).collect())
}

fn check(raw: Raw) -> Result<Provider, String> {
    let Raw { name, match_images, default_cache_duration, api_version, args, env, token_attributes } = raw;
    if name.is_empty() || [".", ".."].contains(&&*name) || name.contains(['/', '\\', ' ']) {
        return Err(format!("name {name:?} must be the name of a program, without directories and blanks"));
    }
    if match_images.is_empty() {
        return Err(format!("{name} has no matchImages"));
    }
    if let Some(wrong) = match_images.iter().find(|image| image.is_empty() || image.contains("://")) {
        return Err(format!("{name}: matchImages {wrong:?} must begin with a host, without a scheme"));
    }
    if !PLUGIN_VERSIONS.contains(&&*api_version) {
        return Err(format!("{name}: apiVersion {api_version:?} must be {}", PLUGIN_VERSIONS[0]));
    }
    let cache_duration = default_cache_duration.ok_or_else(|| format!("{name} has no defaultCacheDuration"))?;
    let cache_duration = duration(&cache_duration)
        .ok_or_else(|| format!("{name}: defaultCacheDuration {cache_duration:?} must be a time such as \"12h\""))?;
    if token_attributes.is_some() {
        return Err(format!(
            "{name} wants tokens of service accounts (tokenAttributes), which only an API server gives"
        ));
    }
    let (args, env) = (args.unwrap_or_default(), env.unwrap_or_default());
    Ok(Provider { name, match_images, cache_duration, api_version, args, env })
}

/// Parses a duration as Go writes it, e.g. `12h0m0s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    match text {
        "0" => Some(Duration::ZERO),
        text => text.parse::<SignedDuration>().ok()?.try_into().ok(),
    }
}
