//! One task document of a feed, ready to be sent: with an id, and otherwise as it was written.

use crate::wire::JsonStr;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use taskmaster_protocol::{Refusal, RefusalCode, refusal};

/// Characters of a wrong document that an error shows.
const SHOWN_CHARS: usize = 20;

/// An id as 128 bits, so that a feed of a million tasks keeps its ids in some 20 bytes each. Two of
/// a million ids have one hash by chance in one feed of 10^26.
pub type LineIdHash = u128;

/// Hashes ids. Each process has keys of its own, so nobody can choose ids that collide.
#[derive(Clone, Default)]
pub struct IdHasher {
    high: RandomState,
    low: RandomState,
}

impl IdHasher {
    /// The hash of an id.
    pub fn hash(&self, id: &str) -> LineIdHash {
        let high = u128::from(self.high.hash_one(id));
        let low = u128::from(self.low.hash_one(id));
        high << 64 | low
    }
}

/// A document that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedLine {
    /// The line of the input on which the document begins, from 1.
    pub number: u64,
    /// The hash of the document's id.
    pub id: LineIdHash,
    /// Whether the document's author gave the id: then other tasks may depend on it.
    pub has_own_id: bool,
    /// The job that the document names.
    pub job: Option<Arc<str>>,
    /// The document. An id that was made here stands first.
    pub text: String,
    /// Whether the document has `inputs`, which may be files of this machine.
    pub has_inputs: bool,
}

/// What a client must know of a document. Everything else is for the master to check.
#[derive(Deserialize)]
struct KnownFields<'a> {
    /// `null` is no id: the master would make one that the client does not know.
    #[serde(borrow, default, deserialize_with = "not_null")]
    id: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    job: Option<JsonStr<'a>>,
    #[serde(default)]
    inputs: Option<IgnoredAny>,
}

fn not_null<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<JsonStr<'a>>, D::Error> {
    JsonStr::deserialize(deserializer).map(Some)
}

impl FeedLine {
    /// Reads a document that begins on line `number`. `make_id` gives an id where it has none.
    pub fn read(
        number: u64,
        text: String,
        hasher: &IdHasher,
        make_id: impl FnOnce() -> String,
    ) -> Result<FeedLine, Refusal> {
        let refuse = |refusal: Refusal| Refusal {
            line: Some(number),
            ..refusal
        };
        if !text.starts_with('{') {
            return Err(refuse(no_object(&text)));
        }
        let fields: KnownFields<'_> = refusal::read(&text).map_err(refuse)?;
        let own_id = fields.id.map(|id| hasher.hash(&id.0));
        let job = fields.job.map(|job| Arc::from(job.0.as_ref()));
        let has_inputs = fields.inputs.is_some();
        if let Some(id) = own_id {
            return Ok(FeedLine {
                number,
                id,
                has_own_id: true,
                job,
                text,
                has_inputs,
            });
        }
        let id = make_id();
        Ok(FeedLine {
            number,
            id: hasher.hash(&id),
            has_own_id: false,
            job,
            text: with_id(&text, &id),
            has_inputs,
        })
    }

    /// Where the params stand in the text, if it has some.
    pub fn params(&self) -> Option<Range<usize>> {
        #[derive(Deserialize)]
        struct ParamsField<'a> {
            #[serde(borrow)]
            params: Option<&'a RawValue>,
        }
        let fields: ParamsField<'_> = serde_json::from_str(&self.text).ok()?;
        range_of(fields.params?.get(), &self.text)
    }

    /// The id, read from the text: needed only when something is wrong.
    pub fn id_text(&self) -> String {
        serde_json::from_str::<KnownFields<'_>>(&self.text)
            .ok()
            .and_then(|fields| fields.id)
            .map_or(String::new(), |id| id.0.into_owned())
    }
}

/// Why a text that does not begin an object is no document.
fn no_object(text: &str) -> Refusal {
    if let Err(refusal) = refusal::read::<IgnoredAny>(text) {
        return refusal;
    }
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let message = format!("a task is a JSON object such as {{\"module\":\"echo\"}}, not `{shown}`");
    Refusal::new(RefusalCode::WrongType, message)
}

/// Where `part` stands in `text`, if it is borrowed from it.
pub fn range_of(part: &str, text: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start + part.len();
    (end <= text.len()).then_some(start..end)
}

/// The document with `id` as its first member, and every other byte as it was.
pub fn with_id(document: &str, id: &str) -> String {
    let rest = document.strip_prefix('{').unwrap_or(document);
    let is_empty = rest.trim_start().starts_with('}');
    let comma = if is_empty { "" } else { "," };
    format!("{{\"id\":\"{id}\"{comma}{rest}")
}

/// A new id for a document that has none.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FeedLine, Refusal> {
        FeedLine::read(7, text.to_owned(), &IdHasher::default(), || "made".into())
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
        assert_eq!(line.id_text(), "mine");
        assert!(line.has_own_id);
        assert_eq!(line.job.as_deref(), Some("j"));
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
            assert!(refusal.to_string().starts_with("line 7: "), "{refusal}");
            assert!(refusal.message.contains(words), "{text}: {refusal}");
        }
    }
}
