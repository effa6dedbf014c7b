//! Ids from a backend.

use sha2::{Digest, Sha256};

/// Returns a readable id that is the same for the same parts, so that the runtime refuses a second one: at most 76
/// letters, digits and single separators, as containerd allows; Docker allows more.
#[must_use]
pub fn id(name: &str, parts: &[&str], attempt: u32) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.update(attempt.to_le_bytes());
    let hash = hex::encode(&hasher.finalize()[..6]);
    let mut plain = String::with_capacity(40);
    for char in name.chars().take(40) {
        let char = if char.is_ascii_alphanumeric() { char } else { '-' };
        if char != '-' || !plain.ends_with('-') && !plain.is_empty() {
            plain.push(char);
        }
    }
    match plain.trim_end_matches('-') {
        "" => format!("{attempt}-{hash}"),
        plain => format!("{plain}-{attempt}-{hash}"),
    }
}

/// Returns whether containerd accepts a text as identifier: letters and digits, single `.`, `_` or `-` between them, 76
/// at most.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let parts = || text.split(['.', '_', '-']);
    text.len() <= 76 && parts().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::{id, is_identifier};

    #[test]
    fn ids_are_what_runtimes_allow() {
        let first = id("my--app.example", &["uid", "my--app.example"], 0);
        assert!(first.starts_with("my-app-example-0-"), "{first}");
        assert_ne!(first, id("my--app.example", &["uid2", "my--app.example"], 0));
        for name in ["my--app.example", "-", "a-", "", "ä.ö", &"x".repeat(253)] {
            let id = id(name, &["uid"], 4_000_000_000);
            assert!(is_identifier(&id), "{name:?} became {id:?}");
        }
    }

    #[test]
    fn identifiers_are_containerds() {
        assert!(is_identifier("exec-1.a_b") && is_identifier(&"x".repeat(76)));
        for wrong in ["", "-a", "a-", "a--b", "a/b", "../a", "ä", &"x".repeat(77)] {
            assert!(!is_identifier(wrong), "{wrong}");
        }
    }
}
