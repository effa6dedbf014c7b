//! K3s's `registries.yaml`: settings for registries. K3s's pulls follow it through CRI and patches of its own
//! containerd; ours go to registries directly, and read the same file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use libyaml_safer::{Event, EventData, Parser};
use serde::Deserialize;
use serde_json::{Map, Value};
use stanchion_containerd::RegistryConfig;
use stanchion_untrusted::Links;

use crate::limits;

/// Used part of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, Access>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mirror {
    endpoint: Vec<String>,
    rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Access {
    auth: Auth,
    tls: Tls,
}

// Omits password and token (I10).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identity_token: Option<String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure_skip_verify: Value,
}

/// Reads the file. An absent file has no settings; an unreadable one is logged, and counts as absent.
pub fn read(path: &Path) -> BTreeMap<String, RegistryConfig> {
    let text = match stanchion_untrusted::read_text(path, Links::Follow, limits::REGISTRIES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        text => text.map_err(|error| error.to_string()),
    };
    let read = text.and_then(|text| parse(&text));
    let (registries, wrong) = read.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), error, "K3s's registries.yaml cannot be read and is left out");
        (BTreeMap::new(), Vec::new())
    });
    for wrong in wrong {
        tracing::warn!(path = %path.display(), wrong, "something in K3s's registries.yaml is wrong; the rest of it counts");
    }
    registries
}

/// Returns the settings of registries, and what is wrong and left out.
fn parse(text: &str) -> Result<(BTreeMap<String, RegistryConfig>, Vec<String>), String> {
    let value = std::panic::catch_unwind(|| document(text)).map_err(|_| "its parser cannot read it".to_owned())??;
    let file: Registries = match value {
        Value::Null => Registries::default(),
        value => serde_json::from_value(value).map_err(|error| error.to_string())?,
    };
    let mut registries: BTreeMap<String, RegistryConfig> = BTreeMap::new();
    for (host, mirror) in file.mirrors {
        let registry = registries.entry(host).or_default();
        registry.mirrors = mirror.endpoint;
        registry.rewrite = mirror.rewrite;
    }
    let mut wrong = Vec::new();
    for (host, Access { auth, tls }) in file.configs {
        // The file may have a URL in place of a host.
        let host = host.rsplit("://").next().unwrap_or_default().trim_end_matches('/').to_owned();
        let registry = registries.entry(host.clone()).or_default();
        registry.ca_file = tls.ca_file;
        let skips = &tls.insecure_skip_verify;
        registry.insecure_skip_verify = skips.as_str().and_then(boolean).unwrap_or_else(|| {
            if !skips.is_null() {
                wrong.push(format!(
                    "configs.{host}.tls.insecure_skip_verify: {skips} is no boolean and counts as false"
                ));
            }
            false
        });
        if tls.cert_file.is_some() == tls.key_file.is_some() {
            (registry.cert_file, registry.key_file) = (tls.cert_file, tls.key_file);
        } else {
            tracing::warn!(host, "cert_file and key_file of registries.yaml must be set together: one is missing");
        }
        auth.give(registry);
    }
    wrong.extend(registries.iter_mut().flat_map(|(host, registry)| drop_wrong_rewrites(host, registry)));
    Ok((registries, wrong))
}

/// Removes rewrites that are no patterns, and returns their errors. Mirrors, other rewrites and other hosts stay.
fn drop_wrong_rewrites(host: &str, registry: &mut RegistryConfig) -> Vec<String> {
    let mut wrong = Vec::new();
    while let Some((pattern, error)) = registry.wrong_rewrite() {
        let pattern = pattern.to_owned();
        wrong.push(format!("mirrors.{host}.rewrite: {pattern:?} is no regular expression and is left out: {error}"));
        registry.rewrite.remove(&pattern);
    }
    wrong
}

impl Auth {
    /// Sets a registry's credentials. The first that is there counts, as with K3s: the user name with its password, the
    /// identity token, `auth`.
    fn give(self, registry: &mut RegistryConfig) {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let identity_token = some(self.identity_token);
        match some(self.username) {
            Some(username) => {
                (registry.username, registry.password) = (Some(username), Some(self.password.unwrap_or_default()));
            }
            None if identity_token.is_some() => registry.identity_token = identity_token,
            None => {
                let pair = self.auth.and_then(|text| decode(&text));
                let pair = pair.as_deref().and_then(|text| text.split_once(':'));
                (registry.username, registry.password) =
                    pair.map(|(name, it)| (name.to_owned(), it.to_owned())).unzip();
            }
        }
    }
}

/// Decodes base64, as `auth` is written.
fn decode(text: &str) -> Option<String> {
    const PADDED_OR_NOT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    String::from_utf8(PADDED_OR_NOT.decode(text.trim()).ok()?).ok()
}

/// Parses a YAML document with every scalar as text: registries.yaml has names, addresses and words only.
fn document(text: &str) -> Result<Value, String> {
    let text = format!("{text}\n");
    let mut bytes = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut root = Value::Null;
    for event in parser {
        let Event { data, .. } = event.map_err(|error| error.to_string())?;
        if open.len() > limits::DEPTH {
            return Err(format!("it is nested more than {} deep", limits::DEPTH));
        }
        let whole = match data {
            EventData::MappingStart { .. } => {
                open.push((Value::Object(Map::new()), None));
                continue;
            }
            EventData::SequenceStart { .. } => {
                open.push((Value::Array(Vec::new()), None));
                continue;
            }
            EventData::MappingEnd | EventData::SequenceEnd => open.pop().map(|(value, _)| value).unwrap_or_default(),
            EventData::Scalar { value, style, .. } => {
                match style == libyaml_safer::ScalarStyle::Plain && is_null(&value) {
                    true => Value::Null,
                    false => Value::String(value),
                }
            }
            EventData::Alias { .. } => return Err("aliases (*) are not read; write it out".to_owned()),
            _ => continue,
        };
        match open.last_mut() {
            None => root = whole,
            Some((Value::Array(items), _)) => items.push(whole),
            Some((Value::Object(map), key)) => match key.take() {
                None => *key = Some(whole.as_str().unwrap_or_default().to_owned()),
                // A key without a value counts as absent.
                Some(name) if !whole.is_null() => drop(map.insert(name, whole)),
                Some(_) => {}
            },
            Some(_) => {}
        }
    }
    Ok(root)
}

