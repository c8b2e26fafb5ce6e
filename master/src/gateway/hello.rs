//! The beginning of a session: the upgrade to a WebSocket, `hello`, and who is not let in.

use super::auth::Auth;
use super::closing::{self, FAREWELL_TIMEOUT, code};
use super::connection::Connection;
use super::listener::{PeerConnection, SAID_TOO_MUCH};
use super::runner_names::TakenName;
use super::{GatewayState, session};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::message::{Hello, Offer, Refused, Role};
use taskmaster_protocol::{FromMaster, PROTOCOL_VERSION, Refusal, RefusalCode, ToMaster, limits};
use tokio::time::timeout;

/// What `GET /` says to people.
const ABOUT: &str = concat!(
    "This is a Taskmaster master. ",
    "Runners and clients connect to this address with a WebSocket:\n",
    "`taskmaster runner --url ws://HOST:PORT`, `taskmaster add MODULE --url ws://HOST:PORT`.\n",
    "Over HTTP: ",
    "/health /metrics /api/status /api/tasks/ID /api/jobs /api/modules /api/runners\n",
);

/// Bytes that wait to be written to one session, at most: the longest message twice. What a session
/// has under way keeps it far below this; the bound is for answers to pings that nobody reads.
const UNWRITTEN_BYTES_MAX: usize = 2 * limits::MESSAGE_BYTES_MAX;

/// `/`: a WebSocket, or a few words for people.
pub(super) async fn root(
    State(state): State<GatewayState>,
    ConnectInfo(PeerConnection(connection)): ConnectInfo<PeerConnection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => {
            let arrival = Arrival {
                connection,
                token: Auth::token_in(&headers).map(str::to_owned),
            };
            upgrade
                .max_message_size(limits::MESSAGE_BYTES_MAX)
                .max_frame_size(limits::MESSAGE_BYTES_MAX)
                .max_write_buffer_size(UNWRITTEN_BYTES_MAX)
                .on_upgrade(move |socket| greet(state, socket, arrival))
        }
        Err(rejection) if headers.contains_key(header::UPGRADE) => rejection.into_response(),
        Err(_) => ABOUT.into_response(),
    }
}

/// What is known of a peer before its `hello`.
struct Arrival {
    connection: Arc<Connection>,
    /// The token that came with the request.
    token: Option<String>,
}

/// A session that is let in.
struct Admitted {
    hello: Hello,
    /// A runner's name, which is its own until its session ends.
    name: Option<TakenName>,
}

/// Waits for `hello` and lets the session in, or says why not.
async fn greet(state: GatewayState, mut socket: WebSocket, arrival: Arrival) {
    arrival.connection.begin_greeting();
    let limit = Duration::from_millis(limits::HELLO_MS_MAX);
    let admitted = match timeout(limit, first_text(&mut socket)).await {
        Ok(Some(text)) => text.and_then(|text| admit(&state, &text, &arrival)),
        Ok(None) => return,
        Err(_) => Err(Refusal::new(
            RefusalCode::NotAllowed,
            format!("no `hello` within {} s", limit.as_secs()),
        )),
    };
    match admitted {
        Ok(Admitted { hello, name }) => {
            arrival.connection.begin_session();
            session::run(state, socket, hello).await;
            drop(name);
        }
        Err(refusal) => {
            let _ = timeout(FAREWELL_TIMEOUT, turn_away(socket, refusal)).await;
        }
    }
}

/// The first message. `None` where the connection ends before.
async fn first_text(socket: &mut WebSocket) -> Option<Result<Utf8Bytes, Refusal>> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some(Ok(text)),
            Ok(Message::Binary(_)) => return Some(Err(closing::binary_refusal())),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) => return None,
            Err(error) if error.to_string().contains(SAID_TOO_MUCH) => {
                let most = limits::HELLO_BYTES_MAX;
                let text = format!("the first message is `hello`, of at most {most} bytes");
                return Some(Err(Refusal::new(RefusalCode::TooLarge, text)));
            }
            Err(_) => return None,
        }
    }
}

