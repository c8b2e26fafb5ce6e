//! The form of everything that is written to disk: a byte for the format, a checksum, the content.
//! The content is postcard, which writes no names of fields or variants.

use serde::{Deserialize, Serialize};

/// The version of the form that this module writes and reads.
pub const FORMAT: u8 = 1;

/// Bytes before the content: one for the format, four for the checksum.
const HEAD_BYTES: usize = 5;

/// Why bytes on the disk cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes were written by another version of this program.
    #[error("it is of format {0}, this program reads format {FORMAT}")]
    Format(u8),
    /// The bytes are not those that were written.
    #[error("its checksum does not match")]
    Checksum,
    /// The checksum is right and the content cannot be decoded, which is a bug of this program.
    #[error("it does not decode: {0}")]
    Content(String),
    /// There are too few bytes for a head.
    #[error("it is empty")]
    Empty,
}

/// The value as bytes with a head: format, checksum, content.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut head = vec![0; HEAD_BYTES];
    head[0] = FORMAT;
    // Encoding cannot fail: no type of this program has a serializer that fails, and the lengths of
    // all sequences are known.
    let mut bytes = postcard::to_extend(value, head).unwrap_or_default();
    if let Some(content) = bytes.get(HEAD_BYTES..) {
        let checksum = crc32fast::hash(content).to_le_bytes();
        bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
    }
    bytes
}

/// The value as bytes without a head, for values inside another one that has a head.
pub fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::new()).unwrap_or_default()
}

/// Reads what [`pack`] wrote.
pub fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    postcard::from_bytes(bytes).map_err(|error| DecodeError::Content(error.to_string()))
}

/// Whether the bytes are what [`encode`] wrote. The content is not decoded.
pub fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    sound_content(bytes).map(drop)
}

/// The format and the checksum of bytes that [`encode`] wrote, as a number that nearly always differs
/// where the content differs; `None` where there are too few bytes for a head.
pub(crate) fn head_number(bytes: &[u8]) -> Option<u64> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    Some(
        head.iter()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte)),
    )
}

/// Reads what [`encode`] wrote.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    unpack(sound_content(bytes)?)
}

/// The content behind a head whose format and checksum are right.
fn sound_content(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (head, content) = bytes
        .split_at_checked(HEAD_BYTES)
        .ok_or(DecodeError::Empty)?;
    if head[0] != FORMAT {
        return Err(DecodeError::Format(head[0]));
    }
    if crc32fast::hash(content).to_le_bytes() != head[1..] {
        return Err(DecodeError::Checksum);
    }
    Ok(content)
}

pub(crate) mod as_json {
    //! Writes a part of a record as JSON inside the compact form, so that the part can get more
    //! fields without a change of the format.
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
