//! Questions over HTTP, on the port of the sessions.

use super::GatewayState;
use super::http::{json, refused};
use axum::extract::{Path, State};
use axum::response::Response;
use taskmaster_protocol::message::Query;
use taskmaster_protocol::{JobName, Json, Refusal, RefusalCode, TaskId};

/// A full disk is no reason to start a master anew, so the status stays 200.
pub(super) async fn health(State(state): State<GatewayState>) -> String {
    match state.handle.room.disk().refusal() {
        Some(why) => format!("ok, but adds are refused: {why}\n"),
        None => "ok\n".into(),
    }
}

pub(super) async fn status(State(state): State<GatewayState>) -> Response {
    ask(&state, Query::Status).await
}

pub(super) async fn runners(State(state): State<GatewayState>) -> Response {
    ask(&state, Query::Runners).await
}

pub(super) async fn modules(State(state): State<GatewayState>) -> Response {
    ask(&state, Query::Modules).await
}

pub(super) async fn jobs(State(state): State<GatewayState>) -> Response {
    ask(&state, Query::Jobs).await
}

pub(super) async fn job(State(state): State<GatewayState>, Path(job): Path<String>) -> Response {
    match JobName::new(&job) {
        Ok(job) => ask(&state, Query::Job { job }).await,
        Err(error) => wrong_name(&error.to_string()),
    }
}

pub(super) async fn task(State(state): State<GatewayState>, Path(task): Path<String>) -> Response {
    match TaskId::new(&task) {
        Ok(id) => ask(&state, Query::Task { id }).await,
        Err(error) => wrong_name(&error.to_string()),
    }
}

async fn ask(state: &GatewayState, query: Query) -> Response {
    match state.handle.ask(query).await {
        Ok(answer) => json(Json::of(&answer)),
        Err(refusal) => refused(&refusal),
    }
}

fn wrong_name(why: &str) -> Response {
    refused(&Refusal::new(RefusalCode::InvalidValue, why))
}
