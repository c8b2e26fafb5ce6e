//! Files of this machine that tasks name as inputs. They are hashed, asked for, and put where the
//! master lacks them, before the task that names them is sent. A file is put once, however many
//! tasks name it.

use crate::client::Target;
use crate::error::CommandError;
use crate::output::notice;
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmaster_protocol::{FilePath, Hash, InputRef, Refusal, RefusalCode};
use taskmaster_transport::BlobError;
use taskmaster_transport::files::UploadPurpose;
use taskmaster_transport::local::{BlobSource, LocalInput, LocalInputs};
use thiserror::Error;

/// BlobClient that are put at a time.
const PUTS_AT_ONCE: usize = 8;

/// The pause before a master that is away, or takes nothing for now, is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// After this time people are told that a master does not take the inputs.
const SILENT_FOR: Duration = Duration::from_secs(2);

/// How long a blob is trusted to be at the master after it was seen there. The master keeps a blob
/// that nobody names for longer than this.
const PRESENT_FOR: Duration = Duration::from_secs(60);

/// Per path of this machine: what a task names in its place, or why it cannot be had.
pub type UploadedInputs = HashMap<PathBuf, Result<InputRef, InputUploadError>>;

type ReadInputs = HashMap<PathBuf, Result<Arc<LocalInput>, InputUploadError>>;

/// Why a file or folder of this machine cannot be an input.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputUploadError {
    /// The disk says no, or a name in the folder is none that a task may have.
    #[error("{0}")]
    Unreadable(String),
    /// The file was another one than was hashed, each time that it was put.
    #[error(
        "{} changed while it was uploaded, twice; add the task when nobody writes there",
        .0.display()
    )]
    Changed(PathBuf),
}

/// Puts inputs, and remembers what the master has.
pub struct InputUploader {
    target: Target,
    local: LocalInputs,
    /// When each blob was last seen at the master.
    present: HashMap<Hash, Instant>,
    /// Whether people were told that the master does not take inputs.
    told: bool,
}

impl InputUploader {
    /// Puts inputs at the masters of `target`.
    pub fn new(target: Target) -> InputUploader {
        InputUploader {
            target,
            local: LocalInputs::default(),
            present: HashMap::new(),
            told: false,
        }
    }

    /// Brings what is at these paths to the master. Waits for a master that is away. Blocks the
    /// thread while it reads the disk.
    pub async fn upload(&mut self, paths: &BTreeSet<PathBuf>) -> Result<UploadedInputs, BlobError> {
        self.local.look_again();
        let mut inputs = self.read(paths);
        let mut changed = self.put(&inputs).await?;
        if !changed.is_empty() {
            // Somebody was writing. The second try takes what is there now.
            changed.iter().for_each(|path| self.local.forget(path));
            self.local.look_again();
            inputs = self.read(paths);
            changed = self.put(&inputs).await?;
        }
        let uploaded = inputs.into_iter().map(|(path, input)| {
            let input = input.and_then(|input| named_as(&input, &changed));
            (path, input)
        });
        Ok(uploaded.collect())
    }

    fn read(&mut self, paths: &BTreeSet<PathBuf>) -> ReadInputs {
        let mut read = |path: &PathBuf| self.local.read(path).map_err(InputUploadError::Unreadable);
        paths
            .iter()
            .map(|path| (path.clone(), read(path)))
            .collect()
    }

    /// Puts the blobs that the master lacks. Gives the files that are other ones than were hashed.
    async fn put(&mut self, inputs: &ReadInputs) -> Result<BTreeSet<PathBuf>, BlobError> {
        let now = Instant::now();
        self.present
            .retain(|_, seen| now.duration_since(*seen) < PRESENT_FOR);
        let unknown: BTreeMap<Hash, &BlobSource> = inputs
            .values()
            .flatten()
            .flat_map(|input| &input.blobs)
            .filter(|(hash, _)| !self.present.contains_key(hash))
            .map(|(hash, place)| (*hash, place))
            .collect();
        let asked: Vec<Hash> = unknown.keys().copied().collect();
        let missing = loop {
            match self.target.blobs().missing(&asked).await {
                Ok(missing) => break missing,
                Err(error) => self.wait_after(error, now).await?,
            }
        };

        let mut changed = BTreeSet::new();
        let target = &self.target;
        let puts = missing.into_iter().filter_map(|hash| {
            let place = unknown.get(&hash)?;
            Some(put_one(target, hash, place, now))
        });
        let mut puts = stream::iter(puts).buffer_unordered(PUTS_AT_ONCE);
        while let Some(put) = puts.next().await {
            changed.extend(put?);
        }
        drop(puts);

        let is_present = |hash: &&Hash| match unknown.get(*hash) {
            Some(BlobSource::File(path)) => !changed.contains(path),
            Some(BlobSource::Memory(_)) | None => true,
        };
        self.present
            .extend(asked.iter().filter(is_present).map(|hash| (*hash, now)));
        Ok(changed)
    }

