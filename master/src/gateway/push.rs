//! `PUT /modules/FILE`: puts a file into the task folder, as a person would, after a look at it.

use super::GatewayState;
use super::http::{HttpFailure, bad_request, fail, json, run_blocking};
use axum::body::{Body, to_bytes};
use axum::extract::{Path as InPath, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use taskmaster_protocol::shape::ModuleCheck;
use taskmaster_protocol::{Hash, Json, ModuleName, limits};

const CHECK_LOST: &str = "the module was not checked; the log has more";

/// Checks a module and puts it into the task folder. Answers what was found in the module.
pub(super) async fn put_module(
    State(state): State<GatewayState>,
    InPath(file): InPath<String>,
    body: Body,
) -> Result<Response, HttpFailure> {
    let pushed = PushedFile::parse(file)?;
    let bytes_max = usize::try_from(limits::MODULE_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = to_bytes(body, bytes_max)
        .await
        .map_err(|error| bad_request(format!("the upload was not read: {error}")))?;
    let (check, version) = check(&pushed.name, bytes.clone()).await?;
    let rival = pushed.rival();
    if state.folder.path().join(&rival).exists() {
        return Err(fail(
            StatusCode::CONFLICT,
            format!("{rival} has the same name; remove it or push under another name"),
        ));
    }

    let folder = state.folder.clone();
    let file = pushed.file.clone();
    run_blocking(move || write(folder.path(), &file, &bytes), CHECK_LOST)
        .await?
        .map_err(|error| {
            fail(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the task folder does not take the file: {error}"),
            )
        })?;
    if !state.folder.look_for(&pushed.name, version).await {
        let text = "the file was written, and was replaced by another or not taken; `taskmaster \
                    modules list` says more";
        return Err(fail(StatusCode::CONFLICT, text));
    }
    Ok(json(Json::of(&check)))
}

/// The name of a pushed file.
struct PushedFile {
    file: String,
    name: ModuleName,
    /// The other one of `wasm` and `wat`.
    other_extension: &'static str,
}

impl PushedFile {
    fn parse(file: String) -> Result<PushedFile, HttpFailure> {
        let (stem, other_extension) = match file.rsplit_once('.') {
            Some((stem, "wasm")) => (stem, "wat"),
            Some((stem, "wat")) => (stem, "wasm"),
            Some(_) | None => {
                return Err(bad_request(format!(
                    "`{file}` is no module's file: its name must end in .wasm or .wat"
                )));
            }
        };
        let name = ModuleName::new(stem).map_err(bad_request)?;
        Ok(PushedFile {
            file,
            name,
            other_extension,
        })
    }

    /// The file that would have the module's name, too.
    fn rival(&self) -> String {
        format!("{}.{}", self.name, self.other_extension)
    }
}

/// Refuses a module that would not load.
async fn check(name: &ModuleName, bytes: Bytes) -> Result<(ModuleCheck, Hash), HttpFailure> {
    let name = name.clone();
    let inspect = move || taskmaster_confined::inspect(name.as_str(), &bytes);
    let check = run_blocking(inspect, CHECK_LOST)
        .await?
        .map_err(|error| fail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        .check;
    match check.version {
        Some(version) if check.ok => Ok((check, version)),
        Some(_) | None => Err(bad_request(
            check.error.as_deref().unwrap_or("it would not load"),
        )),
    }
}

/// Writes the file under a hidden name first, so that nobody sees half of it.
fn write(folder: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{file}.{}", uuid::Uuid::now_v7()));
    let written =
        write_synced(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, folder.join(file)));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
