//! Takes connections, and closes one whose first request does not come. The number of open
//! connections is limited, and whoever only begins to speak would keep one for ever.

use axum::serve::Listener;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use taskmaster_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// Time for the head of the first request: as long as a session may be silent.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_millis(limits::SILENT_MS_MAX);

/// A connection over which so many bytes have come is not closed. A head is shorter, so these are
/// the bytes of an upload.
const UPLOAD_BYTES: usize = 64 << 10;

/// Takes connections.
pub(super) struct TimedListener(pub(super) TcpListener);

impl Listener for TimedListener {
    type Io = TimedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TimedConnection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Small messages must not wait for more to come (Nagle's algorithm).
        let _ = stream.set_nodelay(true);
        let connection = TimedConnection {
            stream,
            deadline: Some(Box::pin(tokio::time::sleep(FIRST_REQUEST_TIMEOUT))),
            bytes_read: 0,
        };
        (connection, address)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection that is closed when nothing useful comes.
pub(super) struct TimedConnection {
    stream: TcpStream,
    /// `None` once something was answered, or an upload has begun.
    deadline: Option<Pin<Box<Sleep>>>,
    bytes_read: usize,
}

impl AsyncRead for TimedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let deadline = self.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "no request has come")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.bytes_read = self.bytes_read.saturating_add(read);
        if self.bytes_read > UPLOAD_BYTES {
            self.deadline = None;
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
        self.deadline = None;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
        self.deadline = None;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
