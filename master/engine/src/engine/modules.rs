//! The table of modules: versions seen, the one that the next attempt takes, what is held back.

use super::Engine;
use crate::components::Components;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::Event;
use taskmaster_protocol::message::{Announce, ModuleVersion};
use taskmaster_protocol::shape::{ModuleState, ModuleView};
use taskmaster_protocol::{
    Capabilities, EventKind, FromMaster, Hash, ModuleName, ModuleRef, Refusal, RefusalCode, near,
};
use taskmaster_store::record::{ModuleRecord, Record, Rights, VersionRecord};

/// Versions of one module that are remembered. The oldest that is neither in use nor held back is
/// forgotten first.
const VERSIONS_MAX: usize = 64;

/// Tasks of a module of this size are sent when a runner has compiled it, or has failed to: until
/// then they would hold slots in which others could run. A smaller one is compiled within about a
/// second.
const COMPILED_FIRST_BYTES: u64 = 1 << 20;

/// Versions of which it is remembered who compiled them; far more than are in use.
const COMPILED_MAX: usize = 4_096;

/// Modules by name.
#[derive(Debug, Default)]
pub(super) struct Modules {
    pub(super) records: BTreeMap<ModuleName, ModuleRecord>,
    /// What they may reach, of those of which anything is known.
    pub(super) rights: BTreeMap<ModuleName, Rights>,
    /// The only versions that may be used; `None`: there is no such list. Not durable: the folder
    /// tells of it at each start.
    pub(super) listed: Option<BTreeSet<Hash>>,
    /// Runners that have compiled a version, since this start, and how long it took, µs; 0 where
    /// they had it already.
    compiled: BTreeMap<Hash, BTreeMap<Arc<str>, u64>>,
    /// Versions of which a runner has told how its compilation ended, since this start.
    tried: BTreeSet<Hash>,
    /// What others are told of components.
    components: Components,
}

/// What of a module has changed, with what watchers are told of it.
#[derive(Default)]
pub(super) struct Changed {
    pub record: Option<(ModuleRecord, Option<EventKind>)>,
    pub rights: Option<(Rights, Option<EventKind>)>,
}

