//! The table of modules: versions seen, the one that the next attempt takes, what is held back.

use super::Engine;
use crate::inbox::Seen;
use crate::interfaces::Components;
use crate::record::{ModuleRecord, Record, VersionRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::Event;
use taskmaster_protocol::message::{Announce, ModuleVersion};
use taskmaster_protocol::shape::{ModuleState, ModuleView};
use taskmaster_protocol::{EventKind, FromMaster, Hash, ModuleName, ModuleRef, Refusal, RefusalCode, near};

/// Versions of one module that are remembered. The oldest that is neither in use nor held back is forgotten first.
const VERSIONS_MAX: usize = 64;

/// Tasks of a module of this size are sent when a runner has compiled it, or has failed to: until then they would hold
/// slots in which others could run. A smaller one is compiled within about a second.
const COMPILED_FIRST_BYTES: u64 = 1 << 20;

/// Versions of which it is remembered who compiled them; far more than are in use.
const COMPILED_MAX: usize = 4_096;

/// Modules by name.
#[derive(Debug, Default)]
pub(super) struct Modules {
    records: BTreeMap<ModuleName, ModuleRecord>,
    /// Runners that have compiled a version, since this start, and how long it took, µs; 0 where they had it already.
    compiled: BTreeMap<Hash, BTreeMap<Arc<str>, u64>>,
    /// Versions of which a runner has told how its compilation ended, since this start.
    tried: BTreeSet<Hash>,
    /// What others are told of components.
    components: Components,
}

impl Modules {
    pub fn restored(records: Vec<(ModuleName, ModuleRecord)>) -> Modules {
        let components = Components::default();
        records.iter().for_each(|(name, record)| components.changed(name, record));
        Modules {
            records: records.into_iter().collect(),
            compiled: BTreeMap::new(),
            tried: BTreeSet::new(),
            components,
        }
    }

    pub fn get(&self, name: &ModuleName) -> Option<&ModuleRecord> {
        self.records.get(name)
    }

    /// The name as it is held here.
    pub fn name(&self, name: &ModuleName) -> Option<&ModuleName> {
        self.records.get_key_value(name).map(|(name, _)| name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ModuleName, &ModuleRecord)> {
        self.records.iter()
    }

    /// Whether its tasks can be sent.
    pub fn is_open(&self, name: &ModuleName) -> bool {
        self.records.get(name).is_some_and(|record| {
            let current = record.versions.iter().find(|version| Some(version.version) == record.current);
            let is_ready =
                |version: &VersionRecord| version.bytes < COMPILED_FIRST_BYTES || self.tried.contains(&version.version);
            record.present && !record.paused && current.is_some_and(is_ready)
        })
    }

    /// A runner has told how the compilation of a version ended. The names whose tasks can be sent from now on.
    pub fn tried(&mut self, version: Hash) -> Vec<ModuleName> {
        if self.tried.len() > COMPILED_MAX {
            let known: BTreeSet<Hash> = self.records.values().flat_map(|r| &r.versions).map(|v| v.version).collect();
            self.tried.retain(|version| known.contains(version));
        }
        if !self.tried.insert(version) {
            return Vec::new();
        }
        let of_it = self.records.iter().filter(|(_, record)| record.current == Some(version));
        of_it.map(|(name, _)| name.clone()).filter(|name| self.is_open(name)).collect()
    }

    /// The version that an attempt takes: the pinned one, or the present one.
    pub fn version(&self, name: &ModuleName, pin: Option<&str>) -> Option<Hash> {
        let record = self.records.get(name)?;
        match pin {
            None => record.current,
            Some(pin) => pinned(record, pin).map(|version| version.version),
        }
    }

    /// The versions of components, for who checks params.
    pub fn components(&self) -> Components {
        self.components.clone()
    }

    /// What runners should have ready.
    pub fn announced(&self) -> Vec<Announce> {
        self.records
            .iter()
            .filter(|(_, record)| record.present)
            .filter_map(|(name, record)| announce(name, record))
            .collect()
    }

    pub fn compiled(&mut self, version: Hash, runner: Arc<str>, compile_us: u64) {
        if self.compiled.len() > COMPILED_MAX {
            let known: BTreeSet<Hash> = self.records.values().flat_map(|r| &r.versions).map(|v| v.version).collect();
            self.compiled.retain(|version, _| known.contains(version));
        }
        let taken = self.compiled.entry(version).or_default().entry(runner).or_default();
        // After a reconnect it says that it has the module; how long that took once stays true.
        *taken = compile_us.max(*taken);
    }

    /// As `modules list` shows it; `connected`: whether any runner is there that could compile.
    pub fn view(&self, name: &ModuleName, record: &ModuleRecord, connected: bool) -> ModuleView {
        let compiled = |version: &Hash| self.compiled.get(version).is_some_and(|runners| !runners.is_empty());
        let newest_is_held = record.versions.last().is_some_and(|version| version.held);
        let state = match (record.current, record.present) {
            (None, _) if record.error.is_some() => ModuleState::Rejected,
            (_, false) => ModuleState::Removed,
            (None, true) => ModuleState::Waiting,
            _ if record.paused => ModuleState::Paused,
            (Some(_), true) if newest_is_held => ModuleState::Waiting,
            (Some(version), true) if compiled(&version) || !connected => ModuleState::Ready,
            (Some(_), true) => ModuleState::Compiling,
        };
        let kind =
            record.versions.iter().find(|version| Some(version.version) == record.current).map(|version| version.kind);
        ModuleView {
            name: name.clone(),
            version: record.current,
            kind,
            state,
            error: record.error.clone(),
            versions: Vec::new(),
            check: None,
        }
    }

    /// Its versions, newest first; `attempts` of each are running now.
    pub fn versions(&self, record: &ModuleRecord, attempts: impl Fn(&Hash) -> u64) -> Vec<ModuleVersion> {
        let compiled = |version: &Hash| self.compiled.get(version).into_iter().flatten();
        let version = |version: &VersionRecord| ModuleVersion {
            version: version.version,
            bytes: version.bytes,
            seen: version.seen,
            held: version.held,
            runners: compiled(&version.version).map(|(name, _)| name.to_string()).collect(),
            compile_us: compiled(&version.version).map(|(_, us)| *us).max().filter(|us| *us > 0),
            attempts: attempts(&version.version),
        };
        record.versions.iter().rev().map(version).collect()
    }
}

fn pinned<'a>(record: &'a ModuleRecord, pin: &str) -> Option<&'a VersionRecord> {
    record.versions.iter().rev().find(|version| version.version.to_string().starts_with(pin))
}

