//! `$(NAME)` references in command, args, env and subPathExpr (R-ENV-2, R-MNT-5).

/// Replaces `$(NAME)` by what `lookup` has for the name; what it does not know stays as it is, and `$$` is a `$`.
#[must_use]
pub fn expand<'a>(text: &str, mut lookup: impl FnMut(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = match after.as_bytes().first() {
            Some(b'$') => {
                expanded.push('$');
                &after[1..]
            }
            Some(b'(') => match after.find(')') {
                Some(end) => {
                    let name = &after[1..end];
                    match lookup(name) {
                        Some(value) => expanded.push_str(value),
                        None => {
                            expanded.push('$');
                            expanded.push_str(&after[..=end]);
                        }
                    }
                    &after[end + 1..]
                }
                None => {
                    expanded.push('$');
                    after
                }
            },
            _ => {
                expanded.push('$');
                after
            }
        };
    }
    expanded.push_str(rest);
    expanded
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
            ("$A $", "$A $"),
        ] {
            assert_eq!(expand(text, |name| (name == "A").then_some("1")), expected, "{text}: R-ENV-2");
        }
    }
}
