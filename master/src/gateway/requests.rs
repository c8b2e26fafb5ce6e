//! The frame around every request over HTTP: how long its body may pause, and until when it lasts.

use super::connection::OpenRequest;
use axum::body::{Body, HttpBody};
use axum::{BoxError, Error};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::body::{Frame, SizeHint};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use taskmaster_protocol::limits;
use tokio::time::timeout;

/// How long a body may pause. Its sender would keep a connection and what was sent for ever.
const BODY_PAUSE_MAX: Duration = Duration::from_millis(limits::STALLED_MS_MAX);

/// The body of a request, which fails when nothing of it comes for too long.
pub(super) fn with_pauses_bounded(body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::from_stream(pieces(body, BODY_PAUSE_MAX))
}

fn pieces(body: Body, pause_max: Duration) -> impl Stream<Item = Result<Bytes, BoxError>> {
    futures_util::stream::unfold(Some(body.into_data_stream()), move |stream| async move {
        let mut stream = stream?;
        match timeout(pause_max, stream.next()).await {
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(stream))),
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Ok(None) => None,
            Err(_) => {
                let text = format!("nothing of it came for {} s", pause_max.as_secs());
                let error = io::Error::new(ErrorKind::TimedOut, text);
                Some((Err(error.into()), None))
            }
        }
    })
}

/// The body of an answer. The request lasts until the answer is written.
pub(super) struct AnswerBody {
    body: Body,
    _request: OpenRequest,
}

impl AnswerBody {
    pub(super) fn new(body: Body, request: OpenRequest) -> AnswerBody {
        AnswerBody {
            body,
            _request: request,
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_pauses_for_too_long_fails_and_a_slow_one_does_not() {
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let pause = Duration::from_millis(100);
        let incoming = futures_util::stream::unfold(receive, |mut receive| async move {
            let piece = receive.recv().await?;
            Some((Ok::<Bytes, io::Error>(piece), receive))
        });
        let mut stream = Box::pin(pieces(Body::from_stream(incoming), pause));
        for _ in 0..3 {
            tokio::time::sleep(pause / 2).await;
            send.send(Bytes::from_static(b"x")).await.unwrap();
            assert_eq!(stream.next().await.unwrap().unwrap(), "x");
        }
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("nothing of it came"), "{error}");
        assert!(stream.next().await.is_none());
    }
}
