//! What a running attempt tells while it runs.

use std::sync::Arc;
use taskmaster_protocol::Json;
use taskmaster_protocol::message::Attempt;

/// Something that a running attempt tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveEvent {
    /// Guest code started, µs since 1970.
    Started(i64),
    /// `{"fraction":0.4,"note":"…"}`.
    Progress(Json),
    /// A partial result, with its number in the attempt, from 1. Numbers of results that came too
    /// fast are left out.
    Partial {
        /// The number.
        n: u64,
        /// The result.
        value: Json,
    },
    /// `{"text":"…"}`: lines of the log.
    Log(Json),
}

/// Hears what attempts tell while they run. Called on the thread that runs the attempt, so it must
/// not wait.
pub type LiveListener = Arc<dyn Fn(&Attempt, LiveEvent) + Send + Sync>;
