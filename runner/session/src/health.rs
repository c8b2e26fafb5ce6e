//! Whether the runner's machine is well, and when it is looked at again.
//!
//! A machine that is sick would fail every task that it is sent, and it would be sent many, because
//! its slots are always free.

/// The pause before the first look, µs. What heals by itself, such as a folder that is made anew,
/// has healed by then.
const PAUSE_FIRST_US: u64 = 250_000;

/// The longest pause between two looks, µs. An operator who has mended the machine waits this long
/// at most.
const PAUSE_MAX_US: u64 = 30_000_000;

/// A machine that was well for this long is trusted as at first, µs. One that fails again sooner is
/// looked at after a longer pause, whatever the looks found.
const TRUSTED_AFTER_US: u64 = 300_000_000;

/// Whether the machine is well.
#[derive(Debug)]
pub(crate) struct MachineHealth {
    state: HealthState,
    /// The pause before the next look, µs.
    pause_us: u64,
}

#[derive(Debug)]
enum HealthState {
    Well {
        since_us: u64,
    },
    Sick {
        fault: String,
        /// When the machine is to be looked at. `None` while somebody looks.
        look_at_us: Option<u64>,
    },
}

impl MachineHealth {
    /// A machine that is well.
    pub fn new() -> MachineHealth {
        MachineHealth {
            state: HealthState::Well { since_us: 0 },
            pause_us: PAUSE_FIRST_US,
        }
    }

    /// What is wrong with the machine; `None` while it is well.
    pub fn fault(&self) -> Option<&str> {
        match &self.state {
            HealthState::Well { .. } => None,
            HealthState::Sick { fault, .. } => Some(fault),
        }
    }

    /// When the machine is to be looked at, µs.
    pub fn look_at_us(&self) -> Option<u64> {
        match &self.state {
            HealthState::Well { .. } => None,
            HealthState::Sick { look_at_us, .. } => *look_at_us,
        }
    }

    /// The machine has failed an attempt. Returns whether that is news.
    pub fn failed(&mut self, fault: String, now_us: u64) -> bool {
        let HealthState::Well { since_us } = self.state else {
            // Attempts that began before tell of the same fault.
            return false;
        };
        if now_us.saturating_sub(since_us) >= TRUSTED_AFTER_US {
            self.pause_us = PAUSE_FIRST_US;
        }
        self.look_later(fault, now_us);
        true
    }

    /// Whether the machine is to be looked at now. Whoever asks looks.
    pub fn begin_look(&mut self, now_us: u64) -> bool {
        match &mut self.state {
            HealthState::Sick { look_at_us, .. } if look_at_us.is_some_and(|at| at <= now_us) => {
                *look_at_us = None;
                true
            }
            HealthState::Sick { .. } | HealthState::Well { .. } => false,
        }
    }

    /// Somebody has looked. Returns whether what is known of the machine has changed.
    pub fn looked(&mut self, found: Result<(), String>, now_us: u64) -> bool {
        let HealthState::Sick { fault, .. } = &self.state else {
            return false;
        };
        match found {
            Ok(()) => {
                self.state = HealthState::Well { since_us: now_us };
                true
            }
            Err(found) => {
                let is_news = *fault != found;
                self.look_later(found, now_us);
                is_news
            }
        }
    }

    fn look_later(&mut self, fault: String, now_us: u64) {
        self.state = HealthState::Sick {
            fault,
            look_at_us: Some(now_us + self.pause_us),
        };
        self.pause_us = (self.pause_us * 2).min(PAUSE_MAX_US);
    }
}