impl Modules {
    /// As the last master left them. With `require_approved` none is in use until the list of
    /// approved ones is known.
    pub fn restored(
        records: Vec<(ModuleName, ModuleRecord)>,
        rights: Vec<(ModuleName, Rights)>,
        require_approved: bool,
    ) -> Modules {
        let components = Components::default();
        if !require_approved {
            records
                .iter()
                .for_each(|(name, record)| components.changed(name, record, record.current));
        }
        Modules {
            records: records.into_iter().collect(),
            rights: rights.into_iter().collect(),
            listed: require_approved.then(BTreeSet::new),
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
            let current = self.in_use(name, record);
            let is_ready = |version: &VersionRecord| {
                version.bytes < COMPILED_FIRST_BYTES || self.tried.contains(&version.version)
            };
            record.present && !record.paused && current.is_some_and(is_ready)
        })
    }

    /// A runner has told how the compilation of a version ended. The names whose tasks can be sent
    /// from now on.
    pub fn tried(&mut self, version: Hash) -> Vec<ModuleName> {
        if self.tried.len() > COMPILED_MAX {
            let known: BTreeSet<Hash> = self
                .records
                .values()
                .flat_map(|r| &r.versions)
                .map(|v| v.version)
                .collect();
            self.tried.retain(|version| known.contains(version));
        }
        if !self.tried.insert(version) {
            return Vec::new();
        }
        let of_it = self
            .records
            .keys()
            .filter(|name| self.version_in_use(name) == Some(version));
        of_it.filter(|name| self.is_open(name)).cloned().collect()
    }

    /// The version that attempts take: the one that was taken last, or, where that is not on the
    /// list of approved ones, the newest before it that is.
    pub fn in_use<'a>(
        &self,
        name: &ModuleName,
        record: &'a ModuleRecord,
    ) -> Option<&'a VersionRecord> {
        let current = record
            .versions
            .iter()
            .find(|version| Some(version.version) == record.current)?;
        if self.is_listed(&current.version) {
            return Some(current);
        }
        let waiting = self
            .rights
            .get(name)
            .and_then(Rights::waiting)
            .map(|waiting| waiting.version);
        let may = |version: &&VersionRecord| {
            !version.held && Some(version.version) != waiting && self.is_listed(&version.version)
        };
        record.versions.iter().rev().find(may)
    }

    /// The same, of a name.
    pub fn version_in_use(&self, name: &ModuleName) -> Option<Hash> {
        let record = self.records.get(name)?;
        self.in_use(name, record).map(|version| version.version)
    }

    /// Whether the list of approved versions, where there is one, has it.
    pub fn is_listed(&self, version: &Hash) -> bool {
        self.listed
            .as_ref()
            .is_none_or(|list| list.contains(version))
    }

    /// What attempts of a module are given.
    pub fn granted(&self, name: &ModuleName) -> Arc<Capabilities> {
        self.rights
            .get(name)
            .map(|rights| rights.granted.clone())
            .unwrap_or_default()
    }

    /// The version that an attempt takes: the pinned one, or the one in use; for one that may not
    /// be used, why.
    pub fn version(&self, name: &ModuleName, pin: Option<&str>) -> Option<(Hash, Option<String>)> {
        let record = self.records.get(name)?;
        match pin {
            None => self
                .in_use(name, record)
                .map(|version| (version.version, None)),
            Some(pin) => {
                pinned(record, pin).map(|version| (version.version, self.forbidden(name, version)))
            }
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
            .filter_map(|(name, _)| self.announce(name))
            .collect()
    }

    pub fn compiled(&mut self, version: Hash, runner: Arc<str>, compile_us: u64) {
        if self.compiled.len() > COMPILED_MAX {
            let known: BTreeSet<Hash> = self
                .records
                .values()
                .flat_map(|r| &r.versions)
                .map(|v| v.version)
                .collect();
            self.compiled.retain(|version, _| known.contains(version));
        }
        let taken = self
            .compiled
            .entry(version)
            .or_default()
            .entry(runner)
            .or_default();
        // After a reconnect it says that it has the module; how long that took once stays true.
        *taken = compile_us.max(*taken);
    }

    fn announce(&self, name: &ModuleName) -> Option<Announce> {
        let version = self.in_use(name, self.records.get(name)?)?;
        Some(Announce {
            name: name.clone(),
            version: version.version,
            kind: version.kind,
            bytes: version.bytes,
        })
    }

    /// As `modules list` shows it; `connected`: whether any runner is there that could compile.
    pub fn view(&self, name: &ModuleName, record: &ModuleRecord, connected: bool) -> ModuleView {
        let compiled = |version: &Hash| {
            self.compiled
                .get(version)
                .is_some_and(|runners| !runners.is_empty())
        };
        let (waiting, in_use) = (self.waiting(name, record), self.in_use(name, record));
        let version = in_use.map(|version| version.version);
        let state = match (version, record.present) {
            (None, _) if record.error.is_some() => ModuleState::Rejected,
            (_, false) => ModuleState::Removed,
            (None, true) => ModuleState::Waiting,
            _ if record.paused => ModuleState::Paused,
            (Some(_), true) if waiting.is_some() => ModuleState::Waiting,
            (Some(version), true) if compiled(&version) || !connected => ModuleState::Ready,
            (Some(_), true) => ModuleState::Compiling,
        };
        ModuleView {
            name: name.clone(),
            version,
            kind: in_use.map(|version| version.kind),
            state,
            error: record.error.clone(),
            versions: Vec::new(),
            capabilities: self.granted(name).as_ref().clone(),
            waiting,
            description: None,
            check: None,
        }
    }

    /// Its versions, newest first; `attempts` of each are running now.
    pub fn versions(
        &self,
        record: &ModuleRecord,
        attempts: impl Fn(&Hash) -> u64,
    ) -> Vec<ModuleVersion> {
        let compiled = |version: &Hash| self.compiled.get(version).into_iter().flatten();
        let version = |version: &VersionRecord| ModuleVersion {
            version: version.version,
            bytes: version.bytes,
            seen: version.seen,
            held: version.held,
            runners: compiled(&version.version)
                .map(|(name, _)| name.to_string())
                .collect(),
            compile_us: compiled(&version.version)
                .map(|(_, us)| *us)
                .max()
                .filter(|us| *us > 0),
            attempts: attempts(&version.version),
        };
        record.versions.iter().rev().map(version).collect()
    }
}

