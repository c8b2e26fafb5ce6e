//! Questions over HTTP, on the port of the sessions.

use super::http::{json, refused};
use super::{GatewayState, questions};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::io;
use taskmaster_protocol::message::{Page, Query, Trouble, TroubleKind};
use taskmaster_protocol::{JobName, Json, Refusal, RefusalCode, TaskId};

/// Neither a full disk nor a task folder that cannot be read nor a sick runner is a reason to start a
/// master anew, so the status stays 200. A damaged store is a reason to call its keeper.
pub(super) async fn health(State(state): State<GatewayState>) -> (StatusCode, String) {
    let room = &state.handle.room;
    if let Some(why) = room.damage().found() {
        let kind = TroubleKind::DamagedStore;
        let text = format!("{}\n", Trouble { kind, why });
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let kind = TroubleKind::RefusedAdds;
    let disk = room.disk();
    let refused = disk.refusal().map(|why| Trouble {
        kind,
        why: why.to_owned(),
    });
    let others = questions::troubles_of_others(&state);
    let troubles: Vec<String> = refused
        .into_iter()
        .chain(others)
        .map(|trouble| trouble.to_string())
        .collect();
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
    list(state, Query::RUNNERS).await
}

pub(super) async fn modules(State(state): State<GatewayState>) -> Response {
    list(state, Query::MODULES).await
}

pub(super) async fn jobs(State(state): State<GatewayState>) -> Response {
    list(state, Query::JOBS).await
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

/// A part of a list that is answered as one array.
struct ListPart {
    page: Page<Json>,
    /// What stands before the first row of the page.
    sign: &'static str,
}

/// Answers with a list as one array. It is asked for and sent page by page, as its reader takes it.
async fn list(state: GatewayState, query: Query) -> Response {
    let first = match page(&state, query.clone()).await {
        Ok(page) => ListPart { page, sign: "[" },
        Err(refusal) => return refused(&refusal),
    };
    let body = futures_util::stream::unfold(Some(first), move |part| {
        let state = state.clone();
        let query = query.clone();
        async move {
            let ListPart { page: now, sign } = part?;
            let rows: Vec<&str> = now.rows.iter().map(Json::get).collect();
            // An empty page may stand before others.
            let (text, sign) = match (rows.is_empty(), sign) {
                (true, "[") => ("[".to_owned(), ""),
                (true, sign) => (String::new(), sign),
                (false, sign) => ([sign, &rows.join(",")].concat(), ","),
            };
            let Some(next) = now.next else {
                return Some((Ok(text + "]"), None));
            };
            match page(&state, query.at(Some(next))).await {
                Ok(page) => Some((Ok(text), Some(ListPart { page, sign }))),
                Err(refusal) => Some((Err(io::Error::other(refusal.message)), None)),
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, Body::from_stream(body)).into_response()
}

async fn page(state: &GatewayState, query: Query) -> Result<Page<Json>, Refusal> {
    let answer = questions::ask_master(state, query).await?;
    let unreadable =
        |error: serde_json::Error| Refusal::new(RefusalCode::Internal, error.to_string());
    answer.read().map_err(unreadable)
}

fn wrong_name(why: &str) -> Response {
    refused(&Refusal::new(RefusalCode::InvalidValue, why))
}
