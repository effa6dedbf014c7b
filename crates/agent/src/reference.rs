//! Image references as users write them.

/// Returns the full form of an image reference, by Docker's conventions (R-IMG-1): `redis` becomes
/// `docker.io/library/redis:latest`.
#[must_use]
pub fn full(reference: &str) -> String {
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (host, path) = match reference.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path.to_owned()),
        Some(_) => ("docker.io", reference.to_owned()),
        None => ("docker.io", format!("library/{reference}")),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let path = match path.split_once('/') {
        None if host == "docker.io" => format!("library/{path}"),
        _ => path,
    };
    let last = path.rsplit('/').next().unwrap_or(&path);
    match last.contains([':', '@']) {
        true => format!("{host}/{path}"),
        false => format!("{host}/{path}:latest"),
    }
}

/// Returns the repository of a full reference: without tag and digest.
#[must_use]
pub fn repository(reference: &str) -> &str {
    let path = reference.find('/').map_or(0, |slash| slash + 1);
    let name = reference[path..].find('@').map_or(reference, |at| &reference[..path + at]);
    match name[path..].rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => &name[..name.len() - tag.len() - 1],
        _ => name,
    }
}

/// Returns whether the image of a full reference is from `place`: a registry such as `registry.example:5000`, a part of
/// one such as `docker.io/library`, or a whole repository. A `place` without a port covers only a host without one. Tag
/// and digest follow a path: in `registry.example:5000/a` and `registry.example@other.example/a` no part of the host is
/// one.
#[must_use]
pub fn is_from(reference: &str, place: &str) -> bool {
    let (host, path) = reference.split_once('/').unwrap_or((reference, ""));
    let place = place.trim_end_matches('/');
    let (allowed_host, allowed_path) = place.split_once('/').unwrap_or((place, ""));
    let allowed_host = if allowed_host == "index.docker.io" { "docker.io" } else { allowed_host };
    let below = path.strip_prefix(allowed_path);
    host == allowed_host
        && (allowed_path.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@'])))
}

#[cfg(test)]
mod tests {
    use super::{full, is_from, repository};

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        for reference in ["a.b:5000/c/d:1", "a.b:5000/c/d", "a.b:5000/c/d:1@sha256:2", "a.b:5000/c/d@sha256:2"] {
            assert_eq!(repository(reference), "a.b:5000/c/d");
        }
        assert_eq!(repository("a.b@c.d/e:1"), "a.b@c.d/e", "an @ counts after the path only");
    }

    #[test]
    fn a_place_is_a_host_with_its_port_and_whole_parts_of_a_path() {
        for (reference, place, expected) in [
            ("r.example/a:1", "r.example", true),
            ("r.example/a:1", "r.example/", true),
            ("r.example:5000/a", "r.example", false),
            ("r.example:443/a", "r.example", false),
            ("r.example/a", "r.example:5000", false),
            ("r.example:50001/a", "r.example:5000", false),
            ("r.example:5000/team/a@sha256:00", "r.example:5000/team", true),
            ("r.example@other.example/a:1", "r.example", false),
            ("r.example.other/a:1", "r.example", false),
            ("r.example/team/a:1", "r.example/team", true),
            ("r.example/team:1", "r.example/team", true),
            ("r.example/teams/a:1", "r.example/team", false),
            ("r.example:1/team/a:1", "r.example:1/team/a", true),
            ("r.example/team", "r.example/team/a", false),
            ("docker.io/library/redis:7", "index.docker.io", true),
            ("[::1]:5000/a", "[::1]", false),
            ("[::1]/a", "[::1]", true),
            ("r.example/a", "", false),
        ] {
            assert_eq!(is_from(reference, place), expected, "R-REJ-12: {reference} {place}");
        }
        assert!(!is_from(&full("r.example:5000"), "r.example"), "it is a tag of docker.io/library/r.example");
    }

    // R-IMG-1.
    #[test]
    fn references_are_completed_as_docker_does() {
        for (short, long) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:7", "docker.io/library/redis:7"),
            ("docker.io/redis", "docker.io/library/redis:latest"),
            ("index.docker.io/library/redis", "docker.io/library/redis:latest"),
            ("team/app", "docker.io/team/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("registry.example.com/a/b@sha256:00", "registry.example.com/a/b@sha256:00"),
        ] {
            assert_eq!(full(short), long);
        }
    }
}
