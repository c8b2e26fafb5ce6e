//! The token as people give it: in an option, a variable, a settings file or the master's own file.
//! All of these are read in one way, so that one secret is the same on both sides.

/// Why a text is no token; a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one line of ASCII characters; this one has others")]
pub struct BadToken;

/// The token in a text, without the line break that files and some secret stores put at its end.
/// `None` where nothing else is in the text.
pub fn read(text: &str) -> Result<Option<String>, BadToken> {
    let token = text.trim();
    let is_allowed = |c: char| c.is_ascii() && !c.is_ascii_control();
    if !token.chars().all(is_allowed) {
        return Err(BadToken);
    }
    Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_token_is_no_part_of_it() {
        for text in ["abc123", "abc123\n", "abc123\r\n", "  abc123\t"] {
            assert_eq!(read(text), Ok(Some("abc123".into())), "{text:?}");
        }
        assert_eq!(read("two words"), Ok(Some("two words".into())));
        for nothing in ["", "\n", "  "] {
            assert_eq!(read(nothing), Ok(None), "{nothing:?}");
        }
        for bad in ["two\nlines", "geheim\u{e4}", "a\u{0}b"] {
            assert_eq!(read(bad), Err(BadToken), "{bad:?}");
        }
    }
}
