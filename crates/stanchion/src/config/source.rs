//! `[[source]]`: sources of manifests.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use stanchion_agent::config::{FileSource, Kubelet, SourceConfig, UrlSource};

use super::time_or;

/// Default time between two requests (R-HTTP-1).
const INTERVAL: Duration = Duration::from_secs(20);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Default time for which the kubelet must not answer before Stanchion takes over its pods.
const ABSENT_FOR: Duration = Duration::from_secs(60);

/// The table as written. It may hold secrets, so it is never shown as a whole.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSource {
    path: Option<PathBuf>,
    kubelet: Option<SocketAddr>,
    kubelet_absent_for: Option<String>,
    kubelet_runtime_state: Option<Vec<PathBuf>>,
    kubelet_lock_file: Option<PathBuf>,
    url: Option<String>,
    interval: Option<String>,
    headers: BTreeMap<String, Values>,
    headers_file: Option<PathBuf>,
    allow_empty: Option<bool>,
}

/// One value of a header, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

impl RawSource {
    /// Returns the paths with their keys.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let paths = [
            ("source.path", &self.path),
            ("source.headers_file", &self.headers_file),
            ("source.kubelet_lock_file", &self.kubelet_lock_file),
        ];
        paths.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)))
    }

    /// Checks the source.
    pub fn check(self) -> Result<SourceConfig, String> {
        match (&self.path, &self.url) {
            (Some(_), None) => self.files().map(SourceConfig::Files),
            (None, Some(_)) => self.url().map(SourceConfig::Url),
            (Some(path), Some(_)) => {
                Err(format!("source {} has a url too: make it two sources, of two tables [[source]]", path.display()))
            }
            (None, None) => Err("a [[source]] has neither path nor url".to_owned()),
        }
    }

    fn files(self) -> Result<FileSource, String> {
        let path = self.path.clone().unwrap_or_default();
        let of_url = [self.interval.is_some(), !self.headers.is_empty(), self.headers_file.is_some()];
        if of_url.contains(&true) || self.allow_empty.is_some() {
            return Err(format!("source {} has settings of a url", path.display()));
        }
        if self.kubelet.is_none() && self.is_of_kubelet() {
            let path = path.display();
            return Err(format!("source {path} has settings of a kubelet: set kubelet = \"127.0.0.1:10248\" too"));
        }
        let Some(address) = self.kubelet else { return Ok(FileSource { path, kubelet: None }) };
        let absent_for = time_or("source.kubelet_absent_for", self.kubelet_absent_for.as_deref(), ABSENT_FOR)?;
        let runtime_state = self
            .kubelet_runtime_state
            .unwrap_or_else(|| ["/run/k3s/containerd", "/run/containerd"].map(PathBuf::from).to_vec());
        let lock_file = self.kubelet_lock_file;
        Ok(FileSource { path, kubelet: Some(Kubelet { address, absent_for, runtime_state, lock_file }) })
    }

    /// Returns whether the source has any setting of a kubelet.
    fn is_of_kubelet(&self) -> bool {
        let set = [self.kubelet.is_some(), self.kubelet_absent_for.is_some()];
        set.contains(&true) || self.kubelet_runtime_state.is_some() || self.kubelet_lock_file.is_some()
    }

    fn url(self) -> Result<UrlSource, String> {
        // The error does not show the value, which may hold a password.
        let url = self.url.as_deref().unwrap_or_default().parse().map_err(|error| format!("source.url: {error}"))?;
        if self.is_of_kubelet() {
            return Err(format!("source {url} has settings of a kubelet, which has manifests in files only"));
        }
        let interval = time_or("source.interval", self.interval.as_deref(), INTERVAL)?;
        if interval < SHORTEST_INTERVAL {
            return Err(format!("source.interval of {url} must be at least {} s", SHORTEST_INTERVAL.as_secs()));
        }
        let (headers, allow_empty) = (headers(self.headers)?, self.allow_empty.unwrap_or(false));
        Ok(UrlSource { url, interval, headers, headers_file: self.headers_file, allow_empty })
    }
}

/// Parses headers; errors name the header and leave out the value.
fn headers(raw: BTreeMap<String, Values>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in raw {
        let parsed: HeaderName = name.parse().map_err(|_| format!("source.headers {name:?} is no name of a header"))?;
        let values = match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        for value in values {
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|_| format!("source.headers.{name} has a value that no header can have"))?;
            value.set_sensitive(true);
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use config::{Config, File, FileFormat};
    use stanchion_agent::config::SourceConfig;

    use super::{INTERVAL, RawSource};

    fn check(toml: &str) -> Result<SourceConfig, String> {
        let built = Config::builder().add_source(File::from_str(toml, FileFormat::Toml)).build();
        built.and_then(Config::try_deserialize::<RawSource>).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn a_url_has_headers_that_nobody_sees() {
        let toml = "url = \"https://a.example/pods?key=hush\"\nheaders = { Authorization = \"Bearer hush\", X-Two = [\"a\", \"b\"] }";
        let SourceConfig::Url(source) = check(toml).expect("it is good") else { panic!("a URL") };
        assert_eq!((source.interval, source.allow_empty), (INTERVAL, false), "R-HTTP-1, R-HTTP-4");
        assert_eq!(source.headers["authorization"], "Bearer hush", "R-HTTP-2");
        assert_eq!(source.headers.get_all("x-two").iter().count(), 2, "R-HTTP-2");
        assert!(!format!("{source:?}").contains("hush"), "I10: {source:?}");
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        for (toml, said) in [
            ("", "neither path nor url"),
            ("path = \"/a\"\nurl = \"http://a/\"", "two sources"),
            ("path = \"/a\"\nallow_empty = true", "settings of a url"),
            ("path = \"/a\"\nkubelet_lock_file = \"/run/kubelet.lock\"", "set kubelet ="),
            ("url = \"http://a/\"\nkubelet = \"127.0.0.1:10248\"", "settings of a kubelet"),
            ("url = \"https://user:hush@a/\"", "set headers instead"),
            ("url = \"a.example/hush\"", "must begin with http:// or https://"),
            ("url = \"http://a/\"\ninterval = \"10ms\"", "at least 1 s"),
            ("url = \"http://a/\"\ninterval = \"often\"", "must be a time"),
            ("url = \"http://a/\"\nheaders = { Authorization = \"hush\\n\" }", "headers.Authorization has a value"),
            ("url = \"http://a/\"\nheaders = { \"a b\" = \"hush\" }", "is no name of a header"),
            ("url = \"http://a/\"\nheaders = { a = [{ hush = 1 }] }", "headers"),
        ] {
            let error = check(toml).expect_err(toml);
            assert!(error.contains(said), "{toml}: {error}");
            assert!(!error.contains("hush"), "I10: {error}");
        }
    }
}
