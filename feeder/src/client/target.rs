//! Which masters to try, and who we say we are.

use super::{Backoff, Link};
use crate::trouble::Trouble;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use taskmaster_protocol::PROTOCOL_VERSION;
use taskmaster_protocol::message::{Hello, Role};
use taskmaster_transport::{Address, BlobClient, DialError, dial};
use tokio::time::Instant;

/// Masters, in the order in which they are tried, with the token and the session's name.
#[derive(Debug, Clone)]
pub struct Target {
    addresses: Vec<Address>,
    token: Option<String>,
    session: String,
    /// Index of the one that answered last: it is tried first, and has our blobs.
    last: Arc<Mutex<usize>>,
}

impl Target {
    /// Reads comma-separated addresses; makes a new session.
    pub fn parse(urls: &str, token: Option<&str>) -> Result<Target, Trouble> {
        let addresses = urls
            .split(',')
            .filter(|url| !url.trim().is_empty())
            .map(|url| Address::parse(url).map_err(|error| Trouble::Usage(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(Trouble::Usage(
                "--url is empty; write it like ws://127.0.0.1:3232".into(),
            ));
        }
        let token = token.filter(|token| !token.is_empty()).map(str::to_owned);
        Ok(Target {
            addresses,
            token,
            session: uuid::Uuid::now_v7().to_string(),
            last: Arc::default(),
        })
    }

    /// The addresses, as people type them.
    pub fn shown(&self) -> String {
        self.addresses
            .iter()
            .map(Address::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether a token will be told.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Bytes by hash, from the master that answered last.
    pub fn blobs(&self) -> BlobClient {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // `last` is an index of ours, and there is at least one address.
        BlobClient::new(self.addresses[last].clone(), self.token.clone())
    }

    /// Tries each address in turn until one answers or `patience` is over.
    pub(super) async fn dial_within(&self, patience: Duration) -> Result<Link, Trouble> {
        let end = Instant::now() + patience;
        let mut backoff = Backoff::new();
        loop {
            let why = match tokio::time::timeout_at(end, self.dial_once()).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(Trouble::Lost(why))) => why,
                Ok(Err(final_trouble)) => return Err(final_trouble),
                Err(_) => "it accepts the connection and then says nothing".to_owned(),
            };
            if Instant::now() >= end {
                return Err(self.unreachable(&why));
            }
            backoff.wait(Some(end)).await;
        }
    }

    /// Tries until a master answers; fails only when one refuses.
    pub(super) async fn dial_forever(&self) -> Result<Link, Trouble> {
        let mut backoff = Backoff::new();
        loop {
            match self.dial_once().await {
                Err(Trouble::Lost(_)) => backoff.wait(None).await,
                other => return other,
            }
        }
    }

    /// Each address once. [`Trouble::Lost`] where another try may help.
    async fn dial_once(&self) -> Result<Link, Trouble> {
        let first = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut why = String::new();
        for i in (0..self.addresses.len()).map(|i| (first + i) % self.addresses.len()) {
            match dial(&self.addresses[i], self.hello()).await {
                Ok((socket, welcome)) => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = i;
                    return Ok(Link::new(socket, welcome));
                }
                Err(DialError::Unreachable { why: reason, .. }) => why = reason,
                Err(DialError::Refused { refusal, .. })
                    if refusal.code == taskmaster_protocol::RefusalCode::Unavailable =>
                {
                    why = refusal.message;
                }
                Err(DialError::Refused { refusal, .. }) => return Err(Trouble::Refused(refusal)),
                Err(error @ DialError::Foreign { .. }) => {
                    return Err(Trouble::Local(error.to_string()));
                }
            }
        }
        Err(Trouble::Lost(why))
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

    fn unreachable(&self, why: &str) -> Trouble {
        let shown = self.shown();
        Trouble::Unreachable(format!(
            "no master answers at {shown} ({why}): start one with `taskmaster up`, or say with --url or TASKMASTER_URL where one is"
        ))
    }
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
            assert_eq!(
                Target::parse(bad, None).unwrap_err().exit_code(),
                crate::exit::USAGE,
                "{bad:?}"
            );
        }
    }
}
