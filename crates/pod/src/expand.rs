//! `$(NAME)` references in command, args, env and subPathExpr (R-ENV-2, R-MNT-5).

/// Replaces `$(NAME)` with the value that `lookup` has for the name. A name without a value stays as it is, and `$$` is
/// a `$`.
#[must_use]
pub fn expand<'a>(text: &str, lookup: impl FnMut(&str) -> Option<&'a str>) -> String {
    expand_within(text, usize::MAX, lookup).unwrap_or_default()
}

/// Expands a text as [`expand`] does; returns `None` if the result has more than `most` bytes. Otherwise forty
/// variables, each of which names the one before twice, would make a text 2^40 times as long.
#[must_use]
pub fn expand_within<'a>(text: &str, most: usize, mut lookup: impl FnMut(&str) -> Option<&'a str>) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text;
    // Once no `)` follows, the search for one is not repeated.
    let mut closes = true;
    let mut add = |part: &str| {
        let fits = part.len() <= most - expanded.len();
        if fits {
            expanded.push_str(part);
        }
        fits.then_some(())
    };
    while let Some(dollar) = rest.find('$') {
        add(&rest[..dollar])?;
        let after = &rest[dollar + 1..];
        rest = match after.as_bytes().first() {
            Some(b'$') => {
                add("$")?;
                &after[1..]
            }
            Some(b'(') if closes => match after.find(')') {
                Some(end) => {
                    match lookup(&after[1..end]) {
                        Some(value) => add(value)?,
                        None => {
                            add("$")?;
                            add(&after[..=end])?;
                        }
                    }
                    &after[end + 1..]
                }
                None => {
                    closes = false;
                    add("$")?;
                    after
                }
            },
            _ => {
                add("$")?;
                after
            }
        };
    }
    add(rest)?;
    Some(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$$", "$$"),
            ("$(A", "$(A"),
            ("$(A $$(A $$", "$(A $(A $"),
            ("$A $", "$A $"),
        ] {
            assert_eq!(expand(text, |name| (name == "A").then_some("1")), expected, "{text}: R-ENV-2");
        }
    }

    #[test]
    fn what_references_stand_for_is_bounded_before_it_is_made() {
        let mut value = "ab".to_owned();
        for _ in 0..3 {
            let twice = expand_within("$(A)$(A)", 16, |_| Some(&value));
            value = twice.expect("16 bytes fit");
        }
        assert_eq!(value.len(), 16);
        assert_eq!(expand_within("$(A)$(A)", 31, |_| Some(&value)), None);
    }
}
