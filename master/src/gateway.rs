//! The master's outside: one port for WebSocket sessions and HTTP.
//!
//! Messages are parsed, checked and passed on to the engine; nothing is decided here. What comes in
//! is untrusted. A mistake is answered with a sentence and ends nobody's session.

mod add;
mod admission;
mod auth;
mod backup;
mod blobs;
mod closing;
mod connection;
mod feed;
mod follow;
mod follow_ups;
mod heavy;
mod hello;
mod http;
mod inputs;
mod listener;
mod metrics;
mod params;
mod permits;
mod push;
mod queries;
mod questions;
mod reader;
mod reports;
mod requests;
mod runner_names;
mod serving;
mod session;
mod socket_owner;
mod subscriptions;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use crate::handle::MasterHandle;
use crate::interfaces::Interfaces;
use crate::modules::ModuleFolder;
use admission::Admission;
use auth::Auth;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use connection::Connection;
use http::{HttpFailure, fail};
use listener::{PeerConnection, TimedListener};
use requests::AnswerBody;
use runner_names::RunnerNames;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use taskmaster_blobs::Blobs;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch as flag};

/// What a gateway is started with.
pub struct GatewayConfig {
    /// Tells and asks the engine.
    pub handle: MasterHandle,
    /// The task folder.
    pub folder: ModuleFolder,
    /// What is in the modules, and their bytes.
    pub interfaces: Interfaces,
    /// Only who has the token is let in. `None` lets everybody in.
    pub token: Option<String>,
    /// True when the master stops. The sessions are closed then.
    pub stop: flag::Receiver<bool>,
}

/// What every connection needs. Clones share it.
#[derive(Clone)]
struct GatewayState {
    handle: MasterHandle,
    folder: ModuleFolder,
    blobs: Blobs,
    interfaces: Interfaces,
    auth: Arc<Auth>,
    /// The number of the next session.
    next_session: Arc<AtomicU64>,
    runner_names: RunnerNames,
    admission: Admission,
    /// A permit for each batch whose large params are being put or read.
    large_params: Arc<Semaphore>,
    /// A permit for each pushed module that is being checked.
    module_checks: Arc<Semaphore>,
    /// A permit for the backup that is being made. There is one at a time.
    backups: Arc<Semaphore>,
    /// True when the master stops.
    stop: flag::Receiver<bool>,
}

/// Serves connections until the master stops.
pub async fn serve(listener: TcpListener, config: GatewayConfig) -> io::Result<()> {
    push::remove_unfinished(config.folder.path());
    let stop = config.stop.clone();
    let state = GatewayState {
        blobs: config.interfaces.blobs(),
        handle: config.handle,
        folder: config.folder,
        interfaces: config.interfaces,
        auth: Arc::new(Auth::new(config.token)),
        next_session: Arc::default(),
        runner_names: RunnerNames::default(),
        admission: Admission::default(),
        backups: Arc::new(Semaphore::new(1)),
        large_params: Arc::new(Semaphore::new(params::BATCHES_AT_A_TIME)),
        module_checks: Arc::new(Semaphore::new(push::CHECKS_AT_A_TIME)),
        stop: config.stop,
    };
    serving::serve(TimedListener::new(listener), router(state), stop).await;
    Ok(())
}

/// Returns when the flag is true, or when nobody can set it any more.
async fn stopped(mut stop: flag::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn router(state: GatewayState) -> Router {
    Router::new()
        .route("/", any(hello::root))
        .route("/health", get(queries::health))
        .route("/metrics", get(metrics::metrics))
        .route(
            "/blobs/{hash}",
            get(blobs::get).head(blobs::head).put(blobs::put),
        )
        .route("/blobs/missing", post(blobs::missing))
        .route(
            "/modules/{file}",
            put(push::put_module).delete(push::delete_module),
        )
        .route("/api/backup", get(backup::backup))
        .route("/api/status", get(queries::status))
        .route("/api/runners", get(queries::runners))
        .route("/api/modules", get(queries::modules))
        .route("/api/jobs", get(queries::jobs))
        .route("/api/jobs/{job}", get(queries::job))
        .route("/api/tasks/{task}", get(queries::task))
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

async fn nothing_here() -> (StatusCode, &'static str) {
    let text = "nothing here; GET / says what this is\n";
    (StatusCode::NOT_FOUND, text)
}

/// Checks every request, and bounds how long it may pause. `/` needs no token here, because the token
/// may come with `hello`.
async fn guard(
    State(state): State<GatewayState>,
    ConnectInfo(PeerConnection(connection)): ConnectInfo<PeerConnection>,
    request: Request,
    next: Next,
) -> Response {
    let open_request = connection.begin_request();
    let answer = match refused(&state.auth, &connection, &request) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request.map(requests::with_pauses_bounded)).await,
    };
    answer.map(|body| Body::new(AnswerBody::new(body, open_request)))
}

/// Why a request is not answered, if so.
fn refused(auth: &Auth, connection: &Connection, request: &Request) -> Option<HttpFailure> {
    if let Some(reason) = auth.foreign(request.headers()) {
        return Some(fail(StatusCode::FORBIDDEN, reason));
    }
    if matches!(request.uri().path(), "/" | "/health") {
        return None;
    }
    match auth.check(Auth::token_in(request.headers()), connection) {
        Ok(()) => {
            connection.leave_strangers();
            None
        }
        Err(reason) => Some(fail(StatusCode::UNAUTHORIZED, reason)),
    }
}
