//! Image references as users write them.

/// The full form of an image reference, by Docker's conventions (R-IMG-1): `redis` is `docker.io/library/redis:latest`.
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

/// The repository of a full reference: without tag and digest.
#[must_use]
pub fn repository(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::{full, repository};

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        for reference in ["a.b:5000/c/d:1", "a.b:5000/c/d", "a.b:5000/c/d:1@sha256:2", "a.b:5000/c/d@sha256:2"] {
            assert_eq!(repository(reference), "a.b:5000/c/d");
        }
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
