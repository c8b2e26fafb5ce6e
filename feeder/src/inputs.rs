//! Files of this machine that tasks name: hashed, asked for, and put where the master lacks them,
//! before the task that names them is sent. Each is put once, however many tasks name it.

use crate::client::Target;
use crate::output::chat;
use crate::trouble::Trouble;
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

/// Blobs put at a time.
const PUTS_AT_ONCE: usize = 8;

/// The pause before a master that is away, or takes nothing for now, is asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// A master that is silent for so long is told of.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the master was seen to have it keeps for longer than this, also where nobody names it.
const KEPT: Duration = Duration::from_secs(60);

/// What became of a path: what a task names in its place, or a sentence.
pub type Settled = HashMap<PathBuf, Result<InputRef, String>>;

/// Puts inputs; remembers what the master has.
pub struct Inputs {
    target: Target,
    local: LocalInputs,
    there: HashMap<Hash, Instant>,
    /// Whether it was said that the master is away.
    said: bool,
}

/// A file was not what it had been when it was hashed.
struct Changed(BTreeSet<PathBuf>);

impl Inputs {
    /// For the masters of `target`.
    pub fn new(target: Target) -> Inputs {
        Inputs {
            target,
            local: LocalInputs::default(),
            there: HashMap::new(),
            said: false,
        }
    }

    /// Sees to it that the master has what is at these paths. Waits for a master that is away.
    /// Blocks on the disk.
    pub async fn settle(&mut self, paths: &BTreeSet<PathBuf>) -> Result<Settled, Trouble> {
        self.local.look_again();
        let mut inputs = self.read(paths);
        let mut changed = self.put(&inputs).await?;
        if !changed.0.is_empty() {
            // Somebody was writing: once more, with what is there now.
            changed.0.iter().for_each(|path| self.local.forget(path));
            self.local.look_again();
            inputs = self.read(paths);
            changed = self.put(&inputs).await?;
        }
        Ok(inputs
            .into_iter()
            .map(|(path, input)| (path, input.and_then(|input| unchanged(&input, &changed))))
            .collect())
    }

    fn read(
        &mut self,
        paths: &BTreeSet<PathBuf>,
    ) -> HashMap<PathBuf, Result<Arc<LocalInput>, String>> {
        paths
            .iter()
            .map(|path| (path.clone(), self.local.read(path)))
            .collect()
    }

    /// Puts what the master lacks.
    async fn put(
        &mut self,
        inputs: &HashMap<PathBuf, Result<Arc<LocalInput>, String>>,
    ) -> Result<Changed, Trouble> {
        let now = Instant::now();
        self.there
            .retain(|_, seen| now.duration_since(*seen) < KEPT);
        let named = inputs.values().flatten().flat_map(|input| &input.blobs);
        let unknown: BTreeMap<Hash, &BlobSource> = named
            .filter(|(hash, _)| !self.there.contains_key(hash))
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
            unknown
                .get(&hash)
                .map(|place| put_one(target, hash, place, now))
        });
        let mut puts = stream::iter(puts).buffer_unordered(PUTS_AT_ONCE);
        while let Some(put) = puts.next().await {
            changed.extend(put?);
        }
        drop(puts);
        // Where one of its files has changed, a folder is another.
        let whole = |hash: &&Hash| !matches!(unknown.get(*hash), Some(BlobSource::File(path)) if changed.contains(path));
        self.there
            .extend(asked.iter().filter(whole).map(|hash| (*hash, now)));
        Ok(Changed(changed))
    }

    /// Waits before the next try, or gives up where the master will never take it.
    async fn wait_after(&mut self, error: BlobError, since: Instant) -> Result<(), Trouble> {
        if !error.may_pass() {
            return Err(Trouble::Local(error.to_string()));
        }
        if since.elapsed() > PATIENCE && !std::mem::replace(&mut self.said, true) {
            chat(&format!("inputs wait to be put ({error}); trying again …"));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Puts one blob, for as long as it takes. Gives the file back where it has changed.
async fn put_one(
    target: &Target,
    hash: Hash,
    place: &BlobSource,
    since: Instant,
) -> Result<Option<PathBuf>, Trouble> {
    let mut said = false;
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
            // It is shorter, gone, or other bytes.
            (Err(BlobError::WrongHash(_) | BlobError::Local { .. }), BlobSource::File(path)) => {
                return Ok(Some(path.clone()));
            }
            (Err(error), _) if error.may_pass() => {
                if since.elapsed() > PATIENCE && !std::mem::replace(&mut said, true) {
                    chat(&format!(
                        "an input waits to be put ({error}); trying again …"
                    ));
                }
                tokio::time::sleep(PAUSE).await;
            }
            (Err(error), _) => return Err(Trouble::Local(error.to_string())),
        }
    }
}

fn unchanged(input: &LocalInput, changed: &Changed) -> Result<InputRef, String> {
    let is_changed = |(_, place): &&(Hash, BlobSource)| matches!(place, BlobSource::File(path) if changed.0.contains(path));
    match input.blobs.iter().find(is_changed) {
        Some((_, BlobSource::File(path))) => Err(format!(
            "{} changed while it was uploaded, twice; add the task when nobody writes there",
            path.display()
        )),
        _ => Ok(input.input),
    }
}

/// The refusal of a task whose input `path` cannot be had.
pub fn refusal(path: &str, why: &str) -> Refusal {
    let field = format!("inputs.{path}");
    Refusal::new(RefusalCode::InvalidValue, format!("field `{field}`: {why}")).at(field)
}

/// Puts what `--input` names; what the task names in its place.
pub async fn of_options(
    target: Target,
    wanted: &[(FilePath, PathBuf)],
) -> Result<BTreeMap<FilePath, InputRef>, Trouble> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let paths: BTreeSet<PathBuf> = wanted.iter().map(|(_, file)| file.clone()).collect();
    let settled = Inputs::new(target).settle(&paths).await?;
    let mut inputs = BTreeMap::new();
    for (path, file) in wanted {
        let input = settled
            .get(file)
            .cloned()
            .unwrap_or_else(|| Err("it was not read".into()));
        let input = input.map_err(|why| Trouble::from(refusal(path.as_str(), &why)))?;
        if inputs.insert(path.clone(), input).is_some() {
            return Err(Trouble::Usage(format!(
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
