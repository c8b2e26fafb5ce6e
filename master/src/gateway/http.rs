//! Modules and questions over HTTP, on the port of the sessions.

use super::Gate;
use crate::upkeep::backup;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::io::Write;
use taskmaster_protocol::message::{Query, Status};
use taskmaster_protocol::shape::ModuleCheck;
use taskmaster_protocol::{JobName, Json, ModuleName, Refusal, RefusalCode, TaskId, limits};

/// A sentence with a status: what every error here looks like.
pub(super) type Failure = (StatusCode, String);

pub(super) fn fail(status: StatusCode, text: impl std::fmt::Display) -> Failure {
    (status, format!("{text}\n"))
}

/// A full disk is no reason to start a master anew: the status stays 200.
pub(super) async fn health(State(gate): State<Gate>) -> String {
    gate.handle.room.disk().refusal().map_or_else(
        || "ok\n".into(),
        |why| format!("ok, but adds are refused: {why}\n"),
    )
}

/// Puts a file into the task folder, as a person would, after a look at it; answers what was found.
pub(super) async fn put_module(
    State(gate): State<Gate>,
    Path(file): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let bad = |text: String| fail(StatusCode::BAD_REQUEST, text);
    let (stem, other) = match file.rsplit_once('.') {
        Some((stem, "wasm")) => (stem, "wat"),
        Some((stem, "wat")) => (stem, "wasm"),
        _ => {
            return Err(bad(format!(
                "`{file}` is no module's file: its name must end in .wasm or .wat"
            )));
        }
    };
    let name = ModuleName::new(stem).map_err(|error| bad(error.to_string()))?;
    let limit = usize::try_from(limits::MODULE_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = to_bytes(body, limit)
        .await
        .map_err(|error| bad(format!("the upload was not read: {error}")))?;
    let (stem, copy) = (stem.to_owned(), bytes.clone());
    let lost = |_| {
        fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the module was not checked; the log has more",
        )
    };
    let check: ModuleCheck =
        tokio::task::spawn_blocking(move || taskmaster_module::inspect(&stem, &copy).check)
            .await
            .map_err(lost)?;
    let Some(version) = check.version.filter(|_| check.ok) else {
        return Err(bad(check
            .error
            .unwrap_or_else(|| "it would not load".into())));
    };
    let rival = format!("{name}.{other}");
    if gate.folder.path().join(&rival).exists() {
        return Err(fail(
            StatusCode::CONFLICT,
            format!("{rival} has the same name; remove it or push under another name"),
        ));
    }
    let folder = gate.folder.clone();
    let written = tokio::task::spawn_blocking(move || write(folder.path(), &file, &bytes))
        .await
        .map_err(lost)?;
    written.map_err(|error| {
        fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the task folder does not take the file: {error}"),
        )
    })?;
    if !gate.folder.look_for(&name, version).await {
        let text = "the file was written, and was replaced by another or not taken; `taskmaster modules list` says more";
        return Err(fail(StatusCode::CONFLICT, text));
    }
    Ok(json(Json::of(&check)))
}

/// Under a hidden name first: nobody sees half a file.
fn write(folder: &std::path::Path, file: &str, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = folder.join(format!(".{file}.{}", uuid::Uuid::now_v7()));
    let written = std::fs::File::create(&unfinished)
        .and_then(|mut to| to.write_all(bytes).and_then(|()| to.sync_all()))
        .and_then(|()| std::fs::rename(&unfinished, folder.join(file)));
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

pub(super) fn json(value: Json) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.get().to_owned(),
    )
        .into_response()
}