pub(super) fn pinned<'a>(record: &'a ModuleRecord, pin: &str) -> Option<&'a VersionRecord> {
    record
        .versions
        .iter()
        .rev()
        .find(|version| version.version.to_string().starts_with(pin))
}

/// What a sound file changes in a module's record, and the event that tells of it. One that may not
/// be used yet changes nothing of what is in use.
pub(super) fn take_sound(
    record: &mut ModuleRecord,
    seen: VersionRecord,
    may_be_used: bool,
) -> Option<EventKind> {
    let (was_there, last, error) = (record.present, record.current, record.error.take());
    record.present = true;
    let known = record
        .versions
        .iter()
        .position(|version| version.version == seen.version);
    let version = match known {
        Some(index) => record.versions.remove(index),
        None => seen,
    };
    if !version.held && may_be_used {
        record.current = Some(version.version);
    }
    record.versions.push(version);
    if record.versions.len() > VERSIONS_MAX {
        let current = record.current;
        let old = record
            .versions
            .iter()
            .position(|version| !version.held && Some(version.version) != current);
        record.versions.remove(old.unwrap_or(0));
    }
    match (
        was_there && (last.is_some() || !may_be_used),
        record.current != last,
    ) {
        (false, _) => Some(EventKind::ModuleAdded),
        (true, true) => Some(EventKind::ModuleUpdated),
        (true, false) => error.map(|_| EventKind::ModuleUpdated),
    }
}

impl Engine {
    /// Makes known, and durable, what has changed of a module.
    pub(super) fn module_changed(&mut self, name: ModuleName, changed: Changed) {
        let before = self.modules.version_in_use(&name);
        if let Some((record, event)) = changed.record {
            self.modules.records.insert(name.clone(), record.clone());
            self.store(Record::Module {
                name: name.clone(),
                event,
                record: Box::new(record),
            });
        }
        if let Some((rights, event)) = changed.rights {
            self.modules.rights.insert(name.clone(), rights.clone());
            self.store(Record::Rights {
                name: name.clone(),
                event,
                rights: Some(Box::new(rights)),
            });
        }
        self.module_is_used(name, before);
    }

    /// Tells the others which version of a module is in use, where another was `before`, and what
    /// it may reach.
    fn module_is_used(&mut self, name: ModuleName, before: Option<Hash>) {
        let after = self.modules.version_in_use(&name);
        if let Some(record) = self.modules.records.get(&name) {
            self.modules.components.changed(&name, record, after);
        }
        if after != before
            && let Some(announce) = self.modules.announce(&name)
        {
            let runners: Vec<_> = self
                .sessions
                .iter()
                .filter(|(_, session)| session.joined)
                .map(|(no, _)| *no)
                .collect();
            runners
                .into_iter()
                .for_each(|runner| self.say(runner, FromMaster::Announce(vec![announce.clone()])));
        }
        let (open, needs) = (self.modules.is_open(&name), self.modules.granted(&name));
        self.tell(Event::ModuleNeedsChanged {
            module: name.clone(),
            needs,
        });
        self.tell(Event::ModuleOpened { module: name, open });
    }

    /// The list of approved modules is now this one.
    pub(super) fn approved_list(&mut self, list: BTreeSet<Hash>) {
        let names: Vec<(ModuleName, Option<Hash>)> = self
            .modules
            .records
            .keys()
            .map(|name| (name.clone(), self.modules.version_in_use(name)))
            .collect();
        self.modules.listed = Some(list);
        names
            .into_iter()
            .for_each(|(name, before)| self.module_is_used(name, before));
    }

