//! Decides which images a provider covers, as a kubelet does.

/// Returns whether a pattern of `matchImages` covers a repository: the host has as many labels as the pattern's, each
/// label matches its pattern, the port is the same, and the path begins with the pattern's path.
pub(super) fn covers(pattern: &str, image: &str) -> bool {
    let (host, path) = pattern.split_once('/').map_or((pattern, ""), |(host, path)| (host, path));
    let (image_host, image_path) = image.split_once('/').unwrap_or((image, ""));
    let (host, port) = split_port(host);
    let (image_host, image_port) = split_port(image_host);
    let (labels, image_labels): (Vec<_>, Vec<_>) = (host.split('.').collect(), image_host.split('.').collect());
    port == image_port
        && image_path.starts_with(path)
        && labels.len() == image_labels.len()
        && labels.iter().zip(image_labels).all(|(pattern, label)| is_like(pattern.as_bytes(), label.as_bytes()))
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)))
}

/// Matches as Go's `filepath.Match` does, for a text without slashes. A malformed pattern matches nothing.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        [b'?', rest @ ..] => text.split_first().is_some_and(|(_, text)| is_like(rest, text)),
        [b'[', rest @ ..] => text.split_first().is_some_and(|(byte, text)| match class(rest, *byte) {
            Some((true, rest)) => is_like(rest, text),
            _ => false,
        }),
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
            text.split_first().is_some_and(|(first, text)| first == byte && is_like(rest, text))
        }
    }
}

/// Returns whether a character class, given behind its `[`, contains `byte`, and the pattern behind the class; `None`
/// if the class does not end.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (is_negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (mut found, mut is_first) = (false, true);
    loop {
        let low = match rest {
            [b']', rest @ ..] if !is_first => return Some((found != is_negated, rest)),
            [b'\\', low, after @ ..] | [low, after @ ..] => {
                rest = after;
                *low
            }
            [] => return None,
        };
        let high = match rest {
            [b'-', b'\\', high, after @ ..] | [b'-', high, after @ ..] => {
                rest = after;
                *high
            }
            _ => low,
        };
        found |= (low..=high).contains(&byte);
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    // R-IMG-10: the examples of the kubelet's documentation, and those of its tests.
    #[test]
    fn patterns_cover_what_kubelet_says() {
        for (pattern, image, expected) in [
            ("123456789.dkr.ecr.us-east-1.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/app", true),
            ("*.dkr.ecr.*.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/app", true),
            ("*.azurecr.io", "foo.azurecr.io/app", true),
            ("*.azurecr.io", "azurecr.io/app", false),
            ("*.azurecr.io", "bar.foo.azurecr.io/app", false),
            ("*.*.registry.io", "foo.bar.registry.io/app", true),
            ("gcr.io", "gcr.io/team/app", true),
            ("gcr.io", "eu.gcr.io/team/app", false),
            ("registry.io:8080/path", "registry.io:8080/path/app", true),
            ("registry.io:8080/path", "registry.io:8080/pathology", true),
            ("registry.io:8080/path", "registry.io:8080/other", false),
            ("registry.io:8080", "registry.io/app", false),
            ("registry.io", "registry.io:8080/app", false),
            ("reg*.io", "registry.io/app", true),
            ("reg??try.io", "registry.io/app", true),
            ("reg[a-i]stry.i[^a]", "registry.io/app", true),
            ("reg[j-z]stry.io", "registry.io/app", false),
            ("reg[istry.io", "registry.io/app", false),
            ("docker.io", "docker.io/library/redis", true),
            ("127.0.0.1:5000", "127.0.0.1:5000/library/redis", true),
        ] {
            assert_eq!(covers(pattern, image), expected, "R-IMG-10: {pattern} {image}");
        }
    }
}
