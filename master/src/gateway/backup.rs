//! `POST /api/backup`: copies the data folder of this running master.

use super::GatewayState;
use super::http::{HttpFailure, bad_request, fail, json, run_blocking};
use crate::upkeep::backup;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use std::path::PathBuf;
use taskmaster_protocol::Json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    /// An absolute path on this machine.
    to: PathBuf,
}

pub(super) async fn backup(
    State(state): State<GatewayState>,
    body: Bytes,
) -> Result<Response, HttpFailure> {
    let request: BackupRequest = serde_json::from_slice(&body)
        .map_err(|error| bad_request(format!("`to` is wanted: {error}")))?;
    if !request.to.is_absolute() {
        return Err(bad_request(format!(
            "`to` must be an absolute path on the master's machine, not {}",
            request.to.display()
        )));
    }
    let copy = move || {
        let _view_stands_still = state.handle.room.lock_view();
        backup::backup(&state.handle.reader, &state.blobs, &request.to)
    };
    run_blocking(copy, "the backup was not made; the log has more")
        .await?
        .map(|summary| json(Json::of(&summary)))
        .map_err(|error| fail(StatusCode::CONFLICT, error))
}
