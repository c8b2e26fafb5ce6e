//! What stands in the folder, name by name, and what the engine was told of it.

use super::file::{SETTLED, Stamp, Watched};
use super::list::{self, List};
use super::manifests::{self, Manifests, Stamp as ManifestStamp};
use super::{Found, Known};
use crate::handle::MasterHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use taskmaster_blobs::Blobs;
use taskmaster_engine::inbox::{Input, Seen};
use taskmaster_protocol::{Capabilities, Hash, ModuleName};
use tokio::sync::oneshot;

/// How long a look waits for a file that is being written.
const LOOK: Duration = Duration::from_millis(300);

/// The two kinds of file; of a name that has both, the first counts.
const EXTENSIONS: [&str; 2] = ["wasm", "wat"];

/// The folder's state, owned by the watching thread.
pub(super) struct Shelf {
    folder: Arc<Path>,
    blobs: Blobs,
    handle: MasterHandle,
    known: Arc<RwLock<Known>>,
    manifests: Arc<Manifests>,
    /// The state of each module's manifest, and since when it is so.
    states: BTreeMap<ModuleName, (Option<ManifestStamp>, Instant)>,
    /// Modules whose manifest changed just now: what it asks for is not certain yet.
    unsettled: BTreeSet<ModuleName>,
    /// Which modules are approved; `None`: all.
    list: Option<List>,
    /// By module, then in the order of [`EXTENSIONS`].
    files: BTreeMap<ModuleName, [Option<Watched>; 2]>,
    /// What the engine was told last.
    told: BTreeMap<ModuleName, Seen>,
    /// Names with both kinds of file, of which that was told.
    doubled: BTreeSet<ModuleName>,
    /// Names that the engine has and of which nothing was found yet.
    expected: BTreeSet<ModuleName>,
    /// Files whose names cannot be modules; warned of once.
    misnamed: BTreeSet<String>,
    looks: Vec<Look>,
    /// Why the folder could not be read, when it could not.
    trouble: Option<String>,
}

struct Look {
    name: ModuleName,
    /// This version only.
    version: Option<Hash>,
    until: Instant,
    reply: oneshot::Sender<Found>,
    known: Option<oneshot::Receiver<()>>,
}

impl Shelf {
    pub(super) fn new(
        folder: Arc<Path>,
        blobs: Blobs,
        handle: MasterHandle,
        known: Arc<RwLock<Known>>,
        (expected, manifests, list): (Vec<ModuleName>, Arc<Manifests>, Option<List>),
    ) -> Shelf {
        Shelf {
            folder,
            blobs,
            handle,
            known,
            manifests,
            states: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            list,
            files: BTreeMap::new(),
            told: BTreeMap::new(),
            doubled: BTreeSet::new(),
            expected: expected.into_iter().collect(),
            misnamed: BTreeSet::new(),
            looks: Vec::new(),
            trouble: None,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn look(
        &mut self,
        name: ModuleName,
        version: Option<Hash>,
        reply: oneshot::Sender<Found>,
        now: Instant,
    ) {
        self.looks.push(Look {
            name,
            version,
            until: now + LOOK,
            reply,
            known: None,
        });
    }

    /// Whether the next sweep should come soon.
    pub(super) fn is_restless(&self) -> bool {
        let lists = self.list.as_ref().is_some_and(List::is_restless);
        lists
            || !self.unsettled.is_empty()
            || !self.looks.is_empty()
            || self
                .files
                .values()
                .flatten()
                .flatten()
                .any(Watched::is_restless)
    }

    /// Goes through the folder once. The files of `closed` are whole: who wrote them has closed
    /// them.
    pub(super) fn sweep(&mut self, closed: &BTreeSet<PathBuf>, now: Instant) {
        if let Some(list) = self.list.as_mut().and_then(|list| list.news(now)) {
            self.handle.tell(Input::Approved(list));
        }
        match self.list() {
            Ok(listing) => {
                self.trouble = None;
                self.note(listing, now);
            }
            Err(error) => {
                // Not every module removed: a network share may be away for a moment.
                let text = error.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    tracing::warn!(folder = %self.folder.display(), "the task folder cannot be read: {text}");
                }
                self.trouble = Some(text);
                self.answer(now);
                return;
            }
        }
        self.read_due(closed, now);
        let names: BTreeSet<ModuleName> =
            self.files.keys().chain(&self.expected).cloned().collect();
        for name in names {
            self.settle(&name, now);
        }
        self.files
            .retain(|_, files| files.iter().any(Option::is_some));
        self.answer(now);
    }

    fn list(&mut self) -> std::io::Result<Vec<(ModuleName, usize, Stamp)>> {
        let mut listing = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let file = entry?.file_name();
            let Some((stem, kind)) = file.to_str().and_then(split) else {
                continue;
            };
            // Follows a link; one that leads nowhere is no file.
            let Ok(metadata) = std::fs::metadata(self.folder.join(&file)) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            match ModuleName::new(stem) {
                Ok(name) => listing.push((name, kind, Stamp::of(&metadata))),
                Err(error) => {
                    let file = file.to_string_lossy().into_owned();
                    if self.misnamed.insert(file.clone()) {
                        tracing::warn!(file, "not a module: {error}; rename the file");
                    }
                }
            }
        }
        Ok(listing)
    }

