//! The body of a task in the form in which memory and disk keep it for long. A packed body has a
//! third of the size, and millions of tasks may be waiting.

use crate::body::TaskBody;
use crate::codec::{self, DecodeError, as_json};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use taskmaster_protocol::{Requires, TaskId};

/// The body of a task, either ready for use or packed.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredBody {
    /// The body itself, shared with everybody who uses it.
    Whole(Arc<TaskBody>),
    /// The bytes of the body, while nobody uses it.
    Packed(PackedBody),
}

/// The bytes of a body. The requirements stay beside the bytes, because tasks with equal
/// requirements share one value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackedBody {
    #[serde(with = "as_bytes")]
    /// The body without its requirements, in the compact form.
    bytes: Box<[u8]>,
    /// What a runner must offer to run the task; `None` asks for nothing.
    #[serde(with = "as_json")]
    requires: Option<Arc<Requires>>,
}

impl StoredBody {
    /// The body, decoded from its bytes where it is packed.
    pub fn whole(&self) -> Result<Arc<TaskBody>, DecodeError> {
        match self {
            StoredBody::Whole(body) => Ok(body.clone()),
            StoredBody::Packed(packed) => packed.read().map(Arc::new),
        }
    }

    /// Whether this is the body of the task `id`. A packed body is not decoded for it.
    pub fn has_id(&self, id: &TaskId) -> bool {
        match self {
            StoredBody::Whole(body) => body.id == *id,
            StoredBody::Packed(packed) => packed.has_id(id),
        }
    }

    /// Replaces the body by its bytes, unless it is packed already.
    pub fn pack(&mut self) {
        if let StoredBody::Whole(body) = self {
            *self = StoredBody::Packed(PackedBody::new(body));
        }
    }
}

impl PackedBody {
    fn new(body: &TaskBody) -> PackedBody {
        // Most tasks require nothing, and their bodies are packed as they are.
        let bytes = match &body.requires {
            None => codec::pack(body),
            Some(_) => codec::pack(&TaskBody {
                requires: None,
                ..body.clone()
            }),
        };
        PackedBody {
            bytes: bytes.into(),
            requires: body.requires.clone(),
        }
    }

    fn read(&self) -> Result<TaskBody, DecodeError> {
        let slim: TaskBody = codec::unpack(&self.bytes)?;
        Ok(TaskBody {
            requires: self.requires.clone(),
            ..slim
        })
    }

    /// Whether the bytes begin with `id`. They begin with the id's length, seven bits in a byte and
    /// the lowest bits first, and then the id.
    fn has_id(&self, id: &TaskId) -> bool {
        let id = id.as_str().as_bytes();
        let mut length = id.len();
        let mut encoded_length = Vec::with_capacity(2);
        while length > 127 {
            encoded_length.push(length as u8 | 128);
            length >>= 7;
        }
        encoded_length.push(length as u8);

        self.bytes
            .strip_prefix(encoded_length.as_slice())
            .is_some_and(|rest| rest.starts_with(id))
    }
}

impl Serialize for StoredBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            StoredBody::Whole(body) => PackedBody::new(body).serialize(serializer),
            StoredBody::Packed(packed) => packed.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StoredBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StoredBody, D::Error> {
        PackedBody::deserialize(deserializer).map(StoredBody::Packed)
    }
}

mod as_bytes {
    //! Writes and reads bytes in one piece, where serde would do so one by one.
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(
        clippy::borrowed_box,
        reason = "serde passes the field as it is declared"
    )]
    pub fn serialize<S: Serializer>(bytes: &Box<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8]>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{AddedTask, Fingerprint};
    use taskmaster_protocol::{JobName, TaskDocument, Wall};

    #[test]
    fn a_packed_body_reads_as_it_was_and_has_its_id() {
        for length in [1, 36, 127, 128] {
            let id = TaskId::new(&"a".repeat(length)).unwrap();
            let text = r#"{"module":"m@sha256:0123456789ab","params":{"a":[1,2.50]},"args":["x"],
                "priority":-3,"requires":{"labels":{"a":"b"},"slots":2},
                "dependencies":[{"on":"d","when":"settled"}]}"#;
            let body = Arc::new(TaskBody::new(AddedTask {
                document: TaskDocument::parse(text).unwrap(),
                fingerprint: Fingerprint::of(text),
                references: Vec::new(),
                id: id.clone(),
                job: JobName::new("j").unwrap(),
                ordinal: 3,
                created: Wall(5),
                job_results: Vec::new(),
                lineage: None,
                cache: None,
            }));
            let mut stored = StoredBody::Whole(body.clone());
            let written_whole = codec::pack(&stored);
            stored.pack();
            assert!(stored.has_id(&id));
            for other in ["b", "aa"] {
                assert!(!stored.has_id(&TaskId::new(other).unwrap()));
            }
            assert!(matches!(stored, StoredBody::Packed(_)), "it is packed");
            assert_eq!(stored.whole().unwrap(), body);
            assert_eq!(codec::pack(&stored), written_whole);
            let read: StoredBody = codec::unpack(&written_whole).unwrap();
            assert_eq!(read.whole().unwrap(), body);
        }
    }
}
