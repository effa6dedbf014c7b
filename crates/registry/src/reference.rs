//! Image references: `[HOST/]PATH[:TAG][@DIGEST]`.
//!
//! Parsed by hand: the parser of the `Reference` type compiles an expression over all of Unicode's letters, which keeps
//! some 10 MiB of memory: more than the rest of the agent (docs/benchmarks.md).

pub use oci_spec::distribution::Reference;
use stanchion_runtime::{Error, ErrorKind, Result};

/// Longest name, host and path together (distribution's reference grammar).
const LONGEST_NAME: usize = 255;
/// Longest tag.
const LONGEST_TAG: usize = 128;

/// Parses a reference and completes it as Docker does: `redis` is `docker.io/library/redis:latest`.
///
/// # Errors
/// `Invalid`, with the fault.
pub fn parse(text: &str) -> Result<Reference> {
    let wrong =
        |fault: String| Error::new(ErrorKind::Invalid, format!("image reference {text:?} is not valid")).because(fault);
    let (name, tag, digest) = split(text);
    let (host, path) = split_host(name);
    if name.len() > LONGEST_NAME {
        return Err(wrong(format!("its name has {} characters, at most {LONGEST_NAME} are allowed", name.len())));
    }
    if !is_host(&host) {
        return Err(wrong(format!("{host:?} is no name of a registry")));
    }
    if let Some(part) = path.split('/').find(|part| !is_component(part)) {
        let expected = "lower-case letters and digits, with single '.', '_', '__' or any number of '-' between them";
        return Err(wrong(format!("{part:?} in its path: expected {expected}")));
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        let expected = format!("1 to {LONGEST_TAG} letters, digits, '_', '.' or '-', not beginning with '.' or '-'");
        return Err(wrong(format!("tag {tag:?}: expected {expected}")));
    }
    if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
        return Err(wrong(format!("digest {digest:?}: expected sha256: and 64 lower-case hexadecimal digits")));
    }
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, path, tag.to_owned(), digest.to_owned()),
        (None, Some(digest)) => Reference::with_digest(host, path, digest.to_owned()),
        (tag, None) => Reference::with_tag(host, path, tag.unwrap_or("latest").to_owned()),
    })
}

/// Returns what names an image in its repository: the digest, or else the tag.
#[must_use]
pub fn version(reference: &Reference) -> &str {
    reference.digest().or(reference.tag()).unwrap_or("latest")
}

/// Splits a reference into name, tag and digest, as written.
#[must_use]
pub fn split(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the host's port.
    let colon = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
    match colon {
        Some(colon) => (&rest[..colon], Some(&rest[colon + 1..]), digest),
        None => (rest, None, digest),
    }
}

/// Splits a name into host and path, and completes them.
fn split_host(name: &str) -> (String, String) {
    let looks_like_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if looks_like_host(host) => (host, path),
        _ => ("docker.io", name),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    match path.contains('/') || host != "docker.io" {
        true => (host.to_owned(), path.to_owned()),
        false => (host.to_owned(), format!("library/{path}")),
    }
}

/// Returns whether `host` is a name or an address, with or without a port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = |address: &str| address.parse::<std::net::Ipv6Addr>().is_ok();
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && bracketed.map_or_else(|| name.split('.').all(is_label), is_address)
}

/// Returns whether `part` matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = part.split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit());
    let fits = |it: &str| matches!(it, "" | "." | "_" | "__") || it.bytes().all(|byte| byte == b'-');
    let ends = [part.bytes().next(), part.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(is_plain)) && separators.into_iter().all(fits)
}

fn is_tag(tag: &str) -> bool {
    let inner = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    (1..=LONGEST_TAG).contains(&tag.len()) && inner && !tag.starts_with(['.', '-'])
}

fn is_digest(digest: &str) -> bool {
    let length = |algorithm: &str| match algorithm {
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        _ => None,
    };
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        length(algorithm) == Some(hex.len()) && is_hex
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference;

    use super::parse;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Compares with the type's own parser, whose memory does not matter here.
    #[test]
    fn references_are_read_as_their_type_reads_them() {
        for text in [
            "redis",
            "redis:7",
            "team/app",
            "docker.io/redis",
            "index.docker.io/redis",
            "docker.io/library/redis:7.2",
            "localhost/app",
            "localhost:5000/a/b/c:x",
            "127.0.0.1:5000/app",
            "registry.example.com/a/b:1.0-rc.1_x",
            "a--b/c__d.e",
            "UPPER.example.com/app",
            &format!("redis@sha256:{HEX}"),
            &format!("registry.example.com:443/a/b:1@sha256:{HEX}"),
        ] {
            let theirs: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parse(text).unwrap_or_else(|error| panic!("{}", error.chain())), theirs, "{text}");
        }
    }

    #[test]
    fn a_host_may_be_an_ipv6_address() {
        let reference = parse("[2001:db8::1]:5000/app:1").expect("valid");
        assert_eq!((reference.registry(), reference.repository()), ("[2001:db8::1]:5000", "app"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, fault) in [
            ("", "\"\" in its path"),
            ("Redis", "\"Redis\" in its path"),
            ("redis:", "tag \"\""),
            ("redis:.x", "tag \".x\""),
            ("a//b", "\"\" in its path"),
            ("a___b", "\"a___b\" in its path"),
            ("a/-b", "\"-b\" in its path"),
            ("example.com:port/app", "\"example.com:port\" is no name"),
            ("redis@sha256:1234", "digest \"sha256:1234\""),
            ("redis ", "\"redis \" in its path"),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} is valid for the type");
            let said = parse(text).expect_err(text).chain();
            assert!(said.contains(fault), "{text:?}: {said}");
        }
        let said = parse("ex_ample.com/app").expect_err("its underscore").chain();
        assert!(said.contains("\"ex_ample.com\" is no name of a registry"), "{said}");
        let long = format!("example.com/{}", "a".repeat(300));
        assert!(parse(&long).expect_err("too long").chain().contains("at most 255"));
    }
}