    fn note(&mut self, listing: Vec<(ModuleName, usize, Stamp)>, now: Instant) {
        let mut present: BTreeSet<(ModuleName, usize)> = BTreeSet::new();
        for (name, kind, stamp) in listing {
            let files = self.files.entry(name.clone()).or_default();
            if let Some(slot) = files.get_mut(kind) {
                slot.get_or_insert_with(|| Watched::new(stamp, now))
                    .seen(stamp, now);
            }
            present.insert((name, kind));
        }
        for (name, files) in &mut self.files {
            for (kind, slot) in files.iter_mut().enumerate() {
                let is_gone = |file: &mut Watched| {
                    !present.contains(&(name.clone(), kind)) && file.missed(now)
                };
                if slot.as_mut().is_some_and(is_gone) {
                    *slot = None;
                }
            }
        }
    }

    fn read_due(&mut self, closed: &BTreeSet<PathBuf>, now: Instant) {
        for (name, files) in &mut self.files {
            for (file, extension) in files.iter_mut().zip(EXTENSIONS) {
                let Some(file) = file else { continue };
                let path = self.folder.join(format!("{name}.{extension}"));
                let looked = !file.is_judged() && self.looks.iter().any(|look| look.name == *name);
                if file.is_due(now, looked || closed.contains(&path)) {
                    file.read(&path, name.as_str(), &self.blobs, now);
                }
            }
        }
    }

    /// Decides what a name is and tells it where that is new.
    fn settle(&mut self, name: &ModuleName, now: Instant) {
        let files = self
            .files
            .get(name)
            .map_or([None, None], |files| files.each_ref().map(Option::as_ref));
        let (seen, doubled) = match files {
            [None, None] => (Some(Seen::Gone), false),
            [Some(first), second] => {
                // Not at once: a person who replaces the one by the other has both for a moment.
                let quiet = |file: &Watched| file.quiet(now) >= SETTLED;
                (
                    first.verdict().cloned(),
                    quiet(first) && second.is_some_and(quiet),
                )
            }
            [None, Some(second)] => (second.verdict().cloned(), false),
        };
        let both = matches!(files, [Some(_), Some(_)]);
        if !both {
            self.doubled.remove(name);
        }
        let Some(seen) = seen.and_then(|seen| self.with_wishes(name, seen, now)) else {
            return;
        };
        if doubled && self.doubled.insert(name.clone()) {
            let error = format!("{name}.wat: {name}.wasm has the same name; rename one");
            tracing::warn!("rejected {error}");
            // A good version stays in use; it is told again after the complaint.
            self.tell(name, Seen::Unsound { error });
        }
        if self.told.get(name) != Some(&seen) && (seen != Seen::Gone || self.is_known(name)) {
            self.tell(name, seen);
        }
    }

