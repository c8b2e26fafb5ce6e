//! How a running attempt is stopped: from outside, or by its deadline.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// The switch by which a running attempt is stopped. It cannot be switched back.
#[derive(Debug, Default)]
pub struct StopSwitch {
    cancelled: AtomicBool,
    /// When the attempt has run for as long as it may. Unset until its guest starts.
    deadline: OnceLock<Instant>,
    /// Why the attempt is stopped, where it took too much of the disk.
    quota_excess: OnceLock<String>,
    /// Wakes a guest that is parked in a host call.
    wake: Notify,
}

impl StopSwitch {
    /// Stops the attempt within 100 ms.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Stops the attempt because it took too much; `text` says of what.
    pub fn exceed_quota(&self, text: String) {
        // An earlier reason stays.
        let _ = self.quota_excess.set(text);
        self.cancel();
    }

    /// Lets the attempt run until `deadline`, if none was set before.
    pub(super) fn run_until(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
    }

    /// Why the attempt may not go on at `now`, if so.
    pub(super) fn reason(&self, now: Instant) -> Option<StopReason> {
        if self.is_cancelled() {
            return Some(StopReason::Cancelled);
        }
        let is_late = self.deadline.get().is_some_and(|deadline| now >= *deadline);
        is_late.then_some(StopReason::Timeout)
    }

    /// Whether the attempt was stopped, for whatever reason.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// What the attempt took too much of, if that is why it was stopped.
    pub(super) fn quota_excess(&self) -> Option<&str> {
        self.quota_excess.get().map(String::as_str)
    }

    /// Waits until the switch is used.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// Why a guest was stopped. Travels through wasmtime as the guest's trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StopReason {
    #[error("cancelled")]
    Cancelled,
    #[error("timeout")]
    Timeout,
}
