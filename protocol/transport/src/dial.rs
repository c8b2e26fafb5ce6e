//! A WebSocket to a master, from the connection up to `welcome`.

use crate::Address;
use crate::connecting::{ConnectProgress, connect};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use taskmaster_protocol::message::{Hello, Welcome};
use taskmaster_protocol::{FromMaster, Refusal, RefusalCode, ToMaster, excerpt, limits};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::{self, Message, protocol::WebSocketConfig};

/// A connection to a master.
pub type Socket = WebSocketStream<TcpStream>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No master answers at the address, or not in time; trying again may help.
    #[error("no master answers at {address}: {why}")]
    Unreachable {
        /// The address that was dialled.
        address: Address,
        /// The error of the system or the connection.
        why: String,
    },
    /// A master answers and refuses, because of a wrong token or another version of the protocol.
    /// Trying again is of no use.
    #[error("the master at {address} refuses: {refusal}")]
    Refused {
        /// The address that was dialled.
        address: Address,
        /// What the master said.
        refusal: Box<Refusal>,
    },
    /// Something answers that is no master.
    #[error("what answers at {address} is no taskmaster: {why}")]
    Foreign {
        /// The address that was dialled.
        address: Address,
        /// What was wrong with the answer.
        why: String,
    },
}

/// Connects, says `hello` and waits for `welcome`, for at most
/// [`HELLO_MS_MAX`](limits::HELLO_MS_MAX) milliseconds.
pub async fn dial(address: &Address, hello: Hello) -> Result<(Socket, Welcome), DialError> {
    let limit = Duration::from_millis(limits::HELLO_MS_MAX);
    dial_within(address, hello, limit).await
}

/// Like [`dial`], for at most `limit`.
pub async fn dial_within(
    address: &Address,
    hello: Hello,
    limit: Duration,
) -> Result<(Socket, Welcome), DialError> {
    let progress = ConnectProgress::default();
    let greeted = tokio::time::timeout(limit, greet(address, hello, &progress)).await;
    greeted.unwrap_or_else(|_| {
        Err(DialError::Unreachable {
            address: address.clone(),
            why: progress.late(address, limit),
        })
    })
}

async fn greet(
    address: &Address,
    hello: Hello,
    progress: &ConnectProgress,
) -> Result<(Socket, Welcome), DialError> {
    let unreachable = |why: String| DialError::Unreachable {
        address: address.clone(),
        why,
    };
    let foreign = |why: String| DialError::Foreign {
        address: address.clone(),
        why,
    };
    let stream = connect(address, progress).await.map_err(unreachable)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::MESSAGE_BYTES_MAX))
        .max_frame_size(Some(limits::MESSAGE_BYTES_MAX));
    let url = format!("{address}/");
    let (mut socket, _) =
        match tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await {
            Ok(connected) => connected,
            // A master that dies during the handshake is unreachable and not foreign.
            Err(tungstenite::Error::Io(error)) => return Err(unreachable(error.to_string())),
            Err(tungstenite::Error::Protocol(error)) => return Err(unreachable(error.to_string())),
            Err(tungstenite::Error::Http(response)) => {
                return Err(answered_otherwise(address, &response));
            }
            Err(error) => return Err(foreign(error.to_string())),
        };
    let hello = ToMaster::Hello(hello).encode();
    socket
        .send(Message::text(hello))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(_)) | None => return Err(unreachable("it closed the connection".into())),
            Some(Err(error)) => return Err(unreachable(error.to_string())),
        };
        return match FromMaster::decode(&text) {
            Ok(FromMaster::Welcome(welcome)) => Ok((socket, welcome)),
            Ok(FromMaster::Refused(refused)) => Err(DialError::Refused {
                address: address.clone(),
                refusal: Box::new(refused.error),
            }),
            Ok(other) => Err(foreign(format!(
                "it said `{}` before `welcome`",
                other.event()
            ))),
            Err(error) => Err(foreign(error.to_string())),
        };
    }
}

/// The error where a WebSocket was refused with a status and, mostly, a reason.
fn answered_otherwise(address: &Address, response: &Response<Option<Vec<u8>>>) -> DialError {
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let reason = excerpt::sentence(body.trim().to_owned());
    let address = address.clone();
    match status {
        // A master says so to a name that it does not answer to, and so do proxies.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let text = if reason.is_empty() {
                format!("it answers {status} and gives no reason")
            } else {
                reason
            };
            DialError::Refused {
                address,
                refusal: Box::new(Refusal::new(RefusalCode::NotAllowed, text)),
            }
        }
        // A proxy whose master is away.
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            DialError::Unreachable {
                address,
                why: format!("a proxy answers {status}"),
            }
        }
        _ => DialError::Foreign {
            address,
            why: format!("it answers {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test: a broken promise ends it"
    )]

    use super::*;
    use taskmaster_protocol::PROTOCOL_VERSION;
    use taskmaster_protocol::message::{Refused, Role};
    use tokio::net::TcpListener;

    const SENTENCE: &str = "this master speaks another version: upgrade the master";

    /// A master that refuses the version of the first peer; the version that it was told.
    async fn refuse_the_version(listener: TcpListener) -> u32 {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let Some(Ok(Message::Text(text))) = socket.next().await else {
            panic!("no hello")
        };
        let Ok(ToMaster::Hello(hello)) = ToMaster::decode(&text) else {
            panic!("{text}")
        };
        let refused = FromMaster::Refused(Refused {
            reference: None,
            error: Refusal::new(RefusalCode::ProtocolVersion, SENTENCE),
        });
        socket.send(Message::text(refused.encode())).await.unwrap();
        hello.protocol
    }

    #[tokio::test]
    async fn a_refused_version_is_told_and_not_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let master = tokio::spawn(refuse_the_version(listener));
        let hello = Hello {
            role: Role::Client,
            protocol: PROTOCOL_VERSION,
            token: None,
            session: None,
            runner: None,
        };
        let error = dial(&address, hello).await.unwrap_err();
        let DialError::Refused { refusal, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(refusal.code, RefusalCode::ProtocolVersion);
        assert!(error.to_string().ends_with(SENTENCE), "{error}");
        assert_eq!(master.await.unwrap(), PROTOCOL_VERSION);
    }
}
