//! `$(NAME)` references in command, args and env (R-ENV).

use std::collections::HashMap;

/// Replaces `$(NAME)` by the variable's value; an unknown one stays as it is, and `$$` is a `$`.
pub(crate) fn expand(text: &str, variables: &HashMap<&str, String>) -> String {
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
                    match variables.get(name) {
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
        let variables = HashMap::from([("A", "1".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$$", "$$"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
