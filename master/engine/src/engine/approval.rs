//! Decides which versions of a module may be used, and which capabilities they have. A module has
//! the capabilities that its manifest asks for when an operator has approved them for its name. A
//! version that asks for more waits for approval, and the last usable version stays in use.

use super::Engine;
use super::modules::{Changed, ModuleChange, ModuleTable, take_sound};
use crate::inbox::ModuleFile;
use std::sync::Arc;
use taskmaster_protocol::shape::ModuleWaiting;
use taskmaster_protocol::{Capabilities, EventKind, Hash, ModuleName, Refusal, RefusalCode};
use taskmaster_store::record::{ModuleRecord, RequestedCapabilities, Rights, VersionRecord};

/// The file with the hashes of approved modules, in the task folder.
pub const LIST: &str = "approved.sha256";

impl ModuleTable {
    /// Why a version may not be used, even if a task pins it.
    pub fn forbidden(&self, name: &ModuleName, version: &VersionRecord) -> Option<String> {
        if !self.is_listed(&version.version) {
            return Some(format!("the {}", unlisted(name, &version.version)));
        }
        let is_in_use = self.version_in_use(name) == Some(version.version);
        let request = self.rights.get(name).and_then(Rights::waiting)?;
        let is_waiting = request.version == version.version && !is_in_use;
        is_waiting.then(|| format!("the {}", self.request_clause(name, request)))
    }

    /// The newest version of a module, if it may not be used or may not have all capabilities for
    /// which it asks.
    pub fn waiting(&self, name: &ModuleName, record: &ModuleRecord) -> Option<ModuleWaiting> {
        let newest = record.versions.last().filter(|_| record.present)?;
        let rights = self.rights.get(name);
        let request = rights
            .and_then(Rights::waiting)
            .filter(|request| request.version == newest.version);
        let why = if !self.is_listed(&newest.version) {
            unlisted(name, &newest.version)
        } else if let Some(request) = request {
            self.request_clause(name, request)
        } else if newest.held {
            let version = newest.version.short();
            format!(
                "version {version} was rolled back; `modules approve {name}` lets it be used again"
            )
        } else {
            return None;
        };
        let asks = request
            .map(|request| request.wants.as_ref().clone())
            .unwrap_or_default();
        let more = rights
            .map(|rights| asks.beyond(&rights.approved))
            .unwrap_or_default();
        Some(ModuleWaiting {
            version: newest.version,
            why,
            asks,
            more,
        })
    }

    /// Says which capabilities a version asks for, and how an operator approves them.
    fn request_clause(&self, name: &ModuleName, request: &RequestedCapabilities) -> String {
        let approved = self
            .rights
            .get(name)
            .map(|rights| rights.approved.clone())
            .unwrap_or_default();
        let version = request.version.short();
        let more = request.wants.beyond(&approved);
        format!("version {version} asks for {more}; `modules approve {name}` lets it have that")
    }
}

/// Says that a version is not on the list of approved versions.
fn unlisted(name: &ModuleName, version: &Hash) -> String {
    format!(
        "version {} is not approved: {LIST} in the task folder lacks the line `{version}  {name}`",
        version.short()
    )
}

/// Takes in what the manifest of a file asks for. Returns whether the version may be used.
fn take_request(rights: &mut Rights, version: Hash, wants: Option<Arc<Capabilities>>) -> bool {
    let known = || {
        rights
            .newest
            .as_ref()
            .map_or_else(|| rights.granted.clone(), |newest| newest.wants.clone())
    };
    let wants = wants.unwrap_or_else(known);
    rights.newest = (!wants.is_empty()).then_some(RequestedCapabilities { version, wants });
    rights.waiting().is_none()
}

/// The capabilities for which a version asks, if its file is the newest.
fn wanted(rights: &Rights, version: &Hash) -> Arc<Capabilities> {
    rights
        .newest
        .as_ref()
        .filter(|newest| newest.version == *version)
        .map(|newest| newest.wants.clone())
        .unwrap_or_default()
}