/// Reads a boolean as K3s does: its parser, gopkg.in/yaml.v2, knows those of YAML 1.1.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::{decode, parse};

    #[test]
    fn mirrors_rewrites_credentials_and_trust_are_taken_over() {
        let text = r#"
mirrors:
  docker.io:
    endpoint:
      - "https://mirror.example:5000/v2/hub"
      - http://10.0.0.1:5000
    rewrite:
      "^rancher/(.*)": "mirrored/$1"
  "*":
    endpoint: ["https://all.example"]
  quay.io:
configs:
  "mirror.example:5000":
    auth:
      username: me
      password: "secret: #1"
    tls:
      ca_file: /etc/ca.pem
      insecure_skip_verify: true
  10.0.0.1:5000:
    auth: {auth: eW91OnlvdXJz}
  https://tokens.example/:
    auth: {username: "", password: "", identity_token: secret, auth: eW91OnlvdXJz}
    tls: {cert_file: /etc/c.pem, key_file: /etc/k.pem}
  keyless.example:
    tls: {cert_file: /etc/c.pem}
"#;
        let (registries, wrong) = parse(text).expect("it is right");
        assert_eq!(wrong, Vec::<String>::new());
        let hub = &registries["docker.io"];
        assert_eq!(hub.mirrors, ["https://mirror.example:5000/v2/hub", "http://10.0.0.1:5000"]);
        assert_eq!(hub.rewrite["^rancher/(.*)"], "mirrored/$1");
        assert_eq!(registries["*"].mirrors, ["https://all.example"]);
        let mirror = &registries["mirror.example:5000"];
        assert_eq!((mirror.username.as_deref(), mirror.password.as_deref()), (Some("me"), Some("secret: #1")));
        assert!(mirror.insecure_skip_verify && mirror.ca_file.as_ref().is_some_and(|path| path.ends_with("ca.pem")));
        let other = &registries["10.0.0.1:5000"];
        assert_eq!((other.username.as_deref(), other.password.as_deref()), (Some("you"), Some("yours")));
        let third = &registries["tokens.example"];
        assert_eq!((third.identity_token.as_deref(), third.username.as_deref()), (Some("secret"), None));
        let files = (third.cert_file.as_deref(), third.key_file.as_deref());
        assert_eq!(files, (Some("/etc/c.pem".as_ref()), Some("/etc/k.pem".as_ref())));
        assert_eq!(registries["keyless.example"].cert_file, None, "it would be refused");
        assert!(!format!("{registries:?}").contains("secret"), "I10");
        assert!(parse("").expect("empty").0.is_empty());
    }

    #[test]
    fn mistakes_are_told() {
        assert!(parse("mirrors: [").is_err());
        let error = parse(&"[".repeat(5000)).expect_err("too deep");
        assert!(error.contains("nested more than 32 deep"), "{error}");
    }

    #[test]
    fn booleans_are_those_of_yaml_1_1() {
        let of = |written: &str| {
            let text = format!("configs:\n  a.example:\n    tls:\n      insecure_skip_verify: {written}\n");
            let (registries, wrong) = parse(&text).expect("it is right");
            (registries["a.example"].insecure_skip_verify, wrong.len())
        };
        for yes in ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"] {
            assert_eq!(of(yes), (true, 0), "{yes}");
        }
        for no in ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N", "", "~", "null"] {
            assert_eq!(of(no), (false, 0), "{no}");
        }
        for wrong in ["tRUE", "1", "truly", "[true]", "{a: b}"] {
            assert_eq!(of(wrong), (false, 1), "{wrong}");
        }
    }

    #[test]
    fn a_rewrite_that_is_no_pattern_costs_nothing_else() {
        let rewrites = "{'(': a, '^b/(.*)': 'c/$1', '[': d}";
        let hub = format!("{{endpoint: ['https://m.example'], rewrite: {rewrites}}}");
        let text = format!(
            "mirrors: {{docker.io: {hub}, quay.io: {{endpoint: ['https://n.example']}}}}\nconfigs: {{m.example: {{auth: {{username: me}}}}}}"
        );
        let (registries, wrong) = parse(&text).expect("what is wrong is left out");
        assert!(wrong.len() == 2 && wrong.iter().all(|it| it.contains("mirrors.docker.io.rewrite")), "{wrong:?}");
        assert!(
            wrong.iter().any(|it| it.contains("\"(\"")) && wrong.iter().any(|it| it.contains("\"[\"")),
            "{wrong:?}"
        );
        let hub = &registries["docker.io"];
        assert!(hub.mirrors.len() == 1 && hub.rewrite.keys().eq(["^b/(.*)"]), "{hub:?}");
        assert_eq!((registries["quay.io"].mirrors.len(), registries["m.example"].username.as_deref()), (1, Some("me")));
    }

    #[test]
    fn base64_may_lack_its_padding() {
        let texts = ["YTpi", "YTpiYw==", "YTpiYw", " YTpi\n", "a b", "/w=="];
        assert_eq!(texts.map(|text| decode(text).unwrap_or_default()), ["a:b", "a:bc", "a:bc", "a:b", "", ""]);
    }
}
