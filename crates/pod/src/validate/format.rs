//! Formats of names (R-VAL, section 3.3). Each function returns all its objections to a text.

/// Objections of a format to a text.
pub(super) type Objections = Vec<String>;

fn longer_than(text: &str, most: usize) -> Objections {
    match text.len() > most {
        true => vec![format!("must be no more than {most} characters")],
        false => Vec::new(),
    }
}

/// Checks the length of a label's key or value, for which the server has other words.
fn more_bytes_than(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} bytes"))
}

/// Formats `explanation (e.g. 'a',  or 'b', regex used for validation is 're')` (R-VAL-4).
fn pattern(explanation: &str, examples: &[&str], regex: &str) -> String {
    let mut examples: Vec<_> = examples.iter().map(|example| format!("'{example}'")).collect();
    if let Some(first) = examples.first_mut() {
        first.insert_str(0, "e.g. ");
    }
    let examples = examples.join(",  or ");
    format!("{explanation} ({examples}, regex used for validation is '{regex}')")
}

/// Returns whether a text is a label of an RFC 1123 name.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Checks a DNS label: at most 63 bytes.
pub(super) fn dns_label(text: &str) -> Objections {
    let mut objections = longer_than(text, 63);
    if !is_label(text) {
        objections.push(match is_subdomain(text) {
            true => "must not contain dots".to_owned(),
            false => pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                 with an alphanumeric character",
                &["my-name", "123-abc"],
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            ),
        });
    }
    objections
}

/// Checks labels joined by dots: at most 253 bytes.
pub(super) fn dns_subdomain(text: &str) -> Objections {
    let mut objections = longer_than(text, 253);
    if !is_subdomain(text) {
        objections.push(subdomain_pattern());
    }
    objections
}

fn subdomain_pattern() -> String {
    pattern(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character",
        &["example.com"],
        "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    )
}

/// Checks a prefix of a DNS subdomain, to which something will be appended: it may end in a dash.
pub(super) fn dns_subdomain_prefix(text: &str) -> Objections {
    // The server replaces the last two characters with one that is valid, and checks that text.
    match text.len().checked_sub(2).and_then(|length| text.get(..length)) {
        Some(before) if text.ends_with('-') => dns_subdomain(&format!("{before}a")),
        _ => dns_subdomain(text),
    }
}

/// Checks a search domain: as [`dns_subdomain`], but with underscores, as resolvers take them.
pub(super) fn search_domain(text: &str) -> Objections {
    let is_part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|byte| is_edge(*byte))
            && bytes.last().is_some_and(|byte| is_edge(*byte))
            && bytes.iter().all(|byte| is_edge(*byte) || matches!(byte, b'-' | b'_'))
    };
    let mut objections = longer_than(text, 253);
    if !text.split('.').all(is_part) {
        objections.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must \
             start and end with an alphanumeric character",
            &["example.com"],
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
        ));
    }
    objections
}

fn is_name(text: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_alphanumeric();
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    bytes.first().is_some_and(is_edge) && bytes.last().is_some_and(is_edge) && text.bytes().all(is_inner)
}

fn name_pattern(subject: &str) -> String {
    pattern(
        &format!(
            "{subject} must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character"
        ),
        &["MyName", "my.name", "123-abc"],
        "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
    )
}

/// Checks `[prefix/]name`, the format of keys of labels and annotations.
pub(super) fn qualified_name(text: &str) -> Objections {
    let mut objections = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let optional = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![name_pattern("a valid label key") + optional];
        }
        Some(("", name)) => {
            objections.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let pattern = (!is_subdomain(prefix)).then(subdomain_pattern);
            let found = more_bytes_than(prefix, 253).into_iter().chain(pattern);
            objections.extend(found.map(|it| format!("prefix part {it}")));
            name
        }
    };
    match name {
        "" => objections.push("name part must be non-empty".to_owned()),
        name => objections.extend(more_bytes_than(name, 63).map(|it| format!("name part {it}"))),
    }
    if !is_name(name) {
        objections.push(name_pattern("name part"));
    }
    objections
}

/// Checks a label's value.
pub(super) fn label_value(text: &str) -> Objections {
    let mut objections: Vec<_> = more_bytes_than(text, 63).into_iter().collect();
    if !text.is_empty() && !is_name(text) {
        objections.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character",
            &["MyValue", "my_value", "12345"],
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
        ));
    }
    objections
}

/// Checks a port's name.
pub(super) fn port_name(text: &str) -> Objections {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let mut objections = longer_than(text, 15);
    if text.is_empty() || !text.bytes().all(is_inner) {
        objections.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        objections.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        objections.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        objections.push("must not begin or end with a hyphen".to_owned());
    }
    objections
}

/// Checks an environment variable's name.
pub(super) fn env_name(text: &str) -> Objections {
    match text {
        "" => vec!["environment variable name must be non-empty".to_owned()],
        text if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') => Vec::new(),
        _ => vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ],
    }
}

/// Checks a key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Objections {
    let mut objections = longer_than(text, 253);
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(is_inner) {
        objections.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            &["key.name", "KEY_NAME", "key-name"],
            "[-._a-zA-Z0-9]+",
        ));
    }
    match text {
        "." => objections.push("must not be '.'".to_owned()),
        ".." => objections.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => objections.push("must not start with '..'".to_owned()),
        _ => {}
    }
    objections
}

/// Checks the name of an HTTP header.
pub(super) fn header_name(text: &str) -> Objections {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        true => Vec::new(),
        false => vec![pattern(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            &["X-Header-Name"],
            "[-A-Za-z0-9]+",
        )],
    }
}

/// Checks an IP address, which must have no leading zeros and no zone.
pub(super) fn ip(text: &str) -> Objections {
    use std::net::{IpAddr, Ipv4Addr};
    match text.parse() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Vec::new(),
        Err(_) => {
            // Kubernetes once accepted leading zeros; now it reports them.
            let without_zeros = |part: &str| match part.trim_start_matches('0') {
                "" => part.get(..1).unwrap_or_default().to_owned(),
                rest => rest.to_owned(),
            };
            let plain = text.split('.').map(without_zeros).collect::<Vec<_>>().join(".");
            let is_sloppy = plain.parse::<Ipv4Addr>().is_ok();
            match is_sloppy {
                true => vec!["must not have leading 0s".to_owned()],
                false => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
            }
        }
    }
}

/// Returns whether a text is a sysctl's name, with dots or slashes.
pub(super) fn is_sysctl(text: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(|byte| is_edge(*byte))
            && bytes.last().is_some_and(|byte| is_edge(*byte))
            && bytes.iter().all(|byte| is_edge(*byte) || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split(['.', '/']).all(is_segment)
}

/// Checks a relative path, which must stay below where it starts.
pub(super) fn descending_path(text: &str) -> Objections {
    let mut objections = Vec::new();
    if text.starts_with('/') {
        objections.push("must be a relative path".to_owned());
    }
    objections.extend(no_backsteps(text));
    objections
}

/// Checks a path, which must have no `..`.
pub(super) fn no_backsteps(text: &str) -> Objections {
    match text.split('/').any(|step| step == "..") {
        true => vec!["must not contain '..'".to_owned()],
        false => Vec::new(),
    }
}

/// Checks a [`descending_path`], which must not begin with `..`: the kubelet uses such names.
pub(super) fn unreserved_path(text: &str) -> Objections {
    let mut objections = descending_path(text);
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        objections.push("must not start with '..'".to_owned());
    }
    objections
}
