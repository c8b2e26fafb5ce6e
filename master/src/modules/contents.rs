//! What is in the folder, name by name, and what the engine was told of it.

use super::approved::ApprovedList;
use super::file::{FINAL_AFTER, WatchedFile};
use super::looks::{LookedUp, Looks};
use super::manifests::Manifests;
use super::stamp::WatchedFileStamp;
use super::sweeps::Sweeps;
use super::wants::WantedCapabilities;
use super::{KnownNames, LookRequest};
use crate::handle::MasterHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use taskmaster_blobs::Blobs;
use taskmaster_engine::inbox::{Input, ModuleFile};
use taskmaster_protocol::ModuleName;
use tokio::sync::oneshot;

/// The two kinds of file. Of a name that has both, the first counts.
const EXTENSIONS: [&str; 2] = ["wasm", "wat"];

/// Files whose inspection takes long that are inspected at a time. The bytes of each are in memory.
const INSPECTED_MAX: usize = 4;

/// The files of one module, in the order of [`EXTENSIONS`].
type ModuleFiles = [Option<WatchedFile>; 2];

/// A file that a sweep saw.
struct FolderEntry {
    module: ModuleName,
    /// Its index in [`EXTENSIONS`].
    kind: usize,
    stamp: WatchedFileStamp,
}

/// What a folder is watched with.
pub(super) struct ContentsConfig {
    pub(super) folder: Arc<Path>,
    pub(super) blobs: Blobs,
    pub(super) handle: MasterHandle,
    pub(super) known: KnownNames,
    /// Names that the engine knows.
    pub(super) expected: Vec<ModuleName>,
    pub(super) manifests: Arc<Manifests>,
    /// The list of approved modules. `None`: all modules may be used.
    pub(super) approved: Option<ApprovedList>,
    /// Told of every look.
    pub(super) sweeps: Sweeps,
}

/// What is in the folder. The watching thread owns it.
pub(super) struct FolderContents {
    folder: Arc<Path>,
    blobs: Blobs,
    handle: MasterHandle,
    known: KnownNames,
    wants: WantedCapabilities,
    approved: Option<ApprovedList>,
    files: BTreeMap<ModuleName, ModuleFiles>,
    /// What the engine was told last.
    told: BTreeMap<ModuleName, ModuleFile>,
    /// Names with both kinds of file of which the engine was told.
    doubled: BTreeSet<ModuleName>,
    /// Names that the engine knows and of which nothing was found yet.
    expected: BTreeSet<ModuleName>,
    /// Files whose names cannot be modules. Each is logged once.
    misnamed: BTreeSet<String>,
    looks: Looks,
    sweeps: Sweeps,
}

impl FolderContents {
    pub(super) fn new(config: ContentsConfig) -> FolderContents {
        FolderContents {
            wants: WantedCapabilities::new(config.folder.clone(), config.manifests),
            folder: config.folder,
            blobs: config.blobs,
            handle: config.handle,
            known: config.known,
            approved: config.approved,
            files: BTreeMap::new(),
            told: BTreeMap::new(),
            doubled: BTreeSet::new(),
            expected: config.expected.into_iter().collect(),
            misnamed: BTreeSet::new(),
            looks: Looks::default(),
            sweeps: config.sweeps,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn look(&mut self, request: LookRequest, now: Instant) {
        self.looks.add(request, now);
    }

    /// Whether the next sweep should come soon.
    pub(super) fn is_restless(&self) -> bool {
        let mut files = self.files.values().flatten().flatten();
        self.approved
            .as_ref()
            .is_some_and(ApprovedList::is_restless)
            || self.wants.is_restless()
            || !self.looks.is_empty()
            || files.any(WatchedFile::is_restless)
    }

    /// Goes through the folder once. The files of `closed` are whole, because whoever wrote them
    /// has closed them.
    pub(super) fn sweep(&mut self, closed: &BTreeSet<PathBuf>, now: Instant) {
        let approved = self.approved.as_mut();
        if let Some(list) = approved.and_then(|approved| approved.news(now)) {
            self.handle.tell(Input::Approved(list));
        }
        match self.list() {
            Ok(files) => {
                self.note(&files, now);
                self.read_due(closed, now);
                self.tell_news(now);
                if self.sweeps.ended(None) {
                    let folder = self.folder.display();
                    tracing::info!(%folder, "the task folder can be read again");
                }
            }
            // No module counts as removed: a network share may be away for a moment.
            Err(error) => self.note_error(&error),
        }
        self.answer_looks(now);
    }

    fn note_error(&mut self, error: &io::Error) {
        if self.sweeps.ended(Some(error.to_string())) {
            let folder = self.folder.display();
            tracing::warn!(%folder, "the task folder cannot be read, and changes there do not count: {error}");
        }
    }

    fn list(&mut self) -> io::Result<Vec<FolderEntry>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let file = entry?.file_name();
            let Some((stem, kind)) = file.to_str().and_then(split) else {
                continue;
            };
            // This follows a link. A link that leads nowhere is no file.
            let Ok(metadata) = std::fs::metadata(self.folder.join(&file)) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            match ModuleName::new(stem) {
                Ok(module) => files.push(FolderEntry {
                    module,
                    kind,
                    stamp: WatchedFileStamp::of(&metadata),
                }),
                Err(error) => {
                    let file = file.to_string_lossy().into_owned();
                    if self.misnamed.insert(file.clone()) {
                        tracing::warn!(file, "not a module: {error}; rename the file");
                    }
                }
            }
        }
        Ok(files)
    }