/// Says why a session is not let in, and closes the connection.
async fn turn_away(mut socket: WebSocket, refusal: Refusal) {
    let frame = closing::frame(code::POLICY, &refusal.message);
    let refused = FromMaster::Refused(Refused {
        reference: None,
        error: refusal,
    });
    let is_told = socket
        .send(Message::Text(refused.encode().into()))
        .await
        .is_ok()
        && socket.send(Message::Close(Some(frame))).await.is_ok();
    if !is_told {
        return;
    }
    // A connection that is closed with unread bytes is reset, and the reset would cut off what was
    // said. So this waits until the other side has closed, too, or until its caller does not wait
    // any longer.
    while let Some(received) = socket.recv().await {
        if received.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn admit(state: &GatewayState, text: &str, arrival: &Arrival) -> Result<Admitted, Refusal> {
    let hello = decode(text)?;
    check_version(hello.protocol)?;
    let token = hello.token.as_deref().or(arrival.token.as_deref());
    state
        .auth
        .check(token, &arrival.connection)
        .map_err(|text| Refusal::new(RefusalCode::Unauthorized, text).at("token"))?;
    check_session_name(&hello)?;
    check_offer(&hello)?;
    let name = match &hello.runner {
        Some(offer) => {
            let process = hello.session.as_deref();
            Some(state.runner_names.take(&offer.name, process)?)
        }
        None => None,
    };
    Ok(Admitted { hello, name })
}

fn decode(text: &str) -> Result<Hello, Refusal> {
    let most = limits::HELLO_BYTES_MAX;
    if text.len() > most {
        let bytes = text.len();
        let text = format!("`hello` has {bytes} bytes, at most {most} are allowed");
        return Err(Refusal::new(RefusalCode::TooLarge, text));
    }
    let message = ToMaster::decode(text)?;
    let event = message.event();
    let ToMaster::Hello(hello) = message else {
        let text = format!("the first message must be `hello`, not `{event}`");
        return Err(Refusal::new(RefusalCode::NotAllowed, text).at("event"));
    };
    Ok(hello)
}

/// Refuses a peer that speaks another version of the protocol.
fn check_version(version: u32) -> Result<(), Refusal> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    let older_side = if version < PROTOCOL_VERSION {
        "your side"
    } else {
        "the master"
    };
    let text = format!(
        "you speak version {version} of the protocol, this master speaks {PROTOCOL_VERSION}: \
         upgrade {older_side}"
    );
    Err(Refusal::new(RefusalCode::ProtocolVersion, text).at("protocol"))
}

fn check_session_name(hello: &Hello) -> Result<(), Refusal> {
    let bytes = hello.session.as_ref().map_or(0, String::len);
    let most = limits::NAME_BYTES_MAX;
    if bytes <= most {
        return Ok(());
    }
    let text = format!("a session's name may have {most} bytes, not {bytes}");
    Err(Refusal::new(RefusalCode::TooLarge, text).at("session"))
}

fn check_offer(hello: &Hello) -> Result<(), Refusal> {
    match (hello.role, &hello.runner) {
        (Role::Client, None) => Ok(()),
        (Role::Client, Some(_)) => {
            let text = "a client offers nothing: leave `runner` out, or say `hello` as a runner";
            Err(Refusal::new(RefusalCode::NotAllowed, text).at("runner"))
        }
        (Role::Runner, None) => {
            let text = "a runner's `hello` must say what it offers, in `runner`";
            Err(Refusal::new(RefusalCode::MissingField, text).at("runner"))
        }
        (Role::Runner, Some(offer)) => check_runner(offer),
    }
}

fn check_runner(offer: &Offer) -> Result<(), Refusal> {
    let name_max = limits::NAME_BYTES_MAX;
    if offer.name.is_empty() || offer.name.len() > name_max {
        let text = format!("a runner's name must have 1 to {name_max} bytes");
        return Err(Refusal::new(RefusalCode::InvalidValue, text).at("runner.name"));
    }
    let slots = offer.slots;
    let slots_max = limits::SLOTS_MAX;
    if slots == 0 || slots > slots_max {
        let text = format!("a runner has 1 to {slots_max} slots, not {slots}");
        return Err(Refusal::new(RefusalCode::InvalidValue, text).at("runner.slots"));
    }
    Ok(())
}
