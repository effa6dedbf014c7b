//! Parser for shell scripts.

use std::path::PathBuf;

/// Separator after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Separator {
    Then,
    And,
    Background,
}

/// One simple command, expanded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) words: Vec<String>,
    /// `> FILE`
    pub(super) redirect: Option<PathBuf>,
    /// `>&2`
    pub(super) to_stderr: bool,
}

/// Splits a script into its commands, unexpanded, each with the separator after it.
pub(super) fn commands(script: &str) -> Vec<(String, Separator)> {
    let mut commands = Vec::new();
    let mut text = String::new();
    let mut quote = None;
    let mut chars = script.chars().peekable();
    while let Some(char) = chars.next() {
        let separator = match char {
            '\'' | '"' if quote.is_none_or(|open| open == char) => {
                quote = if quote.is_some() { None } else { Some(char) };
                None
            }
            _ if quote.is_some() => None,
            ';' | '\n' => Some(Separator::Then),
            '&' if text.ends_with('>') => None,
            '&' if chars.next_if_eq(&'&').is_some() => Some(Separator::And),
            '&' => Some(Separator::Background),
            _ => None,
        };
        match separator {
            Some(separator) => commands.push((std::mem::take(&mut text), separator)),
            None => text.push(char),
        }
    }
    commands.push((text, Separator::Then));
    commands.retain(|(text, _)| !text.trim().is_empty());
    commands
}

impl Command {
    /// Returns a command whose words are final.
    pub(super) fn of_words(words: &[String]) -> Self {
        Self { words: words.to_vec(), ..Self::default() }
    }

    /// Splits and expands one command; `None` if it uses unsupported shell syntax.
    pub(super) fn parse(text: &str, variable: &dyn Fn(&str) -> String) -> Option<Self> {
        let mut words = split(text, variable)?.into_iter();
        let mut command = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                ">&2" => command.to_stderr = true,
                ">" => command.redirect = Some(words.next()?.into()),
                _ => command.words.push(word),
            }
        }
        Some(command)
    }
}

fn split(text: &str, variable: &dyn Fn(&str) -> String) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\'' | '"', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (_, Some(open)) if char == open => quote = None,
            (' ' | '\t', None) => words.extend(word.take()),
            ('$', None | Some('"')) => {
                let mut name = String::new();
                if let Some(mark) = chars.next_if_eq(&'?') {
                    name.push(mark);
                } else {
                    while let Some(letter) = chars.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
                        name.push(letter);
                    }
                }
                if name.is_empty() {
                    return None;
                }
                word.get_or_insert_default().push_str(&variable(&name));
            }
            ('|' | '<' | '`' | '(' | ')' | '*', None) => return None,
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> String {
        String::new()
    }

    #[test]
    fn separators_stand_outside_quotes_only() {
        let commands = commands("trap 'exit 7; x' TERM; sleep 9 & wait && echo a >&2");
        let expected = [
            ("trap 'exit 7; x' TERM", Separator::Then),
            (" sleep 9 ", Separator::Background),
            (" wait ", Separator::And),
            (" echo a >&2", Separator::Then),
        ];
        assert_eq!(commands, expected.map(|(text, separator)| (text.to_owned(), separator)));
    }

    #[test]
    fn words_are_unquoted_and_expanded() {
        let variable = |name: &str| format!("<{name}>");
        let command = Command::parse("echo '$A' \"$A b\" '' > /x", &variable).expect("known syntax");
        assert_eq!(command.words, ["echo", "$A", "<A> b", ""]);
        assert_eq!(command.redirect, Some(PathBuf::from("/x")));
    }

    #[test]
    fn more_shell_than_is_known_is_refused() {
        assert_eq!(Command::parse("echo a | cat", &none), None);
    }
}
