//! The body of a task as memory keeps it: whole while somebody works with it, packed while the task
//! waits for long. There may be millions that wait, and packed they take a third.

use std::sync::Arc;
use taskmaster_protocol::{Requires, TaskId};
use taskmaster_store::body::TaskBody;
use taskmaster_store::codec;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum Kept {
    /// As it came.
    Whole(Arc<TaskBody>),
    /// Its bytes.
    Packed(Packed),
}

/// The bytes of a body without what the task requires, which it shares with others.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    requires: Option<Arc<Requires>>,
}

impl Kept {
    /// Whether it is the body of the task of this id.
    pub fn has_id(&self, id: &TaskId) -> bool {
        match self {
            Kept::Whole(body) => body.id == *id,
            Kept::Packed(packed) => packed.has_id(id),
        }
    }

    /// Packs it.
    pub fn pack(&mut self) {
        if let Kept::Whole(body) = self {
            let slim = TaskBody {
                requires: None,
                ..body.as_ref().clone()
            };
            *self = Kept::Packed(Packed {
                bytes: codec::pack(&slim).into(),
                requires: body.requires.clone(),
            });
        }
    }
}

impl Packed {
    /// The id comes first, behind its length.
    fn has_id(&self, id: &TaskId) -> bool {
        let (id, mut length, mut head) = (
            id.as_str().as_bytes(),
            id.as_str().len(),
            Vec::with_capacity(2),
        );
        while length > 127 {
            head.push(length as u8 | 128);
            length >>= 7;
        }
        head.push(length as u8);
        self.bytes
            .strip_prefix(head.as_slice())
            .is_some_and(|rest| rest.starts_with(id))
    }

    /// The body.
    pub fn read(&self) -> TaskBody {
        let body = codec::unpack::<TaskBody>(&self.bytes);
        assert!(
            body.is_ok(),
            "a body does not read as it was packed: {body:?}"
        );
        let requires = self.requires.clone();
        body.map(|body| TaskBody { requires, ..body })
            .unwrap_or_else(|_| unreachable!())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{JobName, TaskDocument, Wall};

    #[test]
    fn a_packed_body_reads_as_it_was_and_has_its_id() {
        for length in [1, 36, 127, 128] {
            let id = TaskId::new(&"a".repeat(length)).unwrap();
            let text = r#"{"module":"m@sha256:0123456789ab","params":{"a":[1,2.50]},"args":["x"],"priority":-3,
                "requires":{"labels":{"a":"b"},"slots":2},"dependencies":[{"on":"d","when":"settled"}]}"#;
            let document = TaskDocument::parse(text).unwrap();
            let to = (id.clone(), JobName::new("j").unwrap());
            let body = Arc::new(TaskBody::new(
                document,
                [7; 16],
                Vec::new(),
                (3, Wall(5)),
                to,
            ));
            let mut kept = Kept::Whole(body.clone());
            kept.pack();
            assert!(kept.has_id(&id));
            for other in ["b", "aa"] {
                assert!(!kept.has_id(&TaskId::new(other).unwrap()));
            }
            let Kept::Packed(packed) = &kept else {
                panic!("it is packed")
            };
            assert_eq!(packed.read(), *body);
        }
    }
}
