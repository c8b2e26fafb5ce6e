//! One task document of a feed, ready to be sent: with an id, and otherwise as it was written.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use taskmaster_protocol::{Refusal, RefusalCode, refusal};

/// An id as 128 bits, by which a feed of a million tasks keeps its ids in some 20 bytes each. Keyed
/// anew in each process, so nobody can choose ids that collide; by chance two of a million do once
/// in 10^26 feeds.
pub type IdKey = u128;

/// Makes [`IdKey`]s.
#[derive(Clone, Default)]
pub struct Keys(RandomState, RandomState);

impl Keys {
    /// The key of an id.
    pub fn of(&self, id: &str) -> IdKey {
        u128::from(self.0.hash_one(id)) << 64 | u128::from(self.1.hash_one(id))
    }
}

/// A document that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands in the input, from 1.
    pub number: u64,
    /// Its id.
    pub key: IdKey,
    /// Whether the id is its author's: then others may depend on it.
    pub named: bool,
    /// The job that it names itself.
    pub job: Option<Arc<str>>,
    /// The document; an id made here stands first.
    pub text: String,
    /// Whether it has `inputs`, which may be files of this machine.
    pub has_inputs: bool,
}

/// A string, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// What a client must know of a document; everything else is the master's to judge.
#[derive(Deserialize)]
struct Peek<'a> {
    /// `null` is no id: the master would make one that we do not know.
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    job: Option<Text<'a>>,
    #[serde(default)]
    inputs: Option<serde::de::IgnoredAny>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Text<'a>>, D::Error> {
    Text::deserialize(deserializer).map(Some)
}

impl Line {
    /// Reads what must be known of a document. `make_id` gives an id where it has none.
    pub fn read(
        number: u64,
        text: String,
        keys: &Keys,
        make_id: impl FnOnce() -> String,
    ) -> Result<Line, Refusal> {
        if !text.starts_with('{') {
            refusal::read::<serde::de::IgnoredAny>(&text).map_err(|r| at(r, number))?;
            let start: String = text.chars().take(20).collect();
            let message =
                format!("a task is a JSON object such as {{\"module\":\"echo\"}}, not `{start}`");
            return Err(at(Refusal::new(RefusalCode::WrongType, message), number));
        }
        let peek: Peek<'_> = refusal::read(&text).map_err(|r| at(r, number))?;
        let job = peek.job.map(|job| Arc::from(job.0.as_ref()));
        let has_inputs = peek.inputs.is_some();
        if let Some(id) = peek.id {
            let key = keys.of(&id.0);
            return Ok(Line {
                number,
                key,
                named: true,
                job,
                text,
                has_inputs,
            });
        }
        let id = make_id();
        let key = keys.of(&id);
        Ok(Line {
            number,
            key,
            named: false,
            job,
            text: with_id(&text, &id),
            has_inputs,
        })
    }

    /// The params as they stand in the text, where it has some.
    pub fn params(&self) -> Option<Range<usize>> {
        #[derive(Deserialize)]
        struct Peek<'a> {
            #[serde(borrow)]
            params: Option<&'a RawValue>,
        }
        let params = serde_json::from_str::<Peek<'_>>(&self.text)
            .ok()?
            .params?
            .get();
        // It is borrowed from the text.
        let start = (params.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        Some(start..start + params.len())
    }

    /// The id, read from the text: needed only when something is wrong.
    pub fn id(&self) -> String {
        serde_json::from_str::<Peek<'_>>(&self.text)
            .ok()
            .and_then(|peek| peek.id)
            .map_or(String::new(), |id| id.0.into_owned())
    }
}

/// The document with `id` as its first member, every other byte as it was.
pub fn with_id(document: &str, id: &str) -> String {
    let rest = document.strip_prefix('{').unwrap_or(document);
    let comma = if rest.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    format!("{{\"id\":\"{id}\"{comma}{rest}")
}

fn at(refusal: Refusal, line: u64) -> Refusal {
    Refusal {
        line: Some(line),
        ..refusal
    }
}

/// An id for a document that has none.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Line, Refusal> {
        Line::read(7, text.to_owned(), &Keys::default(), || "made".into())
    }

    #[test]
    fn the_rest_of_a_document_keeps_its_bytes() {
        for (document, sent) in [
            (
                r#"{"module":"echo","params": 1.50}"#,
                r#"{"id":"made","module":"echo","params": 1.50}"#,
            ),
            (r#"{ "module":"echo"}"#, r#"{"id":"made", "module":"echo"}"#),
            ("{ }", r#"{"id":"made" }"#),
            (
                r#"{"module":"echo","id":"mine"}"#,
                r#"{"module":"echo","id":"mine"}"#,
            ),
        ] {
            assert_eq!(read(document).unwrap().text, sent);
        }
        let line = read(r#"{"id":"m\u0069ne","job":"j"}"#).unwrap();
        assert_eq!(
            (line.id().as_str(), line.named, line.job.as_deref()),
            ("mine", true, Some("j"))
        );
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_line() {
        for (text, code, words) in [
            (r#"{"module":"#, RefusalCode::MalformedJson, "not JSON"),
            ("nonsense", RefusalCode::MalformedJson, "not JSON"),
            ("[1]", RefusalCode::WrongType, "`[1]`"),
            ("7", RefusalCode::WrongType, "object"),
            (r#"{"id":null}"#, RefusalCode::WrongType, "`id`"),
            (r#"{"id":5}"#, RefusalCode::WrongType, "`id`"),
            ("{} {}", RefusalCode::MalformedJson, "trailing"),
        ] {
            let refusal = read(text).unwrap_err();
            assert_eq!(refusal.code, code, "{text}: {refusal}");
            assert!(
                refusal.to_string().starts_with("line 7: ") && refusal.message.contains(words),
                "{text}: {refusal}"
            );
        }
    }
}
