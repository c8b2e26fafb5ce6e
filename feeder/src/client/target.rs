//! Which masters a client tries, and how it introduces itself.

use super::backoff::Backoff;
use super::connection::MasterConnection;
use super::error::ClientError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use taskmaster_protocol::message::{Hello, Role};
use taskmaster_protocol::{PROTOCOL_VERSION, RefusalCode, limits, token};
use taskmaster_transport::{Address, BlobClient, DialError, dial_within};
use tokio::time::Instant;

/// A try that may last this long is believed when it says why there is no connection.
const LONG_TRY: Duration = Duration::from_secs(1);

/// The masters that a client tries, with its token and the name of its session.
///
/// Clones share the session and the knowledge of which master answered last, so one `Target` stands
/// for one session, however many connections it takes.
#[derive(Debug, Clone)]
pub struct Target {
    /// In the order in which they are tried; never empty.
    addresses: Vec<Address>,
    token: Option<String>,
    session: String,
    /// Index of the master that answered last: it is tried first, and it has this client's blobs.
    last: Arc<Mutex<usize>>,
}

impl Target {
    /// Reads comma-separated addresses such as `ws://127.0.0.1:3232` and names a new session. An
    /// empty token counts as none.
    ///
    /// # Errors
    ///
    /// [`ClientError::InvalidUrl`] where an address or the token is malformed or there is no
    /// address. Nothing is connected here.
    pub fn parse(urls: &str, token: Option<&str>) -> Result<Target, ClientError> {
        let addresses = urls
            .split(',')
            .filter(|url| !url.trim().is_empty())
            .map(|url| {
                Address::parse(url).map_err(|error| ClientError::InvalidUrl(error.to_string()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(ClientError::InvalidUrl(
                "--url is empty; write it like ws://127.0.0.1:3232".into(),
            ));
        }
        let token = token::read(token.unwrap_or_default())
            .map_err(|error| ClientError::InvalidUrl(error.to_string()))?;
        Ok(Target {
            addresses,
            token,
            session: uuid::Uuid::now_v7().to_string(),
            last: Arc::default(),
        })
    }

    /// All addresses, comma-separated, as people type them.
    pub fn shown(&self) -> String {
        self.addresses
            .iter()
            .map(Address::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether the client sends a token with its first message.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Bytes by hash, at the master that answered last, or at the first address before one has.
    pub fn blobs(&self) -> BlobClient {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        BlobClient::new(self.addresses[last].clone(), self.token.clone())
    }

    /// Tries each address in turn until a master answers or `patience` is over.
    pub(super) async fn dial_within(
        &self,
        patience: Duration,
    ) -> Result<MasterConnection, ClientError> {
        let end = Instant::now() + patience;
        let mut backoff = Backoff::new();
        let mut reason = String::new();
        loop {
            let is_long = end.saturating_duration_since(Instant::now()) >= LONG_TRY;
            match self.dial_once(Some(end)).await {
                Ok(connection) => return Ok(connection),
                // What a try that was cut short says is of little use.
                Err(DialFailure::Away(why)) if is_long || reason.is_empty() => reason = why,
                Err(DialFailure::Away(_)) => {}
                Err(DialFailure::Final(error)) => return Err(error),
            }
            if Instant::now() >= end {
                return Err(ClientError::Unreachable {
                    addresses: self.shown(),
                    reason,
                });
            }
            backoff.wait(Some(end)).await;
        }
    }

    /// Tries until a master answers. Fails only where a further try is of no use.
    pub(super) async fn dial_forever(&self) -> Result<MasterConnection, ClientError> {
        let mut backoff = Backoff::new();
        loop {
            match self.dial_once(None).await {
                Ok(connection) => return Ok(connection),
                Err(DialFailure::Away(_)) => backoff.wait(None).await,
                Err(DialFailure::Final(error)) => return Err(error),
            }
        }
    }

    /// Tries each address once, beginning with the master that answered last, but not beyond `end`.
    async fn dial_once(&self, end: Option<Instant>) -> Result<MasterConnection, DialFailure> {
        let longest = Duration::from_millis(limits::HELLO_MS_MAX);
        let first = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.addresses.len();
        let mut reason = String::new();
        for index in (0..count).map(|step| (first + step) % count) {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let limit = left.unwrap_or(longest).min(longest);
            match dial_within(&self.addresses[index], self.hello(), limit).await {
                Ok((socket, welcome)) => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = index;
                    return Ok(MasterConnection::new(socket, welcome));
                }
                Err(DialError::Unreachable { why, .. }) => reason = why,
                Err(DialError::Refused { refusal, .. })
                    if refusal.code == RefusalCode::Unavailable =>
                {
                    reason = refusal.message;
                }
                Err(DialError::Refused { refusal, .. }) => {
                    return Err(DialFailure::Final(ClientError::Refused(refusal)));
                }
                Err(error @ DialError::Foreign { .. }) => {
                    let text = error.to_string();
                    return Err(DialFailure::Final(ClientError::NotAMaster(text)));
                }
            }
        }
        Err(DialFailure::Away(reason))
    }

    fn hello(&self) -> Hello {
        Hello {
            role: Role::Client,
            protocol: PROTOCOL_VERSION,
            token: self.token.clone(),
            session: Some(self.session.clone()),
            runner: None,
        }
    }
}

/// Why none of the addresses gave a connection.
enum DialFailure {
    /// No master answers, or none can take a client for now: another try may help.
    Away(String),
    /// Another try is of no use.
    Final(ClientError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_masters_are_read_and_shown() {
        let target = Target::parse("ws://a:1, ws://b", None).unwrap();
        assert_eq!(target.shown(), "ws://a:1, ws://b:3232");
        assert!(!Target::parse("ws://a", Some("")).unwrap().has_token());
        for bad in ["", " , ", "wss://x"] {
            let error = Target::parse(bad, None).unwrap_err();
            assert!(matches!(error, ClientError::InvalidUrl(_)), "{bad:?}");
        }
    }
}
