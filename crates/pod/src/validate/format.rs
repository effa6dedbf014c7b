//! Formats of names (R-VAL, names).

/// Part of an RFC 1123 name.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS label: at most 63 bytes.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 bytes".to_owned());
    }
    match is_label(text) {
        true => Ok(()),
        false => {
            Err("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned())
        }
    }
}

/// Labels joined by dots: at most 253 bytes.
pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("must be no more than 253 bytes".to_owned());
    }
    match text.split('.').all(is_label) {
        true => Ok(()),
        false => {
            Err("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
             must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned())
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_alphanumeric();
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    bytes.first().is_some_and(is_edge) && bytes.last().is_some_and(is_edge) && text.bytes().all(is_inner)
}

/// `[prefix/]name`, as keys of labels and annotations are.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        dns_subdomain(prefix).map_err(|detail| format!("prefix part {detail}"))?;
    }
    match () {
        () if name.is_empty() => Err("name part must be non-empty".to_owned()),
        () if name.len() > 63 => Err("name part must be no more than 63 bytes".to_owned()),
        () if is_name(name) => Ok(()),
        () => {
            Err("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                .to_owned())
        }
    }
}

/// A label's value.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    match () {
        () if text.len() > 63 => Err("must be no more than 63 bytes".to_owned()),
        () if text.is_empty() || is_name(text) => Ok(()),
        () => Err(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        ),
    }
}

/// A port's name.
pub(super) fn port_name(text: &str) -> Result<(), String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match () {
        () if text.len() > 15 => Err("must be no more than 15 characters".to_owned()),
        () if !text.bytes().all(is_inner) => {
            Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned())
        }
        () if !text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            Err("must contain at least one letter (a-z)".to_owned())
        }
        () if text.contains("--") => Err("must not contain consecutive hyphens".to_owned()),
        () if text.starts_with('-') || text.ends_with('-') => Err("must not begin or end with a hyphen".to_owned()),
        () => Ok(()),
    }
}

/// An environment variable's name.
pub(super) fn env_name(text: &str) -> Result<(), String> {
    match text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
        true => Ok(()),
        false => {
            Err("a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned())
        }
    }
}
