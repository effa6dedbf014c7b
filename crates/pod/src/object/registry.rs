//! Credentials for registries in Secrets, in the formats of `docker login` and `kubectl create secret docker-registry`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::ByteString;
use serde::Deserialize;

use super::Secret;

/// Credential of a user of a registry. `Debug` shows the user name only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
    /// Identity token, in place of the password: the token server gives access tokens for it. Empty is none.
    pub identity_token: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    /// `user:password` in base64.
    auth: Option<ByteString>,
    /// Identity token, as `docker login` stores it if the token server gives one. kubelet does not know it.
    identitytoken: Option<String>,
}

impl Secret {
    /// Returns the credentials for an image by its full reference, the most specific key of `auths` first (R-IMG-9). A
    /// Secret of another type, or one that cannot be parsed, has none.
    #[must_use]
    pub fn credentials(&self, reference: &str) -> Vec<Credential> {
        let auths = match self.kind.as_str() {
            "kubernetes.io/dockerconfigjson" => {
                let config = self.data.get(".dockerconfigjson");
                config.and_then(|json| serde_json::from_slice::<Config>(json).ok()).map(|config| config.auths)
            }
            // The older format has the content of `auths` only.
            "kubernetes.io/dockercfg" => self.data.get(".dockercfg").and_then(|json| serde_json::from_slice(json).ok()),
            _ => None,
        };
        matching(auths.unwrap_or_default(), reference)
    }
}

/// Returns the credentials for an image by its full reference from `table`, the `auths` of Docker's config.json, the
/// most specific key first. A table that cannot be parsed has none.
#[must_use]
pub fn credentials_in(table: &[u8], reference: &str) -> Vec<Credential> {
    matching(serde_json::from_slice(table).unwrap_or_default(), reference)
}

fn matching(auths: BTreeMap<String, Entry>, reference: &str) -> Vec<Credential> {
    let mut matching: Vec<_> = auths
        .into_iter()
        .filter_map(|(place, entry)| {
            let place = normal(&place);
            covers(&place, reference).then_some(())?;
            Some((place.len(), entry.credential()?))
        })
        .collect();
    matching.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    matching.into_iter().map(|(_, credential)| credential).collect()
}

impl Entry {
    fn credential(self) -> Option<Credential> {
        // The token wins over the password beside it, as in Docker, where the password is then only a filler.
        if let Some(identity_token) = self.identitytoken.filter(|token| !token.is_empty()) {
            return Some(Credential { identity_token, ..Credential::default() });
        }
        if let Some(username) = self.username.filter(|name| !name.is_empty()) {
            return Some(Credential { username, password: self.password.unwrap_or_default(), ..Credential::default() });
        }
        let pair = String::from_utf8(self.auth?.0).ok()?;
        let (username, password) = pair.split_once(':')?;
        let password = password.trim_end_matches('\0').to_owned();
        Some(Credential { username: username.to_owned(), password, ..Credential::default() })
    }
}

/// Normalizes a key of `auths` to the form of image references: without scheme and API version, and Docker's own
/// registry as `docker.io`.
fn normal(place: &str) -> String {
    let place = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let place = place.trim_end_matches('/');
    let place = place.strip_suffix("/v1").or_else(|| place.strip_suffix("/v2")).unwrap_or(place);
    match place {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        place => place.to_owned(),
    }
}

/// Returns whether a key of `auths` covers an image: the host matches label by label, with `*` for any part of a label,
/// the port is the same, and the path begins with the key's.
fn covers(place: &str, reference: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (image_host, image_path) = reference.split_once('/').unwrap_or((reference, ""));
    let ((host, port), (image_host, image_port)) = (split_port(host), split_port(image_host));
    let (labels, image_labels): (Vec<_>, Vec<_>) = (host.split('.').collect(), image_host.split('.').collect());
    let is_host = labels.len() == image_labels.len()
        && labels.iter().zip(&image_labels).all(|(pattern, label)| is_like(pattern, label));
    let below = image_path.strip_prefix(path);
    is_host
        && port == image_port
        && below.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // A colon in brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Returns whether a text matches a pattern in which `*` stands for any text. Takes each part between stars where it
/// comes first: no pattern makes it backtrack.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Credential, Secret, covers, normal};

    #[test]
    fn places_cover_images() {
        for (place, reference, expected) in [
            ("registry.example", "registry.example/app:1", true),
            ("registry.example:5000", "registry.example/app:1", false),
            ("registry.example", "registry.example:5000/app:1", false),
            ("registry.*", "registry.example:5000/app:1", false),
            ("registry.*:5000", "registry.example:5000/app:1", true),
            ("r*s*y.example", "registry.example/app:1", true),
            ("r*y*y.example", "registry.example/app:1", false),
            (&format!("{}b.example", "*a".repeat(40)), &format!("{}.example/app:1", "a".repeat(60)), false),
            ("https://registry.example/v2/", "registry.example/app:1", true),
            ("*.example", "registry.example/app:1", true),
            ("*.example", "a.registry.example/app:1", false),
            ("registry.example/team", "registry.example/team/app:1", true),
            ("registry.example/team", "registry.example/teams/app:1", false),
            ("https://index.docker.io/v1/", "docker.io/library/redis:latest", true),
        ] {
            assert_eq!(covers(&normal(place), reference), expected, "{place} {reference}");
        }
    }

    #[test]
    fn the_most_specific_credentials_come_first_and_are_not_shown() {
        let json =
            br#"{"auths": {"r.example": {"auth": "YTpodW50ZXIy"}, "r.example/team": {"username": "b", "password": "c"},
            "r.example/team/app": {"auth": "MDAwMDow", "identitytoken": "hunter3"}}}"#;
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), json.to_vec())]);
        let secret = Secret { kind: "kubernetes.io/dockerconfigjson".to_owned(), data };
        let found = secret.credentials("r.example/team/app:1");
        let parts = |it: &Credential| [it.username.clone(), it.password.clone(), it.identity_token.clone()];
        let parts: Vec<_> = found.iter().map(parts).collect();
        assert_eq!(parts, [["", "", "hunter3"], ["b", "c", ""], ["a", "hunter2", ""]], "R-IMG-9");
        assert!(!format!("{found:?} {secret:?}").contains("hunter"), "I10");
        assert!(secret.credentials("other.example/app:1").is_empty());
    }
}
