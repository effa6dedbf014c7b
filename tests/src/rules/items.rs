//! Functions and constants of a source file, found by the layout that rustfmt gives them.

use super::code;

/// Function or constant, with the comments and attributes above it.
#[derive(Debug)]
pub struct Item {
    pub name: String,
    /// Comments, attributes, head and body.
    pub text: String,
    /// Text without comments and literals.
    pub code: String,
    /// Whether an attribute makes it a test.
    pub is_test: bool,
}

/// Splits lines into items, and returns these and the lines that belong to none.
pub fn split<'a>(lines: &[&'a str]) -> (Vec<Item>, Vec<&'a str>) {
    let (mut items, mut rest, mut above) = (Vec::new(), Vec::new(), Vec::new());
    let mut lines = lines.iter().copied().peekable();
    while let Some(line) = lines.next() {
        let head = line.trim_start();
        if head.starts_with("#[") || (head.starts_with("//") && !head.starts_with("//!")) {
            above.push(line);
            continue;
        }
        let Some((name, is_function)) = name(head) else {
            rest.append(&mut above);
            rest.push(line);
            continue;
        };
        let is_test = above.iter().any(|line| is_test(line));
        let mut text = std::mem::take(&mut above);
        text.push(line);
        let indent = line.len() - head.len();
        // A constant or a function may consist of one line.
        if !(line.ends_with(';') || line.ends_with('}')) {
            for line in lines.by_ref() {
                text.push(line);
                if closes(line, indent, is_function) {
                    break;
                }
            }
        }
        let text = text.join("\n");
        items.push(Item { name: name.to_owned(), code: code::of(&text), text, is_test });
    }
    rest.append(&mut above);
    (items, rest)
}

/// Returns whether a line ends an item: for a function, a brace with the function's indentation; for a constant, a
/// semicolon.
fn closes(line: &str, indent: usize, is_function: bool) -> bool {
    if !is_function {
        return line.ends_with(';');
    }
    line.strip_suffix('}').is_some_and(|before| before.len() == indent && before.trim().is_empty())
}

/// Returns the name of the function or constant that begins in this line, and whether it is a function.
fn name(code: &str) -> Option<(&str, bool)> {
    let mut words = code.split([' ', '(', ':', '<']).filter(|word| !word.is_empty());
    let mut is_constant = false;
    loop {
        match words.next()? {
            "pub" | "super)" | "crate)" | "async" | "unsafe" | "mut" => {}
            "fn" => return Some((words.next()?, true)),
            "const" | "static" => is_constant = true,
            word if is_constant => return Some((word, false)),
            _ => return None,
        }
    }
}

fn is_test(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("#[test]") || (line.starts_with("#[") && line.contains("::test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_with_what_stands_above_them() {
        let source = "//! Head.\nuse it;\n\n/// One.\nconst ONE: u8 = 1;\n// Two.\n#[tokio::test]\nasync fn two() {\n    body();\n}\n\
                      const THREE: [&str; 1] = [\n    \"3\",\n];\nmod inner {\n    /// Four.\n    fn four(\n        it: u8,\n    ) {\n    }\n}\n";
        let lines: Vec<_> = source.lines().collect();
        let (items, rest) = split(&lines);
        let found: Vec<_> = items.iter().map(|item| (item.name.as_str(), item.is_test)).collect();
        assert_eq!(found, [("ONE", false), ("two", true), ("THREE", false), ("four", false)]);
        assert!(items[1].text.starts_with("// Two.") && items[1].text.contains("body()"));
        assert!(items[3].text.contains("Four.") && items[3].text.contains("it: u8"));
        assert_eq!(rest, ["//! Head.", "use it;", "", "mod inner {", "}"]);
    }
}
