//! The form of everything that is written: format, checksum, content. The content is postcard, which
//! writes no names.

use serde::{Deserialize, Serialize};

/// The version of everything that this module writes.
pub const FORMAT: u8 = 1;

/// Why bytes on the disk cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by another version of this program.
    #[error("it is of format {0}, this program reads format {FORMAT}")]
    Format(u8),
    /// Not what was written.
    #[error("its checksum does not match")]
    Checksum,
    /// The checksum is right and the content is not: a bug of ours.
    #[error("it does not decode: {0}")]
    Content(String),
    /// Nothing there.
    #[error("it is empty")]
    Empty,
}

/// Format, checksum, content.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let start = vec![FORMAT, 0, 0, 0, 0];
    // Ours always encode: no failing implementations, lengths known.
    let mut bytes = postcard::to_extend(value, start).unwrap_or_default();
    if let Some(content) = bytes.get(5..) {
        let sum = crc32fast::hash(content).to_le_bytes();
        bytes[1..5].copy_from_slice(&sum);
    }
    bytes
}

/// Content alone, for what lies inside something that has a head.
pub fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::new()).unwrap_or_default()
}

/// Reads what [`pack`] wrote.
pub fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unreadable> {
    postcard::from_bytes(bytes).map_err(|error| Unreadable::Content(error.to_string()))
}

/// Reads what [`encode`] wrote.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unreadable> {
    let (head, content) = bytes.split_at_checked(5).ok_or(Unreadable::Empty)?;
    if head[0] != FORMAT {
        return Err(Unreadable::Format(head[0]));
    }
    if crc32fast::hash(content).to_le_bytes() != head[1..5] {
        return Err(Unreadable::Checksum);
    }
    unpack(content)
}

pub(crate) mod as_json {
    //! A part of a record as JSON inside the compact form.
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(
        part: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = part
            .as_ref()
            .map(|part| serde_json::to_string(part).unwrap_or_default());
        text.serialize(serializer)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| serde_json::from_str(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}
