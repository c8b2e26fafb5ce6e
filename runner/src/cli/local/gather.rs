//! The inputs of `taskmaster run`: files of this machine, copied into a cache of their own, so that
//! the task cannot write into them.

use super::error::LocalRunError;
use crate::fetch::{FetchError, FetchFile};
use crate::inputs::TaskInputs;
use crate::inputs::placement::InputPlacement;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_protocol::{FilePath, InputRef, Json, ModuleRef, TaskDocument};
use taskmaster_transport::local::{BlobSource, LocalInputs};

/// A task document needs a module, whichever it is.
const MODULE: &str = "local";

/// The inputs as a task names them, and ready to be put into its folder.
#[derive(Default)]
pub struct GatheredInputs {
    /// The inputs by their hashes.
    pub named: BTreeMap<FilePath, InputRef>,
    /// `None` where there are no inputs.
    pub placement: Option<InputPlacement>,
}

/// Reads the files and folders `wanted` and copies them into `folder`.
pub async fn gather(
    wanted: &[(FilePath, PathBuf)],
    folder: &Path,
) -> Result<GatheredInputs, LocalRunError> {
    if wanted.is_empty() {
        return Ok(GatheredInputs::default());
    }
    let mut local = LocalInputs::default();
    let mut inputs = BTreeMap::new();
    let mut places = HashMap::new();
    for (path, file) in wanted {
        let read = local
            .read(file)
            .map_err(|why| LocalRunError::Failed(format!("--input {path}: {why}")))?;
        inputs.insert(path.clone(), read.input);
        places.extend(read.blobs.iter().cloned());
    }
    let inputs = checked(inputs)?;

    let fetch: FetchFile = Arc::new(move |hash, to| {
        let copied = copy(places.get(&hash), &to);
        Box::pin(async move { copied.map_err(|error| FetchError::Local(error.to_string())) })
    });
    let cache = TaskInputs::open(folder, u64::MAX, fetch)
        .map_err(|error| LocalRunError::Failed(format!("{}: {error}", folder.display())))?;
    let placement = cache.gather(&inputs).await.map_err(LocalRunError::failed)?;
    Ok(GatheredInputs {
        named: inputs,
        placement: Some(placement),
    })
}

/// Checks inputs as those of a task document are checked.
fn checked(
    inputs: BTreeMap<FilePath, InputRef>,
) -> Result<BTreeMap<FilePath, InputRef>, LocalRunError> {
    let module = ModuleRef::parse(MODULE).map_err(LocalRunError::failed)?;
    let document = TaskDocument {
        inputs,
        ..TaskDocument::new(module)
    };
    let document = TaskDocument::parse(Json::of(&document).get())
        .map_err(|refusal| LocalRunError::Failed(refusal.message))?;
    Ok(document.inputs)
}

fn copy(place: Option<&BlobSource>, to: &Path) -> io::Result<u64> {
    match place {
        // `fs::copy` would copy the permissions, too, but the copy must be readable in any case.
        Some(BlobSource::File(from)) => io::copy(&mut File::open(from)?, &mut File::create(to)?),
        Some(BlobSource::Memory(bytes)) => {
            fs::write(to, bytes)?;
            Ok(bytes.len() as u64)
        }
        None => Err(io::Error::other("it is none of the inputs")),
    }
}
