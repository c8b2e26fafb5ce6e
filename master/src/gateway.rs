//! The master's outside: one port for WebSocket sessions and HTTP.
//!
//! Here things are parsed, checked and passed on to the engine; nothing is decided. What comes in
//! is untrusted: a mistake is answered with a sentence and ends nobody's session.

mod add;
mod auth;
mod blobs;
mod children;
mod door;
mod feed;
mod follow;
mod http;
mod inputs;
mod intake;
mod names;
mod params;
mod reports;
mod session;
#[cfg(test)]
mod tests;
mod watch;
mod writer;
mod ws;

use crate::handle::MasterHandle;
use crate::interfaces::Interfaces;
use crate::modules::Folder;
use auth::Auth;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use taskmaster_blobs::Blobs;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch as flag};

/// What every connection needs.
#[derive(Clone)]
struct Gate {
    handle: MasterHandle,
    folder: Folder,
    blobs: Blobs,
    interfaces: Interfaces,
    auth: Arc<Auth>,
    /// The number of the next session.
    next: Arc<AtomicU64>,
    /// Of connected runners.
    names: names::Names,
    /// The way of new tasks to the engine.
    intake: intake::Intake,
    /// A permit for each batch whose large params are being put or read.
    large: Arc<Semaphore>,
    /// True when the master stops: sessions are closed.
    stop: flag::Receiver<bool>,
}

/// Serves connections until `stop` is true. With a `token`, only who has it is let in.
pub async fn serve(
    listener: TcpListener,
    handle: MasterHandle,
    folder: Folder,
    interfaces: Interfaces,
    token: Option<String>,
    stop: flag::Receiver<bool>,
) -> std::io::Result<()> {
    let (auth, names) = (Arc::new(Auth::new(token)), names::Names::default());
    let large = Arc::new(Semaphore::new(params::AT_A_TIME));
    let blobs = interfaces.blobs();
    let (next, intake, stop_too) = (Arc::default(), intake::Intake::default(), stop.clone());
    let gate = Gate {
        handle,
        folder,
        blobs,
        interfaces,
        auth,
        next,
        names,
        intake,
        large,
        stop: stop_too,
    };
    axum::serve(door::Door(listener), router(gate))
        .with_graceful_shutdown(stopped(stop))
        .await
}

/// Returns when the flag is true, or when nobody can raise it any more.
async fn stopped(mut stop: flag::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn router(gate: Gate) -> Router {
    Router::new()
        .route("/", any(ws::root))
        .route("/health", get(http::health))
        .route("/metrics", get(http::metrics))
        .route(
            "/blobs/{hash}",
            get(blobs::get).head(blobs::head).put(blobs::put),
        )
        .route("/blobs/missing", post(blobs::missing))
        .route("/modules/{file}", put(http::put_module))
        .route("/api/backup", post(http::backup))
        .route("/api/status", get(http::status))
        .route("/api/runners", get(http::runners))
        .route("/api/modules", get(http::modules))
        .route("/api/jobs", get(http::jobs))
        .route("/api/jobs/{job}", get(http::job))
        .route("/api/tasks/{task}", get(http::task))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "nothing here; GET / says what this is\n",
            )
        })
        .layer(middleware::from_fn_with_state(gate.clone(), guard))
        .with_state(gate)
}

/// In front of every request. `/` is let through without a token: there the token comes with
/// `hello`.
async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if let Some(reason) = gate.auth.foreign(request.headers()) {
        return (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response();
    }
    let open = matches!(request.uri().path(), "/" | "/health");
    if !open && !gate.auth.admits_headers(request.headers()) {
        let text = "this master wants its token: Authorization: Bearer TOKEN\n";
        return (StatusCode::UNAUTHORIZED, text).into_response();
    }
    next.run(request).await
}