    fn note(&mut self, listed: &[FolderEntry], now: Instant) {
        let mut present: BTreeSet<(&ModuleName, usize)> = BTreeSet::new();
        for file in listed {
            present.insert((&file.module, file.kind));
            let files = self.files.entry(file.module.clone()).or_default();
            if let Some(slot) = files.get_mut(file.kind) {
                slot.get_or_insert_with(|| WatchedFile::new(file.stamp, now))
                    .see(file.stamp, now);
            }
        }
        for (name, files) in &mut self.files {
            for (kind, slot) in files.iter_mut().enumerate() {
                if let Some(file) = slot
                    && !present.contains(&(name, kind))
                    && file.miss(now)
                {
                    *slot = None;
                }
            }
        }
    }

    fn read_due(&mut self, closed: &BTreeSet<PathBuf>, now: Instant) {
        let all = self.files.values().flatten().flatten();
        let mut inspected = all.filter(|file| file.is_being_inspected()).count();
        for (name, files) in &mut self.files {
            for (file, extension) in files.iter_mut().zip(EXTENSIONS) {
                let Some(file) = file else { continue };
                let path = self.folder.join(format!("{name}.{extension}"));
                if file.is_being_inspected() {
                    file.look_again(&path);
                    continue;
                }
                if inspected >= INSPECTED_MAX {
                    continue;
                }
                let is_looked_for = !file.is_read() && self.looks.is_wanted(name);
                if file.is_due(now, is_looked_for || closed.contains(&path)) {
                    file.read(&path, name.as_str(), &self.blobs, now);
                    inspected += usize::from(file.is_being_inspected());
                }
            }
        }
    }

    /// Tells the engine of every name that is not what it was told last.
    fn tell_news(&mut self, now: Instant) {
        let names: BTreeSet<ModuleName> =
            self.files.keys().chain(&self.expected).cloned().collect();
        for name in names {
            self.tell_if_new(&name, now);
        }
        self.files
            .retain(|_, files| files.iter().any(Option::is_some));
    }

    fn tell_if_new(&mut self, name: &ModuleName, now: Instant) {
        let files = self.files.get(name);
        let [wasm, wat] = files.map_or([None, None], |files| files.each_ref().map(Option::as_ref));
        let is_double = wasm.is_some() && wat.is_some();
        // Not at once: a person who replaces one kind by the other has both for a moment.
        let is_quiet = |file: &WatchedFile| file.unchanged_for(now) >= FINAL_AFTER;
        let is_double_for_long = wasm.is_some_and(is_quiet) && wat.is_some_and(is_quiet);
        let seen = match wasm.or(wat) {
            Some(file) => file.verdict().cloned(),
            None => Some(ModuleFile::Gone),
        };
        if !is_double {
            self.doubled.remove(name);
        }

        let told = self.told.get(name);
        let seen = seen.and_then(|seen| self.wants.complete(name, seen, told, now));
        let Some(seen) = seen else {
            return;
        };
        if is_double_for_long && self.doubled.insert(name.clone()) {
            let error = format!("{name}.wat: {name}.wasm has the same name; rename one");
            tracing::warn!("rejected {error}");
            // A good version stays in use. The engine is told of it again after the complaint.
            self.tell(name, ModuleFile::Unsound { error });
        }
        let is_known = self.expected.contains(name) || self.told.contains_key(name);
        if self.told.get(name) != Some(&seen) && (seen != ModuleFile::Gone || is_known) {
            self.tell(name, seen);
        }
    }

    fn tell(&mut self, name: &ModuleName, seen: ModuleFile) {
        self.expected.remove(name);
        let is_sound = matches!(seen, ModuleFile::Sound { .. });
        if seen == ModuleFile::Gone {
            self.known.remove(name);
            self.told.remove(name);
            self.wants.forget(name);
        } else {
            self.told.insert(name.clone(), seen.clone());
        }
        let (sender, receiver) = oneshot::channel();
        self.looks.told(name, receiver);
        self.handle.tell(Input::Module {
            name: name.clone(),
            seen,
            known: Some(sender),
        });
        // Only now: a task of this module that is let through must reach the engine behind the
        // module.
        if is_sound {
            self.known.insert(name.clone());
        }
    }

    fn answer_looks(&mut self, now: Instant) {
        let is_readable = self.sweeps.is_readable();
        self.looks.answer(now, |name| {
            let sound = match self.told.get(name) {
                Some(ModuleFile::Sound { version, .. }) => Some(*version),
                Some(ModuleFile::Unsound { .. } | ModuleFile::Gone) | None => None,
            };
            let is_open = |file: &WatchedFile| !file.is_read() || file.verdict().is_none();
            let files = self.files.get(name);
            let is_file_open = files.is_some_and(|files| files.iter().flatten().any(is_open));
            let mut inspected = files.into_iter().flatten().flatten();
            LookedUp {
                sound,
                is_inspected: inspected.any(WatchedFile::is_being_inspected),
                is_undecided: is_readable && (is_file_open || self.wants.is_uncertain(name)),
            }
        });
    }
}

/// The stem and the kind of a file that is meant as a module.
fn split(file: &str) -> Option<(&str, usize)> {
    let (stem, extension) = file.rsplit_once('.')?;
    let kind = EXTENSIONS.iter().position(|known| *known == extension)?;
    (!file.starts_with('.') && !stem.is_empty()).then_some((stem, kind))
}
