//! The table of modules: the versions that were seen, the version that the next attempt runs, and
//! the versions that may not be used.

use super::Engine;
use super::failed_compilations::{FailedCompilation, FailedCompilations};
use crate::components::Components;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use taskmaster_core::Event;
use taskmaster_protocol::message::{Announce, ModuleVersion};
use taskmaster_protocol::shape::{ModuleState, ModuleView};
use taskmaster_protocol::{
    Capabilities, EventKind, FromMaster, Hash, ModuleName, ModuleRef, Refusal, RefusalCode, near,
};
use taskmaster_store::record::{ModuleRecord, Record, Rights, VersionRecord};

/// Versions of one module that are remembered. The oldest version that is neither in use nor held
/// back is forgotten first.
const VERSIONS_MAX: usize = 64;

/// Size from which on a module must be compiled before its tasks are sent, bytes. Tasks that wait
/// for the compilation on a runner would take slots in which other tasks could run. A smaller module
/// is compiled within about a second. A failed compilation counts, too, because its tasks must fail.
const COMPILED_FIRST_BYTES: u64 = 1 << 20;

/// Versions for which the results of compilations are remembered, far more than are in use.
const COMPILED_MAX: usize = 4_096;

/// All modules, by name.
#[derive(Debug, Default)]
pub(super) struct ModuleTable {
    pub(super) records: BTreeMap<ModuleName, ModuleRecord>,
    /// The capabilities that modules have and ask for. Most modules ask for none and have no entry.
    pub(super) rights: BTreeMap<ModuleName, Rights>,
    /// The only versions that may be used; `None` if there is no list of approved versions. The list
    /// is not durable, because it is read from the module folder at each start.
    pub(super) listed: Option<BTreeSet<Hash>>,
    /// For each version the runners that have compiled it since this start, and how long that took,
    /// µs. The time is 0 if a runner had compiled the version before.
    compiled: BTreeMap<Hash, BTreeMap<Arc<str>, u64>>,
    /// Versions of which a runner has told since this start how their compilation ended.
    tried: BTreeSet<Hash>,
    failed: FailedCompilations,
    /// What stands in for the hash of a module in the keys of answers. It is not durable, because
    /// it is read from the task folder at each start.
    stand_ins: BTreeMap<ModuleName, StandIn>,
    /// The versions of components, shared with the gateway.
    components: Components,
}

/// What stands in for the hash of a module's newest version.
#[derive(Debug)]
struct StandIn {
    version: Hash,
    text: Arc<str>,
}

/// Changes of a module.
#[derive(Default)]
pub(super) struct ModuleChange {
    pub record: Option<Changed<ModuleRecord>>,
    pub rights: Option<Changed<Rights>>,
}

/// A changed value, and the event that tells watchers about the change.
pub(super) struct Changed<T> {
    pub value: T,
    pub event: Option<EventKind>,
}

/// The version of a module that an attempt runs.
pub(super) struct AttemptVersion {
    pub version: Hash,
    /// Why the version may not be used, although a task pins it.
    pub forbidden: Option<String>,
}

impl ModuleTable {
    /// The modules as the last master left them. With `require_approved` no version is in use until
    /// the list of approved versions is known.
    pub fn restored(
        records: Vec<(ModuleName, ModuleRecord)>,
        rights: Vec<(ModuleName, Rights)>,
        require_approved: bool,
    ) -> ModuleTable {
        let components = Components::default();
        if !require_approved {
            records
                .iter()
                .for_each(|(name, record)| components.changed(name, record, record.current));
        }
        ModuleTable {
            records: records.into_iter().collect(),
            rights: rights.into_iter().collect(),
            listed: require_approved.then(BTreeSet::new),
            compiled: BTreeMap::new(),
            tried: BTreeSet::new(),
            failed: FailedCompilations::default(),
            stand_ins: BTreeMap::new(),
            components,
        }
    }

    pub fn get(&self, name: &ModuleName) -> Option<&ModuleRecord> {
        self.records.get(name)
    }

