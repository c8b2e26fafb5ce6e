//! Questions over HTTP, on the port of the sessions.

use super::http::{json, refused};
use super::{GatewayState, questions};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use taskmaster_protocol::message::Query;
use taskmaster_protocol::{JobName, Refusal, RefusalCode, TaskId};

/// Neither a full disk nor a task folder that cannot be read nor a sick runner is a reason to start a
/// master anew, so the status stays 200. A damaged store is a reason to call its keeper.
pub(super) async fn health(State(state): State<GatewayState>) -> (StatusCode, String) {
    let room = &state.handle.room;
    if let Some(damage) = room.damage().found() {
        let text = format!("the store is damaged, and adds are refused: {damage}\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let disk = room.disk();
    let mut troubles = Vec::new();
    troubles.extend(disk.refusal().map(|why| format!("adds are refused: {why}")));
    troubles.extend(state.folder.trouble());
    match state.handle.sick_runners.count() {
        0 => {}
        1 => troubles.push("1 runner is sick and takes no tasks".into()),
        count => troubles.push(format!("{count} runners are sick and take no tasks")),
    }
    let text = if troubles.is_empty() {
        "ok\n".into()
    } else {
        format!("ok, but {}\n", troubles.join("; "))
    };
    (StatusCode::OK, text)
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
    match questions::ask_master(state, query).await {
        Ok(answer) => json(answer),
        Err(refusal) => refused(&refusal),
    }
}

fn wrong_name(why: &str) -> Response {
    refused(&Refusal::new(RefusalCode::InvalidValue, why))
}
