//! Serves HTTP on the connections of the listener. `axum::serve` does the same, but has no setting for
//! one thing: a peer that has said all it has to say may shut down its half of the connection, as
//! `nc -N` does, and is answered all the same.

use super::listener::{TimedConnection, TimedListener};
use super::stopped;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use tokio::sync::{mpsc, watch as flag};

/// Serves connections until the master stops, and then those that are open to their end.
pub(super) async fn serve(mut listener: TimedListener, router: Router, stop: flag::Receiver<bool>) {
    // Each connection holds a sender, so that the channel closes when the last one has ended.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = stopped(stop.clone()) => break,
        };
        let connection = serve_connection(stream, router.clone(), stop.clone());
        let open = open.clone();
        tokio::spawn(async move {
            connection.await;
            drop(open);
        });
    }
    drop(listener);
    drop(open);
    all_closed.recv().await;
}

async fn serve_connection(stream: TimedConnection, router: Router, stop: flag::Receiver<bool>) {
    let peer = ConnectInfo(stream.peer());
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stopping = pin!(stopped(stop));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection broke off");
                }
                return;
            }
            () = stopping.as_mut(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
