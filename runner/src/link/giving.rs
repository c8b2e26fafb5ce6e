//! What a task gives back, on its way to the master: its result where that is large, and its files.
//! Only when all of it is there is anything told.

use super::owed::Owed;
use super::source::Source;
use crate::outcome::Upload;
use crate::outputs::MadeFiles;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::message::{Done, ResultRef};
use taskmaster_protocol::{FilePath, Hash};
use taskmaster_transport::files::hash_file;

/// Puts everything. The sentence says why it cannot be kept.
pub async fn give(upload: Upload, source: &Source, owed: &Arc<Owed>) -> Result<Done, String> {
    let Upload {
        mut done,
        result,
        files,
    } = upload;
    if let (Some(bytes), ResultRef::Blob(hash)) = (result, &done.result) {
        let waiting = owed.clone();
        let kept = tokio::task::spawn_blocking(move || waiting.keep(bytes)).await;
        source
            .put(*hash, &kept.map_err(|error| error.to_string())??)
            .await?;
    }
    if let Some(files) = files {
        done.outputs = give_files(files, source, owed).await?;
    }
    Ok(done)
}

async fn give_files(
    files: MadeFiles,
    source: &Source,
    owed: &Arc<Owed>,
) -> Result<BTreeMap<FilePath, Hash>, String> {
    let _waiting = owed.wait(files.bytes())?;
    let mut given = BTreeMap::new();
    for made in &files.files {
        let lost = |why: String| format!("the file `{}` could not be kept: {why}", made.path);
        let file = made.file.clone();
        let hashed = tokio::task::spawn_blocking(move || hash_file(&file)).await;
        let (hash, _) = hashed
            .map_err(|error| lost(error.to_string()))?
            .map_err(|error| lost(error.to_string()))?;
        source.put_file(hash, &made.file).await.map_err(lost)?;
        given.insert(made.path.clone(), hash);
    }
    Ok(given)
}
