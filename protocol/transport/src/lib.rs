//! How runners and clients reach a master: the WebSocket with its `hello`, and HTTP for blobs on
//! the same port. It also reads the files of this machine that become inputs.

mod address;
mod blobs;
mod connecting;
mod dial;
pub mod files;
pub mod local;

pub use address::{Address, BadAddress};
pub use blobs::{BlobClient, BlobError};
pub use dial::{DialError, Socket, dial, dial_within};
