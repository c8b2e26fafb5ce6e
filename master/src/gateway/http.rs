//! What all answers over HTTP have in common.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Display;
use taskmaster_protocol::excerpt::sentence;
use taskmaster_protocol::{Json, Refusal, RefusalCode};

/// A status and a sentence. Every error over HTTP but a refusal of the engine looks like this.
pub(super) type HttpFailure = (StatusCode, String);

pub(super) fn fail(status: StatusCode, text: impl Display) -> HttpFailure {
    (status, format!("{}\n", sentence(text.to_string())))
}

pub(super) fn bad_request(text: impl Display) -> HttpFailure {
    fail(StatusCode::BAD_REQUEST, text)
}

/// Runs `work`, which may wait for a disk or for a bucket, on another thread. `lost` is said if the
/// work panics.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    lost: &str,
) -> Result<T, HttpFailure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| fail(StatusCode::INTERNAL_SERVER_ERROR, lost))
}

pub(super) fn json(value: Json) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, value.get().to_owned()).into_response()
}

/// A refusal has the shape that it has over a WebSocket, with a status for those who look only at
/// that.
pub(super) fn refused(refusal: &Refusal) -> Response {
    (status_of(refusal), json(Json::of(refusal))).into_response()
}

pub(super) fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal.code {
        RefusalCode::UnknownTask
        | RefusalCode::UnknownBlob
        | RefusalCode::UnknownJob
        | RefusalCode::UnknownModule
        | RefusalCode::UnknownRunner
        | RefusalCode::UnknownAnswer => StatusCode::NOT_FOUND,
        RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        RefusalCode::MalformedJson
        | RefusalCode::UnknownField
        | RefusalCode::WrongType
        | RefusalCode::MissingField
        | RefusalCode::InvalidValue
        | RefusalCode::UnknownEvent
        | RefusalCode::UnknownDependency
        | RefusalCode::DependencyCycle
        | RefusalCode::IdConflict
        | RefusalCode::TooLarge
        | RefusalCode::Unsupported
        | RefusalCode::Unauthorized
        | RefusalCode::ProtocolVersion
        | RefusalCode::WrongState
        | RefusalCode::NotAllowed => StatusCode::BAD_REQUEST,
    }
}
