//! A JSON value that is kept as the text in which it came, so that nothing is re-ordered or
//! rounded, and passing it on is cheap.

use crate::refusal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// One valid JSON value, byte for byte as it was sent. Clones share the text.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// The text, valid JSON without surrounding white space.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The value as serde_json's own type for text that is not read yet.
    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// Checks `text` and keeps a copy. The error has the position where the text is not JSON.
    pub fn parse(text: &str) -> Result<Json, serde_json::Error> {
        serde_json::from_str::<Box<RawValue>>(text).map(|raw| Json(raw.into()))
    }

    /// Reads what came from a file or a pipe: UTF-8, with blanks and a byte order mark around it. The
    /// error is the end of a sentence that begins with the name of the source: `is not JSON: …`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Json, String> {
        let is_utf16 = matches!(
            bytes,
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, ..] | [_, 0, ..]
        );
        if is_utf16 {
            return Err("is UTF-16, and JSON is UTF-8: convert it with \
                        `iconv -f UTF-16 -t UTF-8`"
                .into());
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            format!("is not JSON: byte {byte} of it is not UTF-8")
        })?;
        let text = text.trim().trim_start_matches('\u{feff}').trim_start();
        Json::parse(text).map_err(|error| match refusal::foreign_word(text, &error) {
            Some(word) => format!("is not JSON: {error}; JSON has no `{word}`"),
            None => format!("is not JSON: {error}"),
        })
    }

    /// Checks `text` and keeps it, without a copy where its allocation fits.
    pub fn from_string(text: String) -> Result<Json, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Json(raw.into()))
    }

    /// The JSON string that holds `text`.
    pub fn string(text: &str) -> Json {
        Json::of(&text)
    }

    /// `null`.
    pub fn null() -> Json {
        Json(RawValue::NULL.to_owned().into())
    }

    /// `value` as JSON. The types of this workspace always serialise, because their keys are
    /// strings and their numbers finite; a value that did not would become `null`.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Json {
        serde_json::value::to_raw_value(value).map_or_else(|_| Json::null(), |raw| Json(raw.into()))
    }

    /// How many bytes [`Json::of`] gives, without writing them.
    pub fn bytes_of<T: Serialize + ?Sized>(value: &T) -> usize {
        let mut count = ByteCount(0);
        match serde_json::to_writer(&mut count, value) {
            Ok(()) => count.0,
            Err(_) => RawValue::NULL.get().len(),
        }
    }

    /// Reads the value as `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }
}

/// Counts what is written into it.
struct ByteCount(usize);

impl std::io::Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            serializer.serialize_str(self.get())
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        if deserializer.is_human_readable() {
            Box::<RawValue>::deserialize(deserializer).map(|raw| Json(raw.into()))
        } else {
            let text = String::deserialize(deserializer)?;
            Json::from_string(text).map_err(serde::de::Error::custom)
        }
    }
}

impl schemars::JsonSchema for Json {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "any JSON value, kept byte for byte" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_other_systems_are_read_or_named() {
        for (bytes, json) in [
            (b"\xEF\xBB\xBF {\"a\":1.50}\r\n".as_slice(), "{\"a\":1.50}"),
            (b"1e400", "1e400"),
            (b"-0", "-0"),
            (b"9007199254740993", "9007199254740993"),
        ] {
            assert_eq!(Json::from_bytes(bytes).unwrap().get(), json);
        }
        for (bytes, words) in [
            (b"\xFF\xFE1\0".as_slice(), "UTF-16"),
            (b"1\0", "UTF-16"),
            (b"\0" as &[u8], "UTF-16"),
            (b"\"\xff\"", "byte 2 of it is not UTF-8"),
            (b"{\"a\": NaN}", "JSON has no `NaN`"),
            (b"", "is not JSON"),
        ] {
            let error = Json::from_bytes(bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