fn announce(name: &ModuleName, record: &ModuleRecord) -> Option<Announce> {
    let version = record.versions.iter().find(|version| Some(version.version) == record.current)?;
    Some(Announce { name: name.clone(), version: version.version, kind: version.kind, bytes: version.bytes })
}

/// What a sound file changes in a module's record, and the event that tells of it.
fn take_sound(record: &mut ModuleRecord, seen: VersionRecord) -> Option<EventKind> {
    let (was_there, last, error) = (record.present, record.current, record.error.take());
    record.present = true;
    let known = record.versions.iter().position(|version| version.version == seen.version);
    let version = match known {
        Some(index) => record.versions.remove(index),
        None => seen,
    };
    if !version.held {
        record.current = Some(version.version);
    }
    record.versions.push(version);
    if record.versions.len() > VERSIONS_MAX {
        let current = record.current;
        let old = record.versions.iter().position(|version| !version.held && Some(version.version) != current);
        record.versions.remove(old.unwrap_or(0));
    }
    match (was_there && last.is_some(), record.current != last) {
        (false, _) => Some(EventKind::ModuleAdded),
        (true, true) => Some(EventKind::ModuleUpdated),
        (true, false) => error.map(|_| EventKind::ModuleUpdated),
    }
}

impl Engine {
    /// The folder has something new under a name.
    pub(super) fn module_seen(&mut self, name: ModuleName, seen: Seen) {
        let mut record = self.modules.records.get(&name).cloned().unwrap_or_default();
        let last = record.clone();
        let event = match seen {
            Seen::Sound { version, kind, bytes } => {
                take_sound(&mut record, VersionRecord { version, kind, bytes, seen: self.now.wall, held: false })
            }
            Seen::Unsound { error } if record.error.as_ref() == Some(&error) => None,
            Seen::Unsound { error } => {
                record.error = Some(error);
                Some(EventKind::ModuleRejected)
            }
            Seen::Gone => {
                let was_there = record.present || record.error.is_some();
                (record.present, record.error) = (false, None);
                was_there.then_some(EventKind::ModuleRemoved)
            }
        };
        if record != last {
            self.module_changed(name, record, event);
        }
    }

    fn module_changed(&mut self, name: ModuleName, record: ModuleRecord, event: Option<EventKind>) {
        let last = self.modules.records.insert(name.clone(), record.clone());
        self.modules.components.changed(&name, &record);
        if last.and_then(|last| last.current) != record.current
            && let Some(announce) = announce(&name, &record)
        {
            let runners: Vec<_> =
                self.sessions.iter().filter(|(_, session)| session.joined).map(|(no, _)| *no).collect();
            runners.into_iter().for_each(|runner| self.say(runner, FromMaster::Announce(vec![announce.clone()])));
        }
        let open = self.modules.is_open(&name);
        self.store(Record::Module { name: name.clone(), event, record: Box::new(record) });
        self.tell(Event::ModuleOpened { module: name, open });
    }