    /// The name as this table has it, whose allocation tasks share.
    pub fn name(&self, name: &ModuleName) -> Option<&ModuleName> {
        self.records.get_key_value(name).map(|(name, _)| name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ModuleName, &ModuleRecord)> {
        self.records.iter()
    }

    /// The records of modules whose names come behind `name`, in the order of their names.
    pub fn after(&self, name: &str) -> impl Iterator<Item = (&ModuleName, &ModuleRecord)> {
        self.records.range::<str, _>((Excluded(name), Unbounded))
    }

    /// Whether tasks of a module can be sent.
    pub fn is_open(&self, name: &ModuleName) -> bool {
        self.records.get(name).is_some_and(|record| {
            let current = self.in_use(name, record);
            let is_ready = |version: &VersionRecord| {
                version.bytes < COMPILED_FIRST_BYTES || self.tried.contains(&version.version)
            };
            record.present && !record.paused && current.is_some_and(is_ready)
        })
    }

    /// A runner has told how the compilation of a version ended. Returns the names of the modules
    /// whose tasks can be sent from now on.
    pub fn tried(&mut self, version: Hash) -> Vec<ModuleName> {
        if self.tried.len() > COMPILED_MAX {
            let known = known_versions(&self.records);
            self.tried.retain(|version| known.contains(version));
        }
        if !self.tried.insert(version) {
            return Vec::new();
        }
        let using = self
            .records
            .keys()
            .filter(|name| self.version_in_use(name) == Some(version));
        using.filter(|name| self.is_open(name)).cloned().collect()
    }

    /// The version that attempts run if their tasks pin none. It is the record's current version, or
    /// the newest usable version on the list of approved versions if the current one is not on it.
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

    /// The hash of the version that attempts of a module run if their tasks pin none.
    pub fn version_in_use(&self, name: &ModuleName) -> Option<Hash> {
        let record = self.records.get(name)?;
        self.in_use(name, record).map(|version| version.version)
    }

    /// Whether the list of approved versions has this version. True if there is no list.
    pub fn is_listed(&self, version: &Hash) -> bool {
        self.listed
            .as_ref()
            .is_none_or(|list| list.contains(version))
    }

    /// The capabilities that attempts of a module have.
    pub fn granted(&self, name: &ModuleName) -> Arc<Capabilities> {
        self.rights
            .get(name)
            .map(|rights| rights.granted.clone())
            .unwrap_or_default()
    }

    /// What stands for a version in the keys of answers. An older version counts by its hash, because
    /// the manifest is that of the newest one.
    pub fn cache_version(&self, name: &ModuleName, version: &Hash) -> String {
        let stand_in = self.stand_ins.get(name);
        match stand_in.filter(|stand_in| stand_in.version == *version) {
            // No hash begins so.
            Some(stand_in) => format!("={}", stand_in.text),
            None => version.to_string(),
        }
    }

    /// The manifest of a module's newest version says what stands in for its hash.
    pub fn set_stand_in(&mut self, name: &ModuleName, version: Hash, text: Option<Arc<str>>) {
        match text {
            Some(text) => {
                self.stand_ins
                    .insert(name.clone(), StandIn { version, text });
            }
            None => {
                self.stand_ins.remove(name);
            }
        }
    }

    /// What an operator has set, so that older answers of a module are found no more.
    pub fn salt(&self, name: &ModuleName) -> Option<&str> {
        self.rights.get(name)?.salt.as_deref()
    }

    /// The version that an attempt runs: the version that its task pins, or else the version in use.
    pub fn version(&self, name: &ModuleName, pin: Option<&str>) -> Option<AttemptVersion> {
        let record = self.records.get(name)?;
        match pin {
            None => self.in_use(name, record).map(|version| AttemptVersion {
                version: version.version,
                forbidden: None,
            }),
            Some(pin) => pinned(record, pin).map(|version| AttemptVersion {
                version: version.version,
                forbidden: self.forbidden(name, version),
            }),
        }
    }

    /// The versions of components, for the gateway, which checks params.
    pub fn components(&self) -> Components {
        self.components.clone()
    }

    /// The versions in use, which runners should compile in advance.
    pub fn announced(&self) -> Vec<Announce> {
        self.records
            .iter()
            .filter(|(_, record)| record.present)
            .filter_map(|(name, _)| self.announce(name))
            .collect()
    }

    /// A runner has failed to compile a version.
    pub fn not_compiled(&mut self, version: Hash, runner: Arc<str>, failure: FailedCompilation) {
        let records = &self.records;
        let known = || known_versions(records);
        self.failed.failed(version, runner, failure, known);
    }

    /// A runner has compiled a version in `compile_us`.
    pub fn compiled(&mut self, version: Hash, runner: Arc<str>, compile_us: u64) {
        self.failed.compiled(&version, &runner);
        if self.compiled.len() > COMPILED_MAX {
            let known = known_versions(&self.records);
            self.compiled.retain(|version, _| known.contains(version));
        }
        let known_us = self
            .compiled
            .entry(version)
            .or_default()
            .entry(runner)
            .or_default();
        // A runner that has connected again tells 0 for modules that it has compiled before, so the
        // longer time is the true one.
        *known_us = compile_us.max(*known_us);
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

    /// The module as `modules list` shows it. `runners` are those that are here and take the module.
    pub fn view(
        &self,
        name: &ModuleName,
        record: &ModuleRecord,
        runners: &BTreeSet<Arc<str>>,
    ) -> ModuleView {
        let compiled = |version: &Hash| self.compiled_by(version, runners).next().is_some();
        let waiting = self.waiting(name, record);
        let in_use = self.in_use(name, record);
        let version = in_use.map(|version| version.version);
        let failure = version.and_then(|version| self.failed.why_none_can(&version, runners));
        let state = match (version, record.present) {
            (None, _) if record.error.is_some() => ModuleState::Rejected,
            (_, false) => ModuleState::Removed,
            (None, true) => ModuleState::Waiting,
            _ if record.paused => ModuleState::Paused,
            (Some(_), true) if failure.is_some() => ModuleState::Failed,
            (Some(version), true) if compiled(&version) || runners.is_empty() => ModuleState::Ready,
            (Some(_), true) => ModuleState::Compiling,
        };
        ModuleView {
            name: name.clone(),
            version,
            kind: in_use.map(|version| version.kind),
            state,
            error: record.error.clone(),
            failure,
            versions: Vec::new(),
            capabilities: self.granted(name).as_ref().clone(),
            waiting,
            salt: self.salt(name).map(str::to_owned),
            description: None,
            check: None,
        }
    }

    /// Which of these runners have compiled a version, and how long that took, µs. What runners have
    /// compiled that have left is kept, because they may come back.
    fn compiled_by(
        &self,
        version: &Hash,
        among: &BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = (&Arc<str>, &u64)> {
        let runners = self.compiled.get(version).into_iter().flatten();
        runners.filter(|(runner, _)| among.contains(*runner))
    }

    /// The versions of a module, newest first. `runners` are those that are here. `attempts`
    /// gives the number of running attempts of a version.
    pub fn versions(
        &self,
        record: &ModuleRecord,
        runners: &BTreeSet<Arc<str>>,
        attempts: impl Fn(&Hash) -> u64,
    ) -> Vec<ModuleVersion> {
        let version = |version: &VersionRecord| ModuleVersion {
            version: version.version,
            bytes: version.bytes,
            seen: version.seen,
            held: version.held,
            runners: self
                .compiled_by(&version.version, runners)
                .map(|(name, _)| name.to_string())
                .collect(),
            compile_us: self
                .compiled
                .get(&version.version)
                .and_then(|runners| runners.values().max().copied())
                .filter(|us| *us > 0),
            attempts: attempts(&version.version),
        };
        record.versions.iter().rev().map(version).collect()
    }
}

/// All versions in the records.
fn known_versions(records: &BTreeMap<ModuleName, ModuleRecord>) -> BTreeSet<Hash> {
    records
        .values()
        .flat_map(|record| &record.versions)
        .map(|version| version.version)
        .collect()
}

/// The newest version whose hash begins with `pin`.
pub(super) fn pinned<'a>(record: &'a ModuleRecord, pin: &str) -> Option<&'a VersionRecord> {
    record
        .versions
        .iter()
        .rev()
        .find(|version| version.version.to_string().starts_with(pin))
}

/// Takes a valid file into a module's record. A version that may not be used yet does not become
/// current. Returns the event that tells about the change.
pub(super) fn take_sound(
    record: &mut ModuleRecord,
    seen: VersionRecord,
    may_be_used: bool,
) -> Option<EventKind> {
    let was_present = record.present;
    let last = record.current;
    let error = record.error.take();
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
    let was_known = was_present && (last.is_some() || !may_be_used);
    if !was_known {
        Some(EventKind::ModuleAdded)
    } else if record.current != last || error.is_some() {
        Some(EventKind::ModuleUpdated)
    } else {
        None
    }
}

impl Engine {
    /// Makes changes of a module durable, and tells the core and the runners about them.
    pub(super) fn module_changed(&mut self, name: ModuleName, changed: ModuleChange) {
        let before = self.modules.version_in_use(&name);
        if let Some(Changed { value, event }) = changed.record {
            self.modules.records.insert(name.clone(), value.clone());
            self.persist(Record::Module {
                name: name.clone(),
                event,
                record: Box::new(value),
            });
        }
        if let Some(Changed { value, event }) = changed.rights {
            self.modules.rights.insert(name.clone(), value.clone());
            self.persist(Record::Rights {
                name: name.clone(),
                event,
                rights: Some(Box::new(value)),
            });
        }
        self.announce_version(name, before);
    }