/// Asks the engine. A refusal has the shape it has everywhere, with a status for those who look at
/// that only.
async fn ask(gate: &Gate, query: Query) -> Response {
    match gate.handle.ask(query).await {
        Ok(answer) => json(answer),
        Err(refusal) => (status_of(&refusal), json(Json::of(&refusal))).into_response(),
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal.code {
        RefusalCode::UnknownTask
        | RefusalCode::UnknownBlob
        | RefusalCode::UnknownJob
        | RefusalCode::UnknownModule
        | RefusalCode::UnknownRunner => StatusCode::NOT_FOUND,
        RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn bad_name(error: impl ToString) -> Response {
    let refusal = Refusal::new(RefusalCode::InvalidValue, error.to_string());
    (StatusCode::BAD_REQUEST, json(Json::of(&refusal))).into_response()
}

/// What is asked of a backup.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// An absolute path on this machine.
    to: std::path::PathBuf,
}

/// Copies the data folder of this running master.
pub(super) async fn backup(State(gate): State<Gate>, body: Bytes) -> Result<Response, Failure> {
    let bad = |text: String| fail(StatusCode::BAD_REQUEST, text);
    let wish: Wish =
        serde_json::from_slice(&body).map_err(|error| bad(format!("`to` is wanted: {error}")))?;
    if !wish.to.is_absolute() {
        return Err(bad(format!(
            "`to` must be an absolute path on the master's machine, not {}",
            wish.to.display()
        )));
    }
    let copying = tokio::task::spawn_blocking(move || {
        let room = gate.handle.room.clone();
        let _still = room.stand_still();
        backup::backup(&gate.handle.reader, &gate.blobs, &wish.to)
    });
    let lost = |_| {
        fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the backup was not made; the log has more",
        )
    };
    let copied = copying.await.map_err(lost)?;
    copied
        .map(|copied| json(Json::of(&copied)))
        .map_err(|error| fail(StatusCode::CONFLICT, error))
}

pub(super) async fn status(State(gate): State<Gate>) -> Response {
    ask(&gate, Query::Status).await
}

pub(super) async fn runners(State(gate): State<Gate>) -> Response {
    ask(&gate, Query::Runners).await
}

pub(super) async fn modules(State(gate): State<Gate>) -> Response {
    ask(&gate, Query::Modules).await
}

pub(super) async fn jobs(State(gate): State<Gate>) -> Response {
    ask(&gate, Query::Jobs).await
}

pub(super) async fn job(State(gate): State<Gate>, Path(job): Path<String>) -> Response {
    match JobName::new(&job) {
        Ok(job) => ask(&gate, Query::Job { job }).await,
        Err(error) => bad_name(error),
    }
}

pub(super) async fn task(State(gate): State<Gate>, Path(task): Path<String>) -> Response {
    match TaskId::new(&task) {
        Ok(id) => ask(&gate, Query::Task { id }).await,
        Err(error) => bad_name(error),
    }
}

/// The master at a glance, as Prometheus reads it.
pub(super) async fn metrics(State(gate): State<Gate>) -> Response {
    let answer = gate.handle.ask(Query::Status).await;
    match answer.and_then(|json| {
        json.read::<Status>()
            .map_err(|e| Refusal::new(RefusalCode::Internal, e.to_string()))
    }) {
        Ok(status) => {
            let disk_full = gate.handle.room.disk().refusal().is_some();
            (
                [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
                lines(&status, disk_full),
            )
                .into_response()
        }
        Err(refusal) => (status_of(&refusal), format!("{refusal}\n")).into_response(),
    }
}

fn lines(status: &Status, disk_full: bool) -> String {
    let mut text = String::from(
        "# HELP taskmaster_tasks Tasks by state; final ones since this start.\n# TYPE taskmaster_tasks gauge\n",
    );
    for (state, count) in &status.tasks {
        text.push_str(&format!("taskmaster_tasks{{state=\"{state}\"}} {count}\n"));
    }
    for (name, kind, value, help) in [
        (
            "taskmaster_events_total",
            "counter",
            status.seq,
            "Seq of the last durable event.",
        ),
        (
            "taskmaster_epoch",
            "gauge",
            u64::from(status.epoch),
            "Starts of a master on this journal.",
        ),
        (
            "taskmaster_uptime_seconds",
            "gauge",
            status.uptime_ms / 1_000,
            "Time since this start.",
        ),
        ("taskmaster_jobs_open", "gauge", status.jobs, "Open jobs."),
        (
            "taskmaster_runners",
            "gauge",
            status.runners,
            "Runners connected.",
        ),
        (
            "taskmaster_slots",
            "gauge",
            status.slots,
            "Slots of the runners connected.",
        ),
        (
            "taskmaster_disk_full",
            "gauge",
            u64::from(disk_full),
            "1: adds are refused for want of room on the disk.",
        ),
        (
            "taskmaster_adds_refused",
            "gauge",
            u64::from(status.refusing.is_some()),
            "1: adds are refused, for want of room on the disk or in memory.",
        ),
    ] {
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        ));
    }
    text
}
