//! Takes connections, and closes one that is of no use: whose head does not come, that says more
//! than a stranger may, or that takes nothing of what is written. The number of open connections is
//! limited, and such a peer would keep one for ever.

use super::connection::{Connection, Phase, Strangers};
use axum::serve::Listener;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use taskmaster_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

/// Time for the head of a request, from the connect or from the answer before: as long as a session
/// may be silent.
const HEAD_TIMEOUT: Duration = Duration::from_millis(limits::SILENT_MS_MAX);

/// Time in which a peer must take some of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_millis(limits::STALLED_MS_MAX);

/// Bytes of a WebSocket before its peer has a role: a `hello`, twice, so that one that is too long
/// is refused with a sentence.
const GREETING_BYTES_MAX: usize = 2 * limits::HELLO_BYTES_MAX;

/// The error of a peer that has said more than a stranger may.
pub(super) const SAID_TOO_MUCH: &str = "more has come than a peer may say that nobody knows";

/// How long nothing is taken after the system has refused to open a connection.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How often the log says that no connection can be opened.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Takes connections.
pub(super) struct TimedListener {
    listener: TcpListener,
    strangers: Strangers,
    /// When the log said last that no connection can be opened.
    warned: Option<Instant>,
}

impl TimedListener {
    pub(super) fn new(listener: TcpListener) -> TimedListener {
        TimedListener {
            listener,
            strangers: Strangers::default(),
            warned: None,
        }
    }

    /// The system opens no connection, most likely because too many files are open. Whoever has
    /// said nothing for longest makes room.
    async fn make_room(&mut self, error: &Error) {
        let is_evicted = self.strangers.evict_oldest();
        let is_news = self
            .warned
            .is_none_or(|warned| warned.elapsed() >= WARNING_INTERVAL);
        if is_news {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, is_evicted, "a connection cannot be taken");
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

impl Listener for TimedListener {
    type Io = TimedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TimedConnection, SocketAddr) {
        loop {
            let accepted = self.listener.accept().await;
            match accepted {
                Ok((stream, address)) => {
                    // Small messages must not wait for more to come (Nagle's algorithm).
                    let _ = stream.set_nodelay(true);
                    let local = stream.local_addr().ok();
                    let connection = self.strangers.enter(address, local);
                    return (TimedConnection::new(stream, connection), address);
                }
                Err(error) if is_of_peer(&error) => {}
                Err(error) => self.make_room(&error).await,
            }
        }
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Whether a connection was not opened because its peer has gone already.
fn is_of_peer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

/// The connection over which a request came.
#[derive(Debug, Clone)]
pub(super) struct PeerConnection(pub(super) Arc<Connection>);

/// A connection that is closed when nothing useful comes.
pub(super) struct TimedConnection {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// What may still come while a head or `hello` is waited for. `None` at other times.
    allowance: Option<Allowance>,
    /// Runs while the peer takes nothing of what is written.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// What a peer may still send in one phase.
struct Allowance {
    phase: Phase,
    /// The request whose head is waited for.
    request: u32,
    bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl TimedConnection {
    fn new(stream: TcpStream, connection: Arc<Connection>) -> TimedConnection {
        TimedConnection {
            stream,
            connection,
            allowance: None,
            stalled: None,
        }
    }

    /// What is known of the peer.
    pub(super) fn peer(&self) -> PeerConnection {
        PeerConnection(self.connection.clone())
    }

    /// Fails where a peer of whom too little is known has had its time or its bytes.
    fn check(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let phase = self.connection.phase();
        let bytes = match phase {
            Phase::Head => limits::HEAD_BYTES_MAX,
            Phase::Greeting => GREETING_BYTES_MAX,
            Phase::Request | Phase::Session => {
                self.allowance = None;
                return Ok(());
            }
        };
        if self.connection.poll_evicted(cx.waker()) {
            let text = "newer connections have taken its place";
            return Err(Error::new(ErrorKind::ConnectionAborted, text));
        }
        let request = self.connection.request_number();
        let is_other = |last: &Allowance| last.phase != phase || last.request != request;
        if self.allowance.as_ref().is_none_or(is_other) {
            self.allowance = Some(Allowance {
                phase,
                request,
                bytes,
                deadline: Box::pin(tokio::time::sleep(HEAD_TIMEOUT)),
            });
        }
        let Some(allowance) = &mut self.allowance else {
            return Ok(());
        };
        if allowance.deadline.as_mut().poll(cx).is_ready() {
            return Err(Error::new(ErrorKind::TimedOut, "no request has come"));
        }
        if allowance.bytes == 0 {
            return Err(Error::new(ErrorKind::InvalidData, SAID_TOO_MUCH));
        }
        Ok(())
    }

    /// Passes on what became of a write, and fails where the peer has taken nothing for long.
    fn check_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        let text = "the other side takes nothing of what is written";
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, text)))
    }
}

impl Drop for TimedConnection {
    fn drop(&mut self) {
        self.connection.leave_strangers();
    }
}

impl AsyncRead for TimedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if let Some(allowance) = &mut self.allowance {
            allowance.bytes = allowance.bytes.saturating_sub(read);
        }
        polled
    }
}

impl AsyncWrite for TimedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.check_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
