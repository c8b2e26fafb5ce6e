//! A session after its `hello`: its two halves are started, and its end is said to both sides.

use super::GatewayState;
use super::closing::{FAREWELL_TIMEOUT, code};
use super::permits::AnswerPermits;
use super::reader::{SessionReader, ToWriter};
use super::writer::{PINGS_UNANSWERED_MAX, SIDE_MESSAGES, SessionWriter};
use crate::handle::MasterHandle;
use axum::extract::ws::WebSocket;
use bytes::BytesMut;
use futures_util::StreamExt;
use std::sync::atomic::Ordering;
use taskmaster_engine::inbox::{ConnectionId, Input};
use taskmaster_protocol::message::{Hello, Welcome};
use taskmaster_protocol::{FromMaster, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Tells the engine that the session is over, however it ends: also where its task is dropped.
struct Connected {
    handle: MasterHandle,
    session: ConnectionId,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let session = self.session;
        self.handle.tell(Input::Disconnected {
            connection: session,
        });
    }
}

/// Runs the session to its end.
pub(super) async fn run(state: GatewayState, socket: WebSocket, hello: Hello) {
    let session = ConnectionId(state.next_session.fetch_add(1, Ordering::Relaxed));
    let role = hello.role;
    let welcome = welcome(&state.handle, hello.protocol);
    let (sink, mut stream) = socket.split();
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let (side, aside) = mpsc::channel(SIDE_MESSAGES);
    let (ping, pings) = mpsc::channel(PINGS_UNANSWERED_MAX);
    let (close, closing) = oneshot::channel();
    let permits = AnswerPermits::default();
    let writer = SessionWriter {
        session,
        sink,
        outbox: outgoing,
        side: aside,
        pings,
        permits: permits.clone(),
        close: closing,
        buffer: BytesMut::new(),
    };

    state.handle.tell(Input::Connected {
        connection: session,
        hello,
        outbox,
    });
    let connected = Connected {
        handle: state.handle.clone(),
        session,
    };
    let mut writing = tokio::spawn(writer.run(FromMaster::Welcome(welcome)));
    let to_writer = ToWriter {
        side,
        ping,
        permits,
    };
    let mut reader = SessionReader::new(state, session, role, to_writer);
    let frame = tokio::select! {
        frame = reader.read(&mut stream) => frame,
        // The connection is broken, or the engine has let go of the session.
        _ = &mut writing => return,
    };

    let is_readable = frame.code != code::TOO_LARGE;
    let _ = close.send(frame);
    drop((connected, reader));
    let farewell = async {
        let _ = (&mut writing).await;
        // A connection that is closed with unread bytes is reset, and the reset would cut off what
        // was written last.
        while let Some(Ok(_)) = stream.next().await {}
        if !is_readable {
            std::future::pending::<()>().await;
        }
    };
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
    writing.abort();
}

fn welcome(handle: &MasterHandle, protocol: u32) -> Welcome {
    Welcome {
        protocol,
        epoch: handle.epoch,
        seq: handle.events.latest(),
        message_bytes_max: limits::MESSAGE_BYTES_MAX as u64,
        batch_tasks_max: limits::BATCH_TASKS_MAX as u64,
        leader: None,
    }
}