    /// Tells the core, the gateway and, if another version was in use `before`, the runners which
    /// version of a module is in use, and which capabilities it has.
    fn announce_version(&mut self, name: ModuleName, before: Option<Hash>) {
        let after = self.modules.version_in_use(&name);
        if let Some(record) = self.modules.records.get(&name) {
            self.modules.components.changed(&name, record, after);
        }
        if after != before
            && let Some(announce) = self.modules.announce(&name)
        {
            let runners: Vec<_> = self
                .connections
                .iter()
                .filter(|(_, connection)| connection.joined)
                .map(|(id, _)| *id)
                .collect();
            for runner in runners {
                self.send_now(runner, FromMaster::Announce(vec![announce.clone()]));
            }
        }
        let open = self.modules.is_open(&name);
        let needs = self.modules.granted(&name);
        self.tell(Event::ModuleNeedsChanged {
            module: name.clone(),
            needs,
        });
        self.tell(Event::ModuleOpened { module: name, open });
    }

    /// Replaces the list of approved modules.
    pub(super) fn approved_list(&mut self, list: BTreeSet<Hash>) {
        let names: Vec<(ModuleName, Option<Hash>)> = self
            .modules
            .records
            .keys()
            .map(|name| (name.clone(), self.modules.version_in_use(name)))
            .collect();
        self.modules.listed = Some(list);
        for (name, before) in names {
            self.announce_version(name, before);
        }
    }

    /// Refuses a module of which no task may be added.
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
                ModuleChange {
                    record: Some(Changed {
                        value: record,
                        event: None,
                    }),
                    ..ModuleChange::default()
                },
            );
        }
        Ok(())
    }

    /// Makes an earlier version current again, and does not use the present one any more.
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
        self.module_changed(
            name,
            ModuleChange {
                record: Some(Changed {
                    value: record,
                    event: Some(EventKind::ModuleUpdated),
                }),
                ..ModuleChange::default()
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

    /// The number of attempts of a version that runners hold now.
    pub(super) fn attempts_of(&self, version: &Hash) -> u64 {
        let runs_version = |live: &&crate::facts::Live| {
            live.ended.is_none()
                && live
                    .last
                    .as_ref()
                    .is_some_and(|last| last.version == Some(*version))
        };
        self.facts.all_live().filter(runs_version).count() as u64
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
