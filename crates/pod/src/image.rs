//! Image references: their syntax, as far as defaults (R-DEF-2) and messages depend on it.

/// Returns whether a reference is well formed and its tag is `latest`, given or implied.
pub(crate) fn is_latest(reference: &str) -> bool {
    let is_id =
        reference.len() == 64 && reference.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    if is_id {
        return false;
    }
    let (name, tag, digest) = parts(reference);
    is_well_formed(name, tag, digest) && tag.map_or(digest.is_none(), |tag| tag == "latest")
}

/// Returns what is wrong with an image reference, in the words of the runtimes that parse it.
#[must_use]
pub fn image_fault(reference: &str) -> Option<String> {
    let (name, tag, digest) = parts(reference);
    if is_well_formed(name, tag, digest) {
        return None;
    }
    let (_, path) = domain_and_path(name);
    match path.contains(char::is_uppercase) {
        true => Some(format!("invalid reference format: repository name ({path}) must be lowercase")),
        false => Some("invalid reference format".to_owned()),
    }
}

/// Splits a reference into name, tag and digest.
fn parts(reference: &str) -> (&str, Option<&str>, Option<&str>) {
    let (named, digest) = match reference.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (reference, None),
    };
    let last = named.rfind('/').map_or(0, |slash| slash + 1);
    match named[last..].find(':') {
        Some(colon) => (&named[..last + colon], Some(&named[last + colon + 1..]), digest),
        None => (named, None, digest),
    }
}

fn is_well_formed(name: &str, tag: Option<&str>, digest: Option<&str>) -> bool {
    is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// Splits a name into domain and path; the domain is empty if there is none.
fn domain_and_path(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((domain, path))
            if domain.contains(['.', ':']) || domain == "localhost" || domain.contains(char::is_uppercase) =>
        {
            (domain, path)
        }
        _ => ("", name),
    }
}

/// Longest path of a reference, bytes (distribution's reference grammar).
const LONGEST_PATH: usize = 255;

/// Returns whether a name is `[host[:port]/]path`.
fn is_name(name: &str) -> bool {
    let (domain, path) = domain_and_path(name);
    // The path of Docker's official images begins with `library/`.
    let implied = if matches!(domain, "" | "docker.io" | "index.docker.io") && !path.contains('/') {
        "library/".len()
    } else {
        0
    };
    path.len() + implied <= LONGEST_PATH
        && (domain.is_empty() || is_domain(domain))
        && path.split('/').all(is_component)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_part = |part: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let is_address = |host: &str| {
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inside.is_some_and(|inside| inside.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'))
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (host.split('.').all(is_part) || is_address(host)) && port.is_none_or(is_port)
}

/// Returns whether a part of a path is lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().is_some_and(|byte| is_edge(*byte)) && bytes.last().is_some_and(|byte| is_edge(*byte));
    let joints = component.split(|char: char| u8::try_from(char).is_ok_and(is_edge));
    edges
        && joints.into_iter().all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|it| it == b'-'))
        && {
            // Splitting at single letters leaves the joints; what is no joint must not hide between them.
            bytes.iter().all(|byte| is_edge(*byte) || matches!(byte, b'.' | b'_' | b'-'))
        }
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.first().is_some_and(|byte| is_word(*byte))
        && bytes.len() <= 128
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hash)) = digest.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hash.len() == length && hash.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::is_latest;

    #[test]
    fn latest_is_what_has_no_other_tag() {
        let digest = format!("redis@sha256:{}", "a".repeat(64));
        for text in ["redis", "redis:latest", "localhost:5000/a/b", "r.example/a:latest", "a__b/c--d", "[::1]:5000/a"] {
            assert!(is_latest(text), "R-DEF-2: {text}");
        }
        for text in ["redis:7", &digest, &digest.replace('@', ":7@"), "Redis", "redis:", "a b", "", "a/", "a._b", "a:-"]
        {
            assert!(!is_latest(text), "R-DEF-2: {text}");
        }
        assert!(is_latest(&digest.replace('@', ":latest@")));
    }
}