    /// Waits before the next try, or fails where the master will never take it.
    async fn wait_after(&mut self, error: BlobError, since: Instant) -> Result<(), BlobError> {
        if !error.may_pass() {
            return Err(error);
        }
        if since.elapsed() > SILENT_FOR && !std::mem::replace(&mut self.told, true) {
            notice(&format!("inputs wait to be put ({error}); trying again …"));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }
}

/// Puts one blob, however long it takes. Gives its path where the file is another one by now.
async fn put_one(
    target: &Target,
    hash: Hash,
    place: &BlobSource,
    since: Instant,
) -> Result<Option<PathBuf>, BlobError> {
    let mut told = false;
    loop {
        let put = match place {
            BlobSource::File(path) => {
                target
                    .blobs()
                    .put_file(&hash, path, UploadPurpose::Task)
                    .await
            }
            BlobSource::Memory(bytes) => target.blobs().upload(&hash, bytes.clone()).await,
        };
        match (put, place) {
            (Ok(()), _) => return Ok(None),
            // The file is shorter, gone, or has other bytes.
            (Err(BlobError::WrongHash(_) | BlobError::Local { .. }), BlobSource::File(path)) => {
                return Ok(Some(path.clone()));
            }
            (Err(error), _) if error.may_pass() => {
                if since.elapsed() > SILENT_FOR && !std::mem::replace(&mut told, true) {
                    notice(&format!(
                        "an input waits to be put ({error}); trying again …"
                    ));
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            (Err(error), _) => return Err(error),
        }
    }
}

/// What a task names in the place of `input`: a folder is another one where one of its files has
/// changed.
fn named_as(input: &LocalInput, changed: &BTreeSet<PathBuf>) -> Result<InputRef, InputUploadError> {
    for (_, place) in &input.blobs {
        if let BlobSource::File(path) = place
            && changed.contains(path)
        {
            return Err(InputUploadError::Changed(path.clone()));
        }
    }
    Ok(input.input)
}

/// The refusal of a task whose input `path` cannot be had.
pub fn refusal(path: &str, error: &InputUploadError) -> Refusal {
    let field = format!("inputs.{path}");
    let message = format!("field `{field}`: {error}");
    Refusal::new(RefusalCode::InvalidValue, message).at(field)
}

/// Puts the files that `--input` names, and gives what the task names in their places.
pub async fn of_options(
    target: Target,
    options: &[(FilePath, PathBuf)],
) -> Result<BTreeMap<FilePath, InputRef>, CommandError> {
    if options.is_empty() {
        return Ok(BTreeMap::new());
    }
    let paths: BTreeSet<PathBuf> = options.iter().map(|(_, file)| file.clone()).collect();
    let uploaded = InputUploader::new(target).upload(&paths).await?;
    let mut inputs = BTreeMap::new();
    for (path, file) in options {
        let input = match uploaded.get(file) {
            Some(Ok(input)) => *input,
            Some(Err(error)) => return Err(refusal(path.as_str(), error).into()),
            None => {
                let error = InputUploadError::Unreadable("it was not read".into());
                return Err(refusal(path.as_str(), &error).into());
            }
        };
        if inputs.insert(path.clone(), input).is_some() {
            return Err(CommandError::Usage(format!(
                "--input names the path `{path}` twice"
            )));
        }
    }
    Ok(inputs)
}

/// The folder that paths in a feed are relative to: the feed file's, or the present one.
pub fn base_of(file: Option<&Path>) -> PathBuf {
    match file {
        Some(file) if file != Path::new("-") => {
            file.parent().map(Path::to_owned).unwrap_or_default()
        }
        _ => PathBuf::new(),
    }
}
