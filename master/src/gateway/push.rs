//! `PUT /modules/FILE`: puts a file into the task folder, as a person would, after a look at it.
//! `DELETE /modules/FILE` removes it there.

use super::GatewayState;
use super::http::{HttpFailure, bad_request, fail, json, run_blocking};
use axum::body::Body;
use axum::extract::{Path as InPath, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use taskmaster_protocol::shape::ModuleCheck;
use taskmaster_protocol::{Hash, Json, ModuleName, limits};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

const CHECK_LOST: &str = "the module was not checked; the log has more";

/// Modules that are checked at a time. Each is in memory meanwhile, with up to
/// [`limits::MODULE_BYTES_MAX`]. What is only half here is on the disk.
pub(super) const CHECKS_AT_A_TIME: usize = 2;

/// Checks a module and puts it into the task folder. Answers what was found in the module.
pub(super) async fn put_module(
    State(state): State<GatewayState>,
    InPath(file): InPath<String>,
    body: Body,
) -> Result<Response, HttpFailure> {
    let pushed = PushedFile::parse(file)?;
    let unfinished = UnfinishedFile::new(state.folder.path(), &pushed.file);
    receive(body, &unfinished).await?;
    // The semaphore is never closed.
    let permit = state.module_checks.acquire().await.ok();
    let (check, version) = check(&pushed.name, &unfinished).await?;
    drop(permit);
    let rival = pushed.rival();
    if state.folder.path().join(&rival).exists() {
        return Err(fail(
            StatusCode::CONFLICT,
            format!("{rival} has the same name; remove it or push under another name"),
        ));
    }
    let whole = state.folder.path().join(&pushed.file);
    run_blocking(move || fs::rename(&unfinished.0, whole), CHECK_LOST)
        .await?
        .map_err(not_written)?;
    if !state.folder.look_for(&pushed.name, version).await {
        let text = "the file was written, and was replaced by another or not taken; `taskmaster \
                    modules list` says more";
        return Err(fail(StatusCode::CONFLICT, text));
    }
    Ok(json(Json::of(&check)))
}

/// Removes a file from the task folder. Tasks of its module wait from then on.
pub(super) async fn delete_module(
    State(state): State<GatewayState>,
    InPath(file): InPath<String>,
) -> Result<StatusCode, HttpFailure> {
    let file = PushedFile::parse(file)?.file;
    let path = state.folder.path().join(&file);
    let removed = run_blocking(move || fs::remove_file(path), "the file was not removed").await?;
    match removed {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(fail(
            StatusCode::NOT_FOUND,
            format!("there is no {file} in the task folder"),
        )),
        Err(error) => Err(fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the task folder keeps the file: {error}"),
        )),
    }
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

/// A file that is hidden until it is whole, so that nobody takes half of it for a module. It is
/// removed when this is dropped, unless it has been given its name.
struct UnfinishedFile(PathBuf);

impl UnfinishedFile {
    fn new(folder: &Path, file: &str) -> UnfinishedFile {
        UnfinishedFile(folder.join(format!(".{file}.{}", uuid::Uuid::now_v7())))
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a file was left half written by a master that was killed.
fn is_unfinished(file: &str) -> bool {
    let hidden = file
        .strip_prefix('.')
        .and_then(|file| file.rsplit_once('.'));
    hidden.is_some_and(|(file, id)| {
        PushedFile::parse(file.to_owned()).is_ok() && uuid::Uuid::try_parse(id).is_ok()
    })
}

/// Removes files that an earlier master had not finished.
pub(super) fn remove_unfinished(folder: &Path) {
    // A folder that cannot be read is told of by the thread that watches it.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_unfinished) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn not_written(error: impl Display) -> HttpFailure {
    let text = format!("the task folder does not take the file: {error}");
    fail(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Writes what comes to the disk, and syncs it.
async fn receive(body: Body, into: &UnfinishedFile) -> Result<(), HttpFailure> {
    let mut file = File::create_new(&into.0).await.map_err(not_written)?;
    let mut stream = body.into_data_stream();
    let most = limits::MODULE_BYTES_MAX;
    let mut bytes: u64 = 0;
    while let Some(piece) = stream.next().await {
        let piece =
            piece.map_err(|error| bad_request(format!("the upload was not read: {error}")))?;
        bytes += piece.len() as u64;
        if bytes > most {
            let text = format!("a module may have at most {most} bytes");
            return Err(fail(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        file.write_all(&piece).await.map_err(not_written)?;
    }
    file.sync_all().await.map_err(not_written)
}

/// Refuses a module that would not load.
async fn check(
    name: &ModuleName,
    file: &UnfinishedFile,
) -> Result<(ModuleCheck, Hash), HttpFailure> {
    let name = name.clone();
    let path = file.0.clone();
    let inspect = move || -> io::Result<ModuleCheck> {
        let bytes = fs::read(path)?;
        let inspected = taskmaster_confined::inspect(name.as_str(), &bytes);
        Ok(inspected.map_err(io::Error::other)?.check)
    };
    let check = run_blocking(inspect, CHECK_LOST)
        .await?
        .map_err(not_written)?;
    match check.version {
        Some(version) if check.ok => Ok((check, version)),
        Some(_) | None => Err(bad_request(
            check.error.as_deref().unwrap_or("it would not load"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_push_has_left_is_removed_at_a_start() {
        let scratch = tempfile::tempdir().unwrap();
        let left = UnfinishedFile::new(scratch.path(), "m.wasm");
        fs::write(&left.0, "half").unwrap();
        for other in ["m.wasm", ".m.wasm", ".m.wasm.swp", ".gitignore"] {
            fs::write(scratch.path().join(other), "theirs").unwrap();
        }
        remove_unfinished(scratch.path());
        let mut names: Vec<_> = fs::read_dir(scratch.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".gitignore", ".m.wasm", ".m.wasm.swp", "m.wasm"]);
    }
}
