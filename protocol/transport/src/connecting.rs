//! A TCP connection to a master: the name service is asked first, because a name that nobody knows
//! and a host that does not answer are mended in different places.

use crate::Address;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ConnectStage {
    #[default]
    Resolving,
    Connecting,
    /// The other side has taken the connection, and is to say something.
    Greeting,
}

/// Tells how far a connection has come when its time is over.
#[derive(Debug, Default)]
pub(crate) struct ConnectProgress(Mutex<ConnectStage>);

impl ConnectProgress {
    pub(crate) fn reached(&self, stage: ConnectStage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Why there is no connection after `limit`.
    pub(crate) fn late(&self, address: &Address, limit: Duration) -> String {
        let stage = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = limit.as_secs_f64();
        match stage {
            ConnectStage::Resolving => format!(
                "the name service has not answered for `{}` within {seconds:.0} s",
                address.host()
            ),
            ConnectStage::Connecting => format!(
                "nothing answers there within {seconds:.0} s: the address may be wrong, or a \
                 firewall drops what is sent there"
            ),
            ConnectStage::Greeting => "it accepts the connection and then says nothing".to_owned(),
        }
    }
}

/// Connects to the first of the name's addresses that answers. The error is a sentence.
pub(crate) async fn connect(
    address: &Address,
    progress: &ConnectProgress,
) -> Result<TcpStream, String> {
    let unknown = |why: &dyn std::fmt::Display| {
        format!("the name `{}` cannot be resolved: {why}", address.host())
    };
    let found: Vec<SocketAddr> = lookup_host(address.authority())
        .await
        .map_err(|error| unknown(&error))?
        .collect();
    if found.is_empty() {
        return Err(unknown(&"it has no address"));
    }
    progress.reached(ConnectStage::Connecting);
    let mut last = String::new();
    for candidate in found {
        match TcpStream::connect(candidate).await {
            Ok(stream) => {
                progress.reached(ConnectStage::Greeting);
                // Small messages must not wait for more to come (Nagle's algorithm).
                stream
                    .set_nodelay(true)
                    .map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}
