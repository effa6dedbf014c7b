//! Code of a source text, without comments and literals.

/// Returns the code of a source text. Of a literal text, the names that it formats stay: `{name}`.
pub fn of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(char) = rest.chars().next() {
        let literal = match char {
            '/' if rest.starts_with("//") => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '/' if rest.starts_with("/*") => length_of_comment(rest),
            '"' => length_of_text(rest, hashes(&code)),
            '\'' => length_of_char(rest),
            _ => 0,
        };
        if literal == 0 {
            code.push(char);
            rest = &rest[char.len_utf8()..];
            continue;
        }
        let (literal, after) = rest.split_at(literal);
        code.push(' ');
        if char == '"' {
            formatted(literal).for_each(|name| code.extend([name, " "]));
        }
        rest = after;
    }
    code
}

/// Returns the number of `#` before a raw text that begins after this code; `None` if it is not raw.
fn hashes(before: &str) -> Option<usize> {
    let head = before.trim_end_matches('#');
    head.ends_with('r').then(|| before.len() - head.len())
}

/// Returns the length of a text with its quotes.
fn length_of_text(rest: &str, hashes: Option<usize>) -> usize {
    if let Some(hashes) = hashes {
        let end = format!("\"{}", "#".repeat(hashes));
        return rest[1..].find(&end).map_or(rest.len(), |at| 1 + at + end.len());
    }
    let mut is_escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            '"' if !is_escaped => return at + 1,
            _ => is_escaped = char == '\\' && !is_escaped,
        }
    }
    rest.len()
}

/// Returns the length of a character with its quotes; 0 for a lifetime.
fn length_of_char(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            let after = escaped + rest[escaped..].chars().next().map_or(0, char::len_utf8);
            rest[after..].find('\'').map_or(0, |at| after + at + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 0,
    }
}

/// Returns the length of a block comment, which can have others in it.
fn length_of_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Returns the names that a text formats: `{name}`, `{name:?}`.
fn formatted(literal: &str) -> impl Iterator<Item = &str> {
    literal.split('{').skip(1).filter_map(|rest| {
        let end = rest.find(|char: char| char != '_' && !char.is_alphanumeric())?;
        (end > 0 && rest[end..].starts_with(['}', ':'])).then(|| &rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn comments_and_literals_are_left_out() {
        for (source, code) in [
            ("one(); // two\nthree", "one(); \nthree"),
            ("one /* two /* three */ four */ five", "one   five"),
            (r#"one("two \" three\\", four)"#, "one( , four)"),
            (r###"one(r#"two " three"#, br"four\", five)"###, "one(r# , br , five)"),
            (r"one('a', '\'', '\u{e4}', 'ä', b'\\', two)", "one( ,  ,  ,  , b , two)"),
            ("one<'a>(two: &'a str, 'b')", "one<'a>(two: &'a str,  )"),
            ("one(\"http://two\", three)", "one( , three)"),
            ("\"{one} {two:?} {{ {} {:>3} { three }\"", " one two "),
            ("\"open", " "),
        ] {
            assert_eq!(of(source), code, "{source}");
        }
    }
}
