//! Kept answers: what makes two tasks equal, and which answers are kept.

pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod unfolded;

use taskmaster_protocol::Hash;

/// What is known, without asking anybody, of the blobs that answers name.
pub trait BlobIndex: Send {
    /// The size of a blob in bytes; `None` where it is not there.
    fn size(&self, hash: &Hash) -> Option<u64>;
}

/// Blobs of which nothing is known: all of them count as there, and as empty.
#[derive(Debug, Clone, Copy)]
pub struct UncheckedBlobs;

impl BlobIndex for UncheckedBlobs {
    fn size(&self, _: &Hash) -> Option<u64> {
        Some(0)
    }
}