    /// With what a sound file's manifest asks for. While the manifest may be half written, what was
    /// told before counts; a module of which nothing was told waits so long.
    fn with_wishes(&mut self, name: &ModuleName, seen: Seen, now: Instant) -> Option<Seen> {
        let Seen::Sound {
            version,
            kind,
            bytes,
            wants: _,
        } = seen
        else {
            self.unsettled.remove(name);
            return Some(seen);
        };
        let told = match self.told.get(name) {
            Some(Seen::Sound { wants, .. }) => Some(wants.clone()),
            _ => None,
        };
        if !self.is_settled(name, now) {
            self.unsettled.insert(name.clone());
            return told.map(|wants| Seen::Sound {
                version,
                kind,
                bytes,
                wants,
            });
        }
        self.unsettled.remove(name);
        let wants = match self.manifests.of(&self.folder, name) {
            Ok(manifest) => {
                let wants = manifest
                    .map(|manifest| manifest.capabilities.clone())
                    .unwrap_or_default();
                Some(Arc::<Capabilities>::new(wants))
            }
            // What was told before still counts; nothing is said, where this is the first that is
            // told of it.
            Err(_) => told.flatten(),
        };
        Some(Seen::Sound {
            version,
            kind,
            bytes,
            wants,
        })
    }

    /// Whether a module's manifest, or that there is none, has been so for a while.
    fn is_settled(&mut self, name: &ModuleName, now: Instant) -> bool {
        let state = manifests::state(&self.folder, name);
        let (stamp, is_old) = state.map_or((None, false), |(stamp, is_old)| (Some(stamp), is_old));
        match self.states.get(name) {
            Some((known, since)) if *known == stamp => now.duration_since(*since) >= list::SETTLED,
            Some(_) => {
                self.states.insert(name.clone(), (stamp, now));
                is_old
            }
            // At the first look, a module without a manifest need not wait for one.
            None => {
                let is_settled = is_old || stamp.is_none();
                let since = if is_settled {
                    now.checked_sub(list::SETTLED).unwrap_or(now)
                } else {
                    now
                };
                self.states.insert(name.clone(), (stamp, since));
                is_settled
            }
        }
    }

    fn is_known(&self, name: &ModuleName) -> bool {
        self.expected.contains(name) || self.told.contains_key(name)
    }

    fn tell(&mut self, name: &ModuleName, seen: Seen) {
        let (is_sound, is_gone) = (
            matches!(seen, Seen::Sound { .. }),
            matches!(seen, Seen::Gone),
        );
        if is_gone {
            self.known
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(name);
        }
        self.expected.remove(name);
        let (sender, receiver) = oneshot::channel();
        if let Some(look) = self.looks.iter_mut().find(|look| look.name == *name) {
            look.known = Some(receiver);
        }
        match seen {
            Seen::Gone => {
                self.told.remove(name);
                self.states.remove(name);
            }
            ref other => drop(self.told.insert(name.clone(), other.clone())),
        }
        self.handle.tell(Input::Module {
            name: name.clone(),
            seen,
            known: Some(sender),
        });
        // Only now: a task of it that is let through must reach the engine behind the module.
        if is_sound {
            self.known
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name.clone());
        }
    }

    fn answer(&mut self, now: Instant) {
        for look in std::mem::take(&mut self.looks) {
            let files = self.files.get(&look.name);
            let open = |file: &Watched| !file.is_judged() || file.verdict().is_none();
            let undecided = files.is_some_and(|files| files.iter().flatten().any(open))
                || self.unsettled.contains(&look.name);
            let wanted = |version: &Hash| look.version.is_none_or(|wanted| wanted == *version);
            if matches!(self.told.get(&look.name), Some(Seen::Sound { version, .. }) if wanted(version))
            {
                let _ = look.reply.send(Found::Yes(look.known));
            } else if undecided && now < look.until && self.trouble.is_none() {
                self.looks.push(look);
            } else {
                let _ = look.reply.send(Found::No);
            }
        }
    }
}

/// The stem and the kind of a file that is meant as a module.
fn split(file: &str) -> Option<(&str, usize)> {
    let (stem, extension) = file.rsplit_once('.')?;
    let kind = EXTENSIONS.iter().position(|known| *known == extension)?;
    (!file.starts_with('.') && !stem.is_empty()).then_some((stem, kind))
}
