//! Escapes text that others wrote, for a terminal and for a line of a log.

use std::{borrow::Cow, fmt::Write as _};

/// Escapes control characters: those that move a terminal's cursor, begin a line that looks like somebody else's, or
/// change the direction of writing. Readers can still recognize them: `\n`, `\x1b[31m`, `\u{202e}`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if char.is_ascii() && is_control(char) => {
                write!(shown, "\\x{:02x}", u32::from(char)).expect("memory takes every write");
            }
            _ if is_control(char) => write!(shown, "{}", char.escape_unicode()).expect("memory takes every write"),
            _ => shown.push(char),
        }
    }
    shown.into()
}

/// Escapes a text as [`escaped`] does, but keeps its line ends.
#[must_use]
pub fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// Escapes JSON without changing its meaning. JSON itself escapes C0 only, and has line ends between its values.
#[must_use]
pub fn escaped_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for char in json.chars() {
        if is_control(char) && char >= '\u{7f}' {
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(shown, "\\u{unit:04x}").expect("memory takes every write");
            }
        } else {
            shown.push(char);
        }
    }
    shown
}

/// Returns whether a character is one of C0, DEL or C1, separates lines or paragraphs, changes the direction of
/// writing, or is invisible.
fn is_control(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(char, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::{escaped, escaped_json, escaped_lines};

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        for (text, shown) in [
            ("plain, größer, 漢字 🦀", "plain, größer, 漢字 🦀"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
            ("\u{1b}]0;title\u{7}\u{1b}[2J", "\\x1b]0;title\\x07\\x1b[2J"),
            ("\u{7f}\u{9b}31m\u{85}", "\\x7f\\u{9b}31m\\u{85}"),
            ("evil\u{202e}txt\u{2066}\u{2028}\u{200b}", "evil\\u{202e}txt\\u{2066}\\u{2028}\\u{200b}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
        assert_eq!(escaped_json("{\n\"a\": \"\u{9b}31m\u{e0001}ä\"}"), "{\n\"a\": \"\\u009b31m\\udb40\\udc01ä\"}");
        assert_eq!(escaped_lines("one\ntwo\u{1b}\n"), "one\ntwo\\x1b\n");
    }
}
