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

use super::error::{FileError, InvalidProvider, SettingsError};
use crate::{config::CredentialProviders, limits};

/// Versions of the file, and of a plugin's requests and answers. They do not differ in the fields that are used.
pub(super) const FILE_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
pub(super) const PLUGIN_VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// Content of the files. Invalid providers are left out.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub providers: Vec<Provider>,
    pub problems: Vec<SettingsError>,
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
            settings.problems.push(SettingsError::Unreadable { path: path.to_owned(), error });
            return settings;
        }
    };
    let mut names = BTreeSet::new();
    for path in files {
        let read = read_text(&path, Links::Follow, limits::SETTINGS_FILE).map_err(FileError::Unreadable);
        let providers = read.and_then(|text| parse(&text)).unwrap_or_else(|error| vec![Err(error)]);
        for provider in providers {
            let first = provider.and_then(|provider| match names.insert(provider.name.clone()) {
                true => Ok(provider),
                false => Err(FileError::Twice(provider.name)),
            });
            match first {
                Ok(provider) => settings.providers.push(provider),
                Err(error) => settings.problems.push(SettingsError::File { path: path.clone(), error }),
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

fn parse(text: &str) -> Result<Vec<Result<Provider, FileError>>, FileError> {
    let value = stanchion_pod::from_yaml(text).map_err(FileError::Syntax)?;
    let File { api_version, kind, providers } = serde_json::from_value(value).map_err(FileError::Fields)?;
    if kind != "CredentialProviderConfig" || !FILE_VERSIONS.contains(&&*api_version) {
        return Err(FileError::OtherKind { kind, version: api_version });
    }
    if providers.is_empty() {
        return Err(FileError::NoProviders);
    }
    let check = |(number, value): (usize, Value)| {
        let checked = serde_json::from_value(value).map_err(InvalidProvider::Fields).and_then(check);
        checked.map_err(|error| FileError::Provider { number, error })
    };
    Ok(providers.into_iter().enumerate().map(check).collect())
}

fn check(raw: Raw) -> Result<Provider, InvalidProvider> {
    let Raw { name, match_images, default_cache_duration, api_version, args, env, token_attributes } = raw;
    if name.is_empty() || [".", ".."].contains(&&*name) || name.contains(['/', '\\', ' ']) {
        return Err(InvalidProvider::Name(name));
    }
    if match_images.is_empty() {
        return Err(InvalidProvider::NoImages(name));
    }
    if let Some(image) = match_images.iter().find(|image| image.is_empty() || image.contains("://")) {
        return Err(InvalidProvider::Image { name, image: image.clone() });
    }
    if !PLUGIN_VERSIONS.contains(&&*api_version) {
        return Err(InvalidProvider::Version { name, version: api_version });
    }
    let Some(text) = default_cache_duration else { return Err(InvalidProvider::NoDuration(name)) };
    let Some(cache_duration) = duration(&text) else { return Err(InvalidProvider::Duration { name, text }) };
    if token_attributes.is_some() {
        return Err(InvalidProvider::Tokens(name));
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
