//! The body of a task as memory and disk keep it for long: packed, a third of the size. There may be
//! millions of tasks that wait.

use crate::body::TaskBody;
use crate::codec::{self, Unreadable, as_json};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use taskmaster_protocol::{Requires, TaskId};

/// The body of a task, in the form that suits what is done with it.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredBody {
    /// As it came, shared with whoever works with it.
    Whole(Arc<TaskBody>),
    /// Its bytes, for as long as nobody works with it.
    Packed(PackedBody),
}

/// The bytes of a body, and beside them what the task requires, which it shares with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackedBody {
    #[serde(with = "as_bytes")]
    bytes: Box<[u8]>,
    #[serde(with = "as_json")]
    requires: Option<Arc<Requires>>,
}

impl StoredBody {
    /// The body, read from its bytes where it is packed.
    pub fn whole(&self) -> Result<Arc<TaskBody>, Unreadable> {
        match self {
            StoredBody::Whole(body) => Ok(body.clone()),
            StoredBody::Packed(packed) => packed.read().map(Arc::new),
        }
    }

    /// Whether it is the body of the task of this id. Unpacks nothing.
    pub fn has_id(&self, id: &TaskId) -> bool {
        match self {
            StoredBody::Whole(body) => body.id == *id,
            StoredBody::Packed(packed) => packed.has_id(id),
        }
    }

    /// Packs it.
    pub fn pack(&mut self) {
        if let StoredBody::Whole(body) = self {
            *self = StoredBody::Packed(PackedBody::new(body));
        }
    }
}

impl PackedBody {
    fn new(body: &TaskBody) -> PackedBody {
        let slim = TaskBody {
            requires: None,
            ..body.clone()
        };
        PackedBody {
            bytes: codec::pack(&slim).into(),
            requires: body.requires.clone(),
        }
    }

    fn read(&self) -> Result<TaskBody, Unreadable> {
        let slim: TaskBody = codec::unpack(&self.bytes)?;
        Ok(TaskBody {
            requires: self.requires.clone(),
            ..slim
        })
    }

    /// The id comes first, behind its length: seven bits a byte, the lowest first.
    fn has_id(&self, id: &TaskId) -> bool {
        let id = id.as_str().as_bytes();
        let mut length = id.len();
        let mut head = Vec::with_capacity(2);
        while length > 127 {
            head.push(length as u8 | 128);
            length >>= 7;
        }
        head.push(length as u8);
        let rest = self.bytes.strip_prefix(head.as_slice());
        rest.is_some_and(|rest| rest.starts_with(id))
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
    //! Bytes in one piece, where serde would read them one by one.
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::borrowed_box, reason = "serde hands in what the field is")]
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
