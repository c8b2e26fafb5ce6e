//! Which versions of a module may be used, and what they may reach: what its manifest asks for is
//! given when an operator has approved it for that name; a version that asks for more waits, and
//! the last good one stays in use.

use super::Engine;
use super::modules::{Changed, Modules, take_sound};
use crate::inbox::Seen;
use std::sync::Arc;
use taskmaster_protocol::shape::ModuleWaiting;
use taskmaster_protocol::{Capabilities, EventKind, Hash, ModuleName, Refusal, RefusalCode};
use taskmaster_store::record::{ModuleRecord, Rights, VersionRecord, Wishes};

/// The file with the hashes of approved modules, in the task folder.
pub const LIST: &str = "approved.sha256";

impl Modules {
    /// Why a version that somebody pins may not be used.
    pub fn forbidden(&self, name: &ModuleName, version: &VersionRecord) -> Option<String> {
        let is_in_use = self.version_in_use(name) == Some(version.version);
        let waiting = self.rights.get(name).and_then(Rights::waiting);
        if !self.is_listed(&version.version) {
            Some(format!("the {}", unlisted(name, &version.version)))
        } else {
            let meant = waiting.filter(|waiting| waiting.version == version.version && !is_in_use);
            meant.map(|waiting| format!("the {}", self.asks(name, waiting)))
        }
    }

    /// The newest version, where it may not be used, or may not have all that it asks for.
    pub fn waiting(&self, name: &ModuleName, record: &ModuleRecord) -> Option<ModuleWaiting> {
        let newest = record.versions.last().filter(|_| record.present)?;
        let rights = self.rights.get(name);
        let wishes = rights
            .and_then(Rights::waiting)
            .filter(|waiting| waiting.version == newest.version);
        let why = if !self.is_listed(&newest.version) {
            unlisted(name, &newest.version)
        } else if let Some(wishes) = wishes {
            self.asks(name, wishes)
        } else if newest.held {
            let version = newest.version.short();
            format!(
                "version {version} was rolled back; `modules approve {name}` lets it be used again"
            )
        } else {
            return None;
        };
        let asks = wishes
            .map(|wishes| wishes.wants.as_ref().clone())
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

    fn asks(&self, name: &ModuleName, waiting: &Wishes) -> String {
        let approved = self
            .rights
            .get(name)
            .map(|rights| rights.approved.clone())
            .unwrap_or_default();
        let (version, more) = (waiting.version.short(), waiting.wants.beyond(&approved));
        format!("version {version} asks for {more}; `modules approve {name}` lets it have that")
    }
}

fn unlisted(name: &ModuleName, version: &Hash) -> String {
    format!(
        "version {} is not approved: {LIST} in the task folder lacks the line `{version}  {name}`",
        version.short()
    )
}

/// What a file changes of what its module may reach. Whether its version may be used.
fn take_wishes(rights: &mut Rights, version: Hash, wants: Option<Arc<Capabilities>>) -> bool {
    let known = || {
        rights
            .newest
            .as_ref()
            .map_or_else(|| rights.granted.clone(), |newest| newest.wants.clone())
    };
    let wants = wants.unwrap_or_else(known);
    rights.newest = (!wants.is_empty()).then_some(Wishes { version, wants });
    rights.waiting().is_none()
}

/// What the newest file asks for.
fn wanted(rights: &Rights, version: &Hash) -> Arc<Capabilities> {
    rights
        .newest
        .as_ref()
        .filter(|newest| newest.version == *version)
        .map(|n| n.wants.clone())
        .unwrap_or_default()
}

impl Engine {
    /// The folder has something new under a name.
    pub(super) fn module_seen(&mut self, name: ModuleName, seen: Seen) {
        let last = self.modules.records.get(&name).cloned().unwrap_or_default();
        let last_rights = self.modules.rights.get(&name).cloned().unwrap_or_default();
        let (mut record, mut rights) = (last.clone(), last_rights.clone());
        let event = match seen {
            Seen::Sound {
                version,
                kind,
                bytes,
                wants,
            } => {
                let may_be_used = take_wishes(&mut rights, version, wants);
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
        let is_new = rights.waiting().is_some() && rights.newest != last_rights.newest;
        let rights =
            (rights != last_rights).then(|| (rights, is_new.then_some(EventKind::ModuleWaiting)));
        let record = (record != last).then_some((record, event));
        if record.is_some() || rights.is_some() {
            self.module_changed(name, Changed { record, rights });
        }
    }

    /// Lets a version that waits be used: with all that it asks for, or again after a rollback.
    /// `shown` is what whoever approves it has seen.
    pub(super) fn approve_module(
        &mut self,
        name: ModuleName,
        pin: Option<&str>,
        shown: Option<&Capabilities>,
    ) -> Result<serde_json::Value, Refusal> {
        let mut record = self.module_record(&name)?;
        let mut rights = self.modules.rights.get(&name).cloned().unwrap_or_default();
        let wrong = |text: String| Err(Refusal::new(RefusalCode::WrongState, text));
        let meant = |version: &Hash| pin.is_none_or(|pin| version.to_string().starts_with(pin));
        let waiting = rights
            .waiting()
            .filter(|waiting| meant(&waiting.version))
            .cloned();
        let index = match &waiting {
            Some(waiting) => record
                .versions
                .iter()
                .position(|version| version.version == waiting.version),
            None => record
                .versions
                .iter()
                .rposition(|version| version.held && meant(&version.version)),
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
        // The newest file is what the folder holds; an older one is only allowed again.
        if index + 1 == record.versions.len() {
            record.current = Some(version);
            rights.granted = wanted(&rights, &version);
        }
        let changed = self.modules.rights.get(&name).cloned().unwrap_or_default() != rights;
        let answer = serde_json::json!({ "version": version, "capabilities": &*rights.granted });
        let record = Some((record, Some(EventKind::ModuleUpdated)));
        self.module_changed(
            name,
            Changed {
                record,
                rights: changed.then_some((rights, None)),
            },
        );
        Ok(answer)
    }
}
