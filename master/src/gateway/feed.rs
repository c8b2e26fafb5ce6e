//! Reading durable events one after the other.

use std::time::Duration;
use taskmaster_engine::events::{DurableEvent, EndEvents, EndInterest, EventFeed, EventsPruned};
use taskmaster_protocol::FromMaster;
use taskmaster_protocol::message::Gap;

/// Events that should be there and could not be read are tried again after this time.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Waits for the next events after `seq`. `EventsPruned` always leads on: its `first` is beyond
/// `seq + 1`.
pub(super) async fn next_events(
    events: &EventFeed,
    seq: u64,
) -> Result<Vec<DurableEvent>, EventsPruned> {
    loop {
        match events.after(seq).await {
            Err(EventsPruned { first }) if first > seq.saturating_add(1) => {
                return Err(EventsPruned { first });
            }
            Ok(logged) if !logged.is_empty() => return Ok(logged),
            Ok(_) | Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

/// Waits for events after `seq` and gives the ends among them that concern `concern`. There may be
/// none. `EventsPruned` always leads on, as with [`next_events`].
pub(super) async fn next_ends(
    events: &EventFeed,
    seq: u64,
    concern: &impl EndInterest,
) -> Result<EndEvents, EventsPruned> {
    loop {
        match events.ends(seq, concern).await {
            Err(EventsPruned { first }) if first > seq.saturating_add(1) => {
                return Err(EventsPruned { first });
            }
            Ok(ends) if ends.seq > seq => return Ok(ends),
            Ok(_) | Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

/// Moves `seq` behind events that are no longer kept. Returns the message about the gap.
pub(super) fn skip_pruned(seq: &mut u64, pruned: EventsPruned) -> FromMaster {
    let last_pruned = pruned.first.saturating_sub(1);
    let missed = last_pruned.saturating_sub(*seq);
    *seq = last_pruned.max(*seq);
    FromMaster::Gap(Gap {
        missed,
        resume: *seq + 1,
        reason: "pruned".into(),
    })
}
