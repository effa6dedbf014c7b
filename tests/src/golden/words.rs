//! Translation of a machine's values into the recording's placeholders, as the recordings were normalised.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// Pairs of a node's text and the recording's text for it. They translate both ways: the node's output, and the
/// recording's manifests and commands.
#[derive(Clone, Debug, Default)]
pub struct Words {
    pairs: Vec<(String, String)>,
}

impl Words {
    /// Makes a translation from pairs of a node's text and the recording's.
    #[must_use]
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self { pairs }
    }

    /// Translates the recording's manifests and commands for this node.
    #[must_use]
    pub fn ours(&self, text: &str) -> String {
        let manifests = self.pairs.iter().filter(|(_, theirs)| !theirs.starts_with('<'));
        manifests.fold(text.to_owned(), |text, (ours, theirs)| text.replace(theirs, ours))
    }

    /// Translates a node's text into the recording's.
    #[must_use]
    pub fn theirs(&self, text: &str) -> String {
        let text = placeholders(text);
        let text = self.pairs.iter().fold(text, |text, (ours, theirs)| match ours.parse::<IpAddr>() {
            Ok(_) => addresses(&text, ours, theirs),
            Err(_) => text.replace(ours, theirs),
        });
        // The recorder's node had one address.
        text.replace("<hostIP>,<hostIP>", "<hostIP>")
    }

    /// Returns this translation with a pod's own addresses added.
    #[must_use]
    pub fn of(&self, pod: &Value) -> Self {
        let mut words = self.clone();
        let lists = [("hostIPs", "<hostIP>"), ("podIPs", "<podIP>")];
        for (list, word) in lists {
            let ips = pod["status"][list].as_array().into_iter().flatten();
            words.pairs.extend(ips.filter_map(|ip| Some((ip["ip"].as_str()?.to_owned(), word.to_owned()))));
        }
        words
    }

    /// Translates a pod into the recording's terms. Removes nulls, which are as good as absent, and `apiVersion` and
    /// `kind`: the recordings are items of a list.
    #[must_use]
    pub fn pod(&self, pod: &Value) -> Value {
        let mut pod = self.of(pod).walk("", pod, "");
        if let Some(pod) = pod.as_object_mut() {
            pod.retain(|name, _| name != "apiVersion" && name != "kind");
        }
        pod
    }

    fn walk(&self, key: &str, value: &Value, parent: &str) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| !value.is_null());
                fields.map(|(name, value)| (name.clone(), self.walk(name, value, key))).collect::<Map<_, _>>().into()
            }
            Value::Array(items) => items.iter().map(|item| self.walk(key, item, parent)).collect(),
            Value::String(text) => match (parent, key) {
                (_, "imageID") if !text.is_empty() => "<imageID>".into(),
                (_, "containerID") if !text.is_empty() => "<id>".into(),
                ("metadata", "uid") | ("annotations", "kubernetes.io/config.hash") => "<uid>".into(),
                _ => self.theirs(text).into(),
            },
            Value::Number(number) => {
                let (number, pairs) = (number.to_string(), self.pairs.iter());
                let theirs =
                    pairs.filter(|(ours, _)| *ours == number).find_map(|(_, theirs)| theirs.parse::<u64>().ok());
                theirs.map_or_else(|| value.clone(), Value::from)
            }
            other => other.clone(),
        }
    }
}

/// Replaces ids, UIDs and times with `<id>`, `<uid>` and `<time>`.
fn placeholders(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(next) = rest.chars().next() {
        let is_start = !before.is_some_and(|it: char| it.is_ascii_alphanumeric() || it == '_');
        let known = if is_start { time(rest).or_else(|| id(rest)) } else { None };
        let (length, word) = known.unwrap_or_else(|| (next.len_utf8(), &rest[..next.len_utf8()]));
        found.push_str(word);
        before = rest[..length].chars().next_back();
        rest = &rest[length..];
    }
    found
}

/// Returns the length of the time that a text begins with.
fn time(text: &str) -> Option<(usize, &'static str)> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    if bytes.len() <= SHAPE.len() || !bytes.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let mut end = SHAPE.len();
    if bytes[end] == b'.' {
        end += 1 + bytes[end + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
    let zone = match bytes.get(end)? {
        b'Z' => 1,
        b'+' | b'-' => 6,
        _ => return None,
    };
    (end + zone <= bytes.len()).then_some((end + zone, "<time>"))
}

/// Returns the length of the id or UID that a text begins with.
fn id(text: &str) -> Option<(usize, &'static str)> {
    let schemes = ["containerd://", "docker://"];
    let scheme = schemes.into_iter().find(|scheme| text.starts_with(scheme)).map_or(0, str::len);
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let hex = text.as_bytes()[scheme..].iter().take_while(|byte| is_hex(byte)).count();
    let ends = |at: usize| !text[at..].starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    match hex {
        64 if ends(scheme + 64) => Some((scheme + 64, "<id>")),
        32 if scheme == 0 && ends(32) => Some((32, "<uid>")),
        8 if scheme == 0 => {
            let text = text.get(..36)?;
            let groups: Vec<_> = text.split('-').map(str::len).collect();
            let is_uid = groups == [8, 4, 4, 4, 12] && text.bytes().all(|it| it == b'-' || is_hex(&it));
            is_uid.then_some((36, "<uid>"))
        }
        _ => None,
    }
}

/// Replaces an address where it is not part of another.
fn addresses(text: &str, ours: &str, theirs: &str) -> String {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(ours) {
        let (before, after) = (&rest[..at], &rest[at + ours.len()..]);
        let is_digit = |it: char| it.is_ascii_digit();
        let goes_on = before.ends_with(|it| is_digit(it) || it == '.')
            || after.starts_with(is_digit)
            || after.strip_prefix('.').is_some_and(|after| after.starts_with(is_digit));
        found.push_str(before);
        found.push_str(if goes_on { ours } else { theirs });
        rest = after;
    }
    found + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_gives_way_and_nothing_else() {
        let words = Words::new(vec![("node-1".into(), "knode".into()), ("10.0.0.1".into(), "<hostIP>".into())]);
        let (id, uid) = ("a".repeat(64), "0123456789abcdef".repeat(2));
        let text = format!("\"{id}\" of a-node-1({uid}) at 2026-11-28T07:00:00.12Z on 10.0.0.1:80");
        assert_eq!(words.theirs(&text), "\"<id>\" of a-knode(<uid>) at <time> on <hostIP>:80");
        assert_eq!(words.theirs("10.0.0.10 10.0.0.1.2 abcdef01-1"), "10.0.0.10 10.0.0.1.2 abcdef01-1");
        assert_eq!(words.theirs("12345678-1234-1234-1234-123456789abc"), "<uid>");
        assert_eq!(words.ours("a-knode <hostIP>"), "a-node-1 <hostIP>");
    }
}