impl Engine {
    /// The folder has something new under a name.
    pub(super) fn module_seen(&mut self, name: ModuleName, seen: ModuleFile) {
        let last = self.modules.records.get(&name).cloned().unwrap_or_default();
        let last_rights = self.modules.rights.get(&name).cloned().unwrap_or_default();
        let mut record = last.clone();
        let mut rights = last_rights.clone();
        let event = match seen {
            ModuleFile::Sound {
                version,
                kind,
                bytes,
                wants,
                cache_version,
            } => {
                self.modules.set_stand_in(&name, version, cache_version);
                let may_be_used = take_request(&mut rights, version, wants);
                let seen = VersionRecord {
                    version,
                    kind,
                    bytes,
                    seen: self.now.wall,
                    held: false,
                };
                let event = take_sound(&mut record, seen, may_be_used);
                if may_be_used && record.current == Some(version) {
                    rights.granted = wanted(&rights, &version);
                }
                event
            }
            ModuleFile::Unsound { error } if record.error.as_ref() == Some(&error) => None,
            ModuleFile::Unsound { error } => {
                record.error = Some(error);
                Some(EventKind::ModuleRejected)
            }
            ModuleFile::Gone => {
                let was_there = record.present || record.error.is_some();
                record.present = false;
                record.error = None;
                was_there.then_some(EventKind::ModuleRemoved)
            }
        };
        let is_new = rights.waiting().is_some() && rights.newest != last_rights.newest;
        let rights = (rights != last_rights).then(|| Changed {
            value: rights,
            event: is_new.then_some(EventKind::ModuleWaiting),
        });
        let record = (record != last).then_some(Changed {
            value: record,
            event,
        });
        if record.is_some() || rights.is_some() {
            self.module_changed(name, ModuleChange { record, rights });
        }
    }

    /// Approves a version that waits: it may have all capabilities for which it asks, or may be used
    /// again after a rollback. `shown` are the capabilities that the operator has seen.
    pub(super) fn approve_module(
        &mut self,
        name: ModuleName,
        pin: Option<&str>,
        shown: Option<&Capabilities>,
    ) -> Result<serde_json::Value, Refusal> {
        let mut record = self.module_record(&name)?;
        let mut rights = self.modules.rights.get(&name).cloned().unwrap_or_default();
        let wrong = |text: String| Err(Refusal::new(RefusalCode::WrongState, text));
        let is_pinned = |version: &Hash| pin.is_none_or(|pin| version.to_string().starts_with(pin));
        let waiting = rights
            .waiting()
            .filter(|waiting| is_pinned(&waiting.version))
            .cloned();
        let index = match &waiting {
            Some(waiting) => record
                .versions
                .iter()
                .position(|version| version.version == waiting.version),
            None => record
                .versions
                .iter()
                .rposition(|version| version.held && is_pinned(&version.version)),
        };
        let Some(index) = index else {
            return match self.modules.waiting(&name, &record) {
                Some(waiting) if !self.modules.is_listed(&waiting.version) => {
                    wrong(format!("the {}", waiting.why))
                }
                _ => wrong(format!("no version of the module `{name}` is held back")),
            };
        };
        let version = record.versions[index].version;
        let wants = waiting.map(|waiting| waiting.wants).unwrap_or_default();
        if shown.is_some_and(|shown| *shown != *wants) {
            return wrong(format!(
                "the module `{name}` asks for {wants} by now; look again, and approve that"
            ));
        }
        record.versions[index].held = false;
        rights.approved.extend(&wants);
        // Only the newest version becomes current, because its file is in the folder. An older
        // version may only be used again by tasks that pin it, or by a rollback.
        if index + 1 == record.versions.len() {
            record.current = Some(version);
            rights.granted = wanted(&rights, &version);
        }
        let changed = self.modules.rights.get(&name).cloned().unwrap_or_default() != rights;
        let answer = serde_json::json!({ "version": version, "capabilities": &*rights.granted });
        let record = Changed {
            value: record,
            event: Some(EventKind::ModuleUpdated),
        };
        let rights = changed.then_some(Changed {
            value: rights,
            event: None,
        });
        self.module_changed(
            name,
            ModuleChange {
                record: Some(record),
                rights,
            },
        );
        Ok(answer)
    }
}
