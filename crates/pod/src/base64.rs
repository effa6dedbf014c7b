//! Decodes base64 as Go does.

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

/// Go's `StdEncoding`: it accepts unused bits after the last byte that are not zero.
const ENGINE: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Decodes a text as Go does, ignoring line breaks. Returns `None` for text that is not base64.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    ENGINE.decode(text.replace(['\n', '\r'], "")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_go_reads_it() {
        for (text, expected) in [("aGk=", "hi"), ("aGl=", "hi"), ("aR==", "i"), ("a\nGk\r\n=", "hi"), ("", "")] {
            assert_eq!(bytes(text), Some(expected.as_bytes().to_vec()), "{text:?}");
        }
        for text in ["aGk", "aG k=", "aGk==", "a", "_-==", "aGk=aGk="] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }
}
