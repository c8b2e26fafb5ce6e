//! How much of a text from outside an error or a line of the log repeats. Such a text may have
//! megabytes, and the sentence about it is for people.

use std::borrow::Cow;

/// Bytes of a name or value that a sentence repeats.
const EXCERPT_BYTES_MAX: usize = 128;

/// Bytes of a whole sentence.
pub const SENTENCE_BYTES_MAX: usize = 4 << 10;

/// The beginning of a name or value; all of it where it is short.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    if text.len() <= EXCERPT_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(EXCERPT_BYTES_MAX);
    let beginning = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{beginning}… ({} bytes)", text.len()))
}

/// A sentence with the middle left out where it is too long: it says at its beginning what is
/// wrong, and at its end what would be right.
pub fn sentence(text: String) -> String {
    if text.len() <= SENTENCE_BYTES_MAX {
        return text;
    }
    let half = SENTENCE_BYTES_MAX / 2;
    let beginning = text.get(..text.floor_char_boundary(half));
    let end = text.get(text.ceil_char_boundary(text.len() - half)..);
    let left_out = text.len() - 2 * half;
    format!(
        "{} … ({left_out} bytes left out) … {}",
        beginning.unwrap_or_default(),
        end.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_a_short_one_is_not() {
        assert_eq!(excerpt("params"), "params");
        let long = "ä".repeat(4 << 20);
        assert!(excerpt(&long).len() < 200, "{}", excerpt(&long));
        assert!(excerpt(&long).ends_with("… (8388608 bytes)"));
        assert_eq!(sentence("a sentence".into()), "a sentence");
        let shortened = sentence(format!("unknown {long}, expected i32"));
        assert!(shortened.len() < SENTENCE_BYTES_MAX + 100);
        assert!(shortened.starts_with("unknown ä") && shortened.ends_with(", expected i32"));
    }
}
