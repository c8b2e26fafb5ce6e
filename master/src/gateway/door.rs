//! Where connections come in. One whose first request does not come is closed: open connections are
//! not without number, and whoever only begins to speak would have his for ever.

use axum::serve::Listener;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// The first request's head must have come within this time: as long as a session may be silent.
const WITHIN: Duration = Duration::from_millis(taskmaster_protocol::limits::SILENT_MS_MAX);

/// Who has sent so much is at work: a head is shorter, so it is an upload.
const AT_WORK: usize = 64 << 10;

/// Takes connections.
pub(super) struct Door(pub(super) TcpListener);

impl Listener for Door {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Small messages must not wait for more to come (Nagle's algorithm).
        let _ = stream.set_nodelay(true);
        (
            Visitor {
                stream,
                until: Some(Box::pin(tokio::time::sleep(WITHIN))),
                read: 0,
            },
            address,
        )
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection.
pub(super) struct Visitor {
    stream: TcpStream,
    /// `None`: it has been answered, or is at work.
    until: Option<Pin<Box<Sleep>>>,
    /// Bytes that have come.
    read: usize,
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self
            .until
            .as_mut()
            .is_some_and(|until| until.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "no request has come")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read = self.read.saturating_add(buffer.filled().len() - before);
        if self.read > AT_WORK {
            self.until = None;
        }
        polled
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.until = None;
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
        self.until = None;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
