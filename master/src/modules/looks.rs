//! Those who wait for a module.

use super::{LookAnswer, LookRequest};
use std::time::{Duration, Instant};
use taskmaster_protocol::{Hash, ModuleName};
use tokio::sync::oneshot;

/// How long a look waits for a file that is being written.
const LOOK_TIME: Duration = Duration::from_millis(300);

/// Somebody who waits for a module.
struct Look {
    request: LookRequest,
    until: Instant,
    /// Tells when the engine knows the module.
    known: Option<oneshot::Receiver<()>>,
}

/// What the folder has of a module that somebody waits for.
pub(super) struct LookedUp {
    /// The version of the sound module that the engine was told of.
    pub(super) sound: Option<Hash>,
    /// Whether a file may become a sound module in a moment.
    pub(super) is_undecided: bool,
    /// Whether a file is being inspected, which is waited for.
    pub(super) is_inspected: bool,
}

/// Those who wait for modules.
#[derive(Default)]
pub(super) struct Looks(Vec<Look>);

impl Looks {
    pub(super) fn add(&mut self, request: LookRequest, now: Instant) {
        self.0.push(Look {
            request,
            until: now + LOOK_TIME,
            known: None,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_wanted(&self, name: &ModuleName) -> bool {
        self.0.iter().any(|look| look.request.name == *name)
    }

    /// The engine is told of this module now. `known` tells when it knows the module.
    pub(super) fn told(&mut self, name: &ModuleName, known: oneshot::Receiver<()>) {
        let mut looks = self.0.iter_mut();
        if let Some(look) = looks.find(|look| look.request.name == *name) {
            look.known = Some(known);
        }
    }

    /// Answers those whose module is found, or for whom it is too late.
    pub(super) fn answer(&mut self, now: Instant, look_up: impl Fn(&ModuleName) -> LookedUp) {
        for look in std::mem::take(&mut self.0) {
            let LookedUp {
                sound,
                is_undecided,
                is_inspected,
            } = look_up(&look.request.name);
            let wanted = look.request.version;
            if sound.is_some_and(|version| wanted.is_none_or(|wanted| wanted == version)) {
                let _ = look.request.reply.send(LookAnswer::Found(look.known));
            } else if is_inspected || (is_undecided && now < look.until) {
                self.0.push(look);
            } else {
                let _ = look.request.reply.send(LookAnswer::NotFound);
            }
        }
    }
}
