//! The door of the WebSocket sessions: the upgrade, `hello`, and who is not let in.

use super::names::Taken;
use super::{Gate, session};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;
use taskmaster_protocol::message::{Hello, Refused, Role};
use taskmaster_protocol::{FromMaster, PROTOCOL_VERSION, Refusal, RefusalCode, ToMaster, limits};
use tokio::time::timeout;

/// What `GET /` says to people.
const ABOUT: &str = "This is a Taskmaster master. Runners and clients connect to this address with a WebSocket:\n\
                     `taskmaster runner --url ws://HOST:PORT`, `taskmaster add MODULE --url ws://HOST:PORT`.\n\
                     Over HTTP: /health /metrics /api/status /api/tasks/ID /api/jobs /api/modules /api/runners\n";

/// Bytes of a `hello`: a runner's labels and modules are kept as long as it is connected.
const HELLO_BYTES_MAX: usize = 64 << 10;

/// Time for a last message to get through before the connection is cut.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// `/`: a WebSocket, or a few words for people.
pub(super) async fn root(
    State(gate): State<Gate>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let wants = headers.contains_key(header::UPGRADE);
    match upgrade {
        Ok(upgrade) => {
            let admitted = gate.auth.admits_headers(&headers);
            upgrade
                .max_message_size(limits::MESSAGE_BYTES_MAX)
                .max_frame_size(limits::MESSAGE_BYTES_MAX)
                .on_upgrade(move |socket| greet(gate, socket, admitted))
        }
        Err(rejection) if wants => rejection.into_response(),
        Err(_) => ABOUT.into_response(),
    }
}

/// Waits for `hello` and lets the session in, or says why not.
async fn greet(gate: Gate, mut socket: WebSocket, admitted: bool) {
    let limit = Duration::from_millis(limits::HELLO_MS_MAX);
    let hello = match timeout(limit, first_text(&mut socket)).await {
        Ok(Some(Ok(text))) => check_hello(&gate, &text, admitted),
        Ok(Some(Err(refusal))) => Err(refusal),
        Ok(None) => return,
        Err(_) => Err(Refusal::new(
            RefusalCode::NotAllowed,
            format!("no `hello` within {} s", limit.as_secs()),
        )),
    };
    let admitted = hello.and_then(|hello| take_name(&gate, &hello).map(|name| (hello, name)));
    match admitted {
        Ok((hello, _name)) => session::run(gate, socket, hello).await,
        Err(refusal) => {
            let reason = short(&refusal.message);
            let refused = FromMaster::Refused(Refused {
                reference: None,
                error: refusal,
            })
            .encode();
            let farewell = async {
                socket.send(Message::Text(refused.into())).await.ok()?;
                socket
                    .send(Message::Close(Some(CloseFrame { code: 1008, reason })))
                    .await
                    .ok()?;
                // Until the other side has closed too: what is unread here would cut off what was
                // said.
                while let Some(Ok(_)) = socket.recv().await {}
                Some(())
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
    }
}

fn take_name(gate: &Gate, hello: &Hello) -> Result<Option<Taken>, Refusal> {
    hello
        .runner
        .as_ref()
        .map(|offer| gate.names.take(&offer.name, hello.session.as_deref()))
        .transpose()
}

async fn first_text(socket: &mut WebSocket) -> Option<Result<Utf8Bytes, Refusal>> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => return Some(Ok(text)),
            Message::Binary(_) => return Some(Err(binary())),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return None,
        }
    }
}

fn check_hello(gate: &Gate, text: &str, admitted: bool) -> Result<Hello, Refusal> {
    if text.len() > HELLO_BYTES_MAX {
        let text = format!(
            "`hello` has {} bytes, at most {HELLO_BYTES_MAX} are allowed",
            text.len()
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text));
    }
    let hello = match ToMaster::decode(text)? {
        ToMaster::Hello(hello) => hello,
        other => {
            let text = format!("the first message must be `hello`, not `{}`", other.event());
            return Err(Refusal::new(RefusalCode::NotAllowed, text).at("event"));
        }
    };
    if hello.protocol != PROTOCOL_VERSION {
        let is = hello.protocol;
        let outdated = if is < PROTOCOL_VERSION {
            "your side"
        } else {
            "the master"
        };
        let text = format!(
            "you speak version {is} of the protocol, this master speaks {PROTOCOL_VERSION}: \
             upgrade {outdated}"
        );
        return Err(Refusal::new(RefusalCode::ProtocolVersion, text).at("protocol"));
    }
    if !admitted && !gate.auth.admits(hello.token.as_deref()) {
        let text = match hello.token {
            Some(_) => {
                "the token is wrong; this master wrote the right one into its data folder, file `token`"
            }
            None => {
                "this master wants a token: --token or TASKMASTER_TOKEN; it is in its data folder, file `token`"
            }
        };
        return Err(Refusal::new(RefusalCode::Unauthorized, text).at("token"));
    }
    if let Some(session) = hello
        .session
        .as_ref()
        .filter(|session| session.len() > limits::NAME_BYTES_MAX)
    {
        let text = format!(
            "a session's name may have {} bytes, not {}",
            limits::NAME_BYTES_MAX,
            session.len()
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("session"));
    }
    match (hello.role, &hello.runner) {
        (Role::Client, Some(_)) => {
            let text = "a client offers nothing: leave `runner` out, or say `hello` as a runner";
            Err(Refusal::new(RefusalCode::NotAllowed, text).at("runner"))
        }
        (Role::Runner, None) => {
            let text = "a runner's `hello` must say what it offers, in `runner`";
            Err(Refusal::new(RefusalCode::MissingField, text).at("runner"))
        }
        (Role::Runner, Some(offer))
            if offer.name.is_empty() || offer.name.len() > limits::NAME_BYTES_MAX =>
        {
            let text = format!(
                "a runner's name must have 1 to {} bytes",
                limits::NAME_BYTES_MAX
            );
            Err(Refusal::new(RefusalCode::InvalidValue, text).at("runner.name"))
        }
        (Role::Runner, Some(offer)) if offer.slots == 0 || offer.slots > limits::SLOTS_MAX => {
            let text = format!(
                "a runner has 1 to {} slots, not {}",
                limits::SLOTS_MAX,
                offer.slots
            );
            Err(Refusal::new(RefusalCode::InvalidValue, text).at("runner.slots"))
        }
        _ => Ok(hello),
    }
}

/// What is said to a binary message.
pub(super) fn binary() -> Refusal {
    let text = "binary messages are not understood: messages are JSON in text; bytes go to PUT /blobs/SHA256 on this port";
    Refusal::new(RefusalCode::MalformedJson, text)
}

/// A close frame holds at most 123 bytes of reason.
pub(super) fn short(reason: &str) -> Utf8Bytes {
    let end = (0..=reason.len().min(123))
        .rev()
        .find(|end| reason.is_char_boundary(*end))
        .unwrap_or(0);
    reason.get(..end).unwrap_or_default().into()
}