    /// Whether a task may name it.
    pub(super) fn usable_module(&self, wanted: &ModuleRef) -> Result<(), Refusal> {
        let unknown = |text: String| Err(Refusal::new(RefusalCode::UnknownModule, text).at("module"));
        let name = &wanted.name;
        match self.modules.get(name) {
            Some(record) if record.current.is_none() && record.error.is_some() => {
                let why = record.error.as_deref().unwrap_or_default();
                unknown(format!("the module `{name}` was rejected: {why}"))
            }
            Some(record) if record.present => match &wanted.pin {
                Some(pin) if pinned(record, pin).is_none() => unknown(format!(
                    "the module `{name}` has no version that begins with {pin}; `modules show {name}` lists them"
                )),
                _ => Ok(()),
            },
            _ => {
                let known = self.modules.iter().filter(|(_, record)| record.present).map(|(name, _)| name.as_str());
                unknown(format!(
                    "unknown module `{name}`{} (looked in the task folder)",
                    near::hint(name.as_str(), known)
                ))
            }
        }
    }

    pub(super) fn pause_module(&mut self, name: ModuleName, paused: bool) -> Result<(), Refusal> {
        let mut record = self.module_record(&name)?;
        if record.paused != paused {
            record.paused = paused;
            self.module_changed(name, record, None);
        }
        Ok(())
    }

    /// Goes back to an earlier version and holds back the present one.
    pub(super) fn rollback_module(&mut self, name: ModuleName, to: Option<String>) -> Result<Hash, Refusal> {
        let mut record = self.module_record(&name)?;
        let present = record.current;
        let earlier = |version: &&VersionRecord| Some(version.version) != present && !version.held;
        let wanted = match &to {
            Some(pin) => pinned(&record, pin).filter(|version| Some(version.version) != present),
            None => record.versions.iter().rev().find(earlier),
        };
        let Some(target) = wanted.map(|version| version.version) else {
            let text = format!("the module `{name}` has no such earlier version; `modules show {name}` lists them");
            return Err(Refusal::new(RefusalCode::WrongState, text));
        };
        for version in &mut record.versions {
            version.held = (version.held || Some(version.version) == present) && version.version != target;
        }
        record.current = Some(target);
        self.module_changed(name, record, Some(EventKind::ModuleUpdated));
        Ok(target)
    }

    /// Lets a version that was held back be taken again.
    pub(super) fn approve_module(&mut self, name: ModuleName, wanted: Option<String>) -> Result<Hash, Refusal> {
        let mut record = self.module_record(&name)?;
        let fits = |version: &VersionRecord| {
            version.held && wanted.as_ref().is_none_or(|pin| version.version.to_string().starts_with(pin.as_str()))
        };
        let Some(index) = record.versions.iter().rposition(fits) else {
            let text = format!("no version of the module `{name}` is held back");
            return Err(Refusal::new(RefusalCode::WrongState, text));
        };
        record.versions[index].held = false;
        let version = record.versions[index].version;
        // The newest file is what the folder holds; an older one is only allowed again.
        if index + 1 == record.versions.len() {
            record.current = Some(version);
        }
        self.module_changed(name, record, Some(EventKind::ModuleUpdated));
        Ok(version)
    }

    fn module_record(&self, name: &ModuleName) -> Result<ModuleRecord, Refusal> {
        self.modules.get(name).cloned().ok_or_else(|| {
            let known = self.modules.iter().map(|(name, _)| name.as_str());
            let text = format!("unknown module `{name}`{}", near::hint(name.as_str(), known));
            Refusal::new(RefusalCode::UnknownModule, text)
        })
    }

    /// Attempts of a version that runners hold now.
    pub(super) fn attempts_of(&self, version: &Hash) -> u64 {
        let of = |live: &&super::held::Live| {
            live.ended.is_none() && live.last.as_ref().is_some_and(|last| last.version == Some(*version))
        };
        self.held.iter().filter(of).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{ModuleKind, Wall};

    fn seen(byte: u8) -> VersionRecord {
        VersionRecord { version: Hash([byte; 32]), kind: ModuleKind::Command, bytes: 1, seen: Wall(0), held: false }
    }

    #[test]
    fn a_held_version_is_not_taken_again_when_its_file_returns() {
        let mut record = ModuleRecord::default();
        assert_eq!(take_sound(&mut record, seen(1)), Some(EventKind::ModuleAdded));
        assert_eq!(take_sound(&mut record, seen(2)), Some(EventKind::ModuleUpdated));
        assert_eq!(take_sound(&mut record, seen(2)), None);
        record.versions[1].held = true;
        record.current = Some(Hash([1; 32]));
        assert_eq!(take_sound(&mut record, seen(2)), None);
        assert_eq!(record.current, Some(Hash([1; 32])));
        assert_eq!(take_sound(&mut record, seen(3)), Some(EventKind::ModuleUpdated));
        assert_eq!(record.current, Some(Hash([3; 32])));
    }
}
