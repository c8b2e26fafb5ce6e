//! Dials a master: the WebSocket with its `hello`, and HTTP for bytes on the same port; and reads
//! the files of this machine that become inputs. Runners and clients share it.

#![deny(missing_docs)]

mod address;
mod blobs;
mod dial;
pub mod files;
pub mod local;

pub use address::{Address, BadAddress};
pub use blobs::{BlobClient, BlobError};
pub use dial::{DialError, Socket, dial};