    /// Whether a task may name it.
    pub(super) fn usable_module(&self, wanted: &ModuleRef) -> Result<(), Refusal> {
        let unknown =
            |text: String| Err(Refusal::new(RefusalCode::UnknownModule, text).at("module"));
        let name = &wanted.name;
        match self.modules.get(name) {
            Some(record) if record.current.is_none() && record.error.is_some() => {
                let why = record.error.as_deref().unwrap_or_default();
                unknown(format!("the module `{name}` was rejected: {why}"))
            }
            Some(record) if record.present => match &wanted.pin {
                Some(pin) => match pinned(record, pin) {
                    None => unknown(format!(
                        "the module `{name}` has no version that begins with {pin}; `modules show {name}` lists them"
                    )),
                    Some(version) => self
                        .modules
                        .forbidden(name, version)
                        .map_or(Ok(()), unknown),
                },
                None => Ok(()),
            },
            _ => {
                let known = self
                    .modules
                    .iter()
                    .filter(|(_, record)| record.present)
                    .map(|(name, _)| name.as_str());
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
            self.module_changed(
                name,
                Changed {
                    record: Some((record, None)),
                    ..Changed::default()
                },
            );
        }
        Ok(())
    }

    /// Goes back to an earlier version and holds back the present one.
    pub(super) fn rollback_module(
        &mut self,
        name: ModuleName,
        to: Option<String>,
    ) -> Result<Hash, Refusal> {
        let mut record = self.module_record(&name)?;
        let present = record.current;
        let is_free = |version: &&VersionRecord| {
            Some(version.version) != present && self.modules.forbidden(&name, version).is_none()
        };
        let earlier = |version: &&VersionRecord| is_free(version) && !version.held;
        let wanted = match &to {
            Some(pin) => pinned(&record, pin).filter(is_free),
            None => record.versions.iter().rev().find(earlier),
        };
        let Some(target) = wanted.map(|version| version.version) else {
            let text = format!(
                "the module `{name}` has no such earlier version; `modules show {name}` lists them"
            );
            return Err(Refusal::new(RefusalCode::WrongState, text));
        };
        for version in &mut record.versions {
            version.held =
                (version.held || Some(version.version) == present) && version.version != target;
        }
        record.current = Some(target);
        let record = Some((record, Some(EventKind::ModuleUpdated)));
        self.module_changed(
            name,
            Changed {
                record,
                ..Changed::default()
            },
        );
        Ok(target)
    }

    pub(super) fn module_record(&self, name: &ModuleName) -> Result<ModuleRecord, Refusal> {
        self.modules.get(name).cloned().ok_or_else(|| {
            let known = self.modules.iter().map(|(name, _)| name.as_str());
            let text = format!(
                "unknown module `{name}`{}",
                near::hint(name.as_str(), known)
            );
            Refusal::new(RefusalCode::UnknownModule, text)
        })
    }

    /// Attempts of a version that runners hold now.
    pub(super) fn attempts_of(&self, version: &Hash) -> u64 {
        let of = |live: &&crate::facts::Live| {
            live.ended.is_none()
                && live
                    .last
                    .as_ref()
                    .is_some_and(|last| last.version == Some(*version))
        };
        self.facts.all_live().filter(of).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{ModuleKind, Wall};

    fn seen(byte: u8) -> VersionRecord {
        VersionRecord {
            version: Hash([byte; 32]),
            kind: ModuleKind::Command,
            bytes: 1,
            seen: Wall(0),
            held: false,
        }
    }

    #[test]
    fn a_held_version_is_not_taken_again_when_its_file_returns() {
        let mut record = ModuleRecord::default();
        assert_eq!(
            take_sound(&mut record, seen(1), true),
            Some(EventKind::ModuleAdded)
        );
        assert_eq!(
            take_sound(&mut record, seen(2), true),
            Some(EventKind::ModuleUpdated)
        );
        assert_eq!(take_sound(&mut record, seen(2), true), None);
        record.versions[1].held = true;
        record.current = Some(Hash([1; 32]));
        assert_eq!(take_sound(&mut record, seen(2), true), None);
        assert_eq!(record.current, Some(Hash([1; 32])));
        assert_eq!(
            take_sound(&mut record, seen(3), true),
            Some(EventKind::ModuleUpdated)
        );
        assert_eq!(record.current, Some(Hash([3; 32])));
    }
}
