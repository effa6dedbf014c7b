//! Parses JSON in annotations, with the error messages of Go's decoder.

use k8s_openapi::api::core::v1::Toleration;

use crate::json::unescaped;

/// Deepest nesting of a value. Go's decoder accepts 10,000 levels, which no toleration has.
const DEPTH: usize = 128;

/// Value as Go's decoder sees it.
enum Value {
    Null,
    Bool,
    /// Number as it is written: Go repeats it in its messages.
    Number(String),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Reads a JSON list of tolerations: field names are those of Go's type, in any case of letters.
pub(super) fn tolerations(text: &str) -> Result<Vec<Toleration>, String> {
    let items = match document(text)? {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        other => return Err(cannot(&other, "value of type []core.Toleration")),
    };
    items.into_iter().map(toleration).collect()
}

fn cannot(value: &Value, into: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go {into}")
}

fn toleration(value: Value) -> Result<Toleration, String> {
    let fields = match value {
        Value::Null => Vec::new(),
        Value::Object(fields) => fields,
        other => return Err(cannot(&other, "value of type core.Toleration")),
    };
    let mut read = Toleration::default();
    for (name, value) in fields {
        let (slot, field, kind) = match name.to_ascii_lowercase().as_str() {
            "key" => (&mut read.key, "Key", "string"),
            "operator" => (&mut read.operator, "Operator", "core.TolerationOperator"),
            "value" => (&mut read.value, "Value", "string"),
            "effect" => (&mut read.effect, "Effect", "core.TaintEffect"),
            "tolerationseconds" => {
                let into = "struct field Toleration.TolerationSeconds of type int64";
                match &value {
                    Value::Null => read.toleration_seconds = None,
                    Value::Number(number) => {
                        let whole = number.parse();
                        let refused = |_| format!("json: cannot unmarshal number {number} into Go {into}");
                        read.toleration_seconds = Some(whole.map_err(refused)?);
                    }
                    other => return Err(cannot(other, into)),
                }
                continue;
            }
            _ => continue,
        };
        match value {
            Value::Null => {}
            Value::String(text) => *slot = Some(text).filter(|text| !text.is_empty()),
            other => return Err(cannot(&other, &format!("struct field Toleration.{field} of type {kind}"))),
        }
    }
    Ok(read)
}

/// Parses a text by JSON's grammar, byte by byte as Go's scanner does.
fn document(text: &str) -> Result<Value, String> {
    let mut scanner = Scanner { text, at: 0 };
    let value = scanner.value("looking for beginning of value", 0)?;
    scanner.space();
    match scanner.peek() {
        None => Ok(value),
        Some(_) => Err(scanner.invalid("after top-level value")),
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Returns Go's message about the next byte, or about the end.
    fn invalid(&self, context: &str) -> String {
        let Some(byte) = self.peek() else { return "unexpected end of JSON input".to_owned() };
        let shown = match byte {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            byte => {
                let char = char::from(byte);
                let quoted = super::quoted(&char.to_string());
                format!("'{}'", quoted.trim_matches('"'))
            }
        };
        format!("invalid character {shown} {context}")
    }

    fn expect(&mut self, byte: u8, context: &str) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.invalid(context));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, context: &str, depth: usize) -> Result<Value, String> {
        self.space();
        if depth >= DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.word("true").map(|()| Value::Bool),
            Some(b'f') => self.word("false").map(|()| Value::Bool),
            Some(b'n') => self.word("null").map(|()| Value::Null),
            _ => Err(self.invalid(context)),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let (mut before, bytes) = (0, word.as_bytes());
        for byte in bytes {
            if before > 0 && self.peek() != Some(*byte) {
                let expected = char::from(*byte);
                return Err(self.invalid(&format!("in literal {word} (expecting '{expected}')")));
            }
            self.at += 1;
            before += 1;
        }
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        let mut fields = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.invalid("looking for beginning of object key string"));
            }
            let name = self.string()?;
            self.space();
            self.expect(b':', "after object key")?;
            fields.push((name, self.value("looking for beginning of value", depth + 1)?));
            self.space();
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(Value::Object(fields));
            }
            self.expect(b',', "after object key:value pair")?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value("looking for beginning of value", depth + 1)?);
            self.space();
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(Value::Array(items));
            }
            self.expect(b',', "after array element")?;
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    // The loop has checked the grammar, so there is a text.
                    return Ok(unescaped(&self.text[start..self.at]).unwrap_or_default());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                match self.peek() {
                                    Some(byte) if byte.is_ascii_hexdigit() => self.at += 1,
                                    _ => return Err(self.invalid("in \\u hexadecimal character escape")),
                                }
                            }
                        }
                        _ => return Err(self.invalid("in string escape code")),
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.invalid("in string literal")),
            }
        }
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<String, String> {
        let start = self.at;
        let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_digit());
        if self.peek() == Some(b'-') {
            self.at += 1;
            if !is_digit(self.peek()) {
                return Err(self.invalid("in numeric literal"));
            }
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits(),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !is_digit(self.peek()) {
                return Err(self.invalid("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !is_digit(self.peek()) {
                return Err(self.invalid("in exponent of numeric literal"));
            }
            self.digits();
        }
        Ok(self.text[start..self.at].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::tolerations;

    #[test]
    fn what_is_no_list_of_tolerations_is_said_in_gos_words() {
        for (text, said) in [
            ("[{]", "invalid character ']' looking for beginning of object key string"),
            ("[", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[] x", "invalid character 'x' after top-level value"),
            ("nul", "unexpected end of JSON input"),
            ("nulk", "invalid character 'k' in literal null (expecting 'l')"),
            ("{}", "json: cannot unmarshal object into Go value of type []core.Toleration"),
            ("[1]", "json: cannot unmarshal number into Go value of type core.Toleration"),
            (r#"[{"key": 1}]"#, "json: cannot unmarshal number into Go struct field Toleration.Key of type string"),
            (r#"[{"key": 1e999}]"#, "json: cannot unmarshal number into Go struct field Toleration.Key of type string"),
            (
                r#"[{"tolerationSeconds": 1e999}]"#,
                "json: cannot unmarshal number 1e999 into Go struct field Toleration.TolerationSeconds of type int64",
            ),
            (&"[".repeat(200_000), "exceeded max depth"),
        ] {
            assert_eq!(tolerations(text).expect_err("it is none"), said, "{text}");
        }
        let read =
            tolerations(r#"[{"Key": "a", "operator": "Exists", "tolerationSeconds": 3}, null]"#).expect("tolerations");
        assert_eq!((read[0].key.as_deref(), read[0].toleration_seconds, read.len()), (Some("a"), Some(3), 2));
        let read =
            tolerations(r#"[{"key": "a\ud800b", "x": 1e999}]"#).expect("Go takes halves of pairs and large numbers");
        assert_eq!(read[0].key.as_deref(), Some("a\u{fffd}b"));
    }
}
