//! Dials a master: the WebSocket with its `hello`, and HTTP for bytes on the same port. Runners and clients share it.

#![deny(missing_docs)]

mod address;
mod blobs;
mod dial;

pub use address::{Address, BadAddress};
pub use blobs::{BlobError, Blobs};
pub use dial::{DialError, Socket, dial};
