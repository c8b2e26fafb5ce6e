//! Reading durable events on and on.

use std::time::Duration;
use taskmaster_engine::events::{Concern, Ends, EventFeed, Logged, Pruned};
use taskmaster_protocol::FromMaster;
use taskmaster_protocol::message::Gap;

/// Before events that should be there and could not be read are tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The next events after `seq`; waits for them. `Pruned` always leads on: its `first` is beyond
/// `seq + 1`.
pub(super) async fn after(events: &EventFeed, seq: u64) -> Result<Vec<Logged>, Pruned> {
    loop {
        match events.after(seq).await {
            Err(Pruned { first }) if first <= seq.saturating_add(1) => {
                tokio::time::sleep(PAUSE).await
            }
            Ok(logged) if logged.is_empty() => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// The next ends after `seq` that concern somebody; waits for events, not for ends: see
/// [`EventFeed::ends`].
pub(super) async fn ends(events: &EventFeed, seq: u64, of: &impl Concern) -> Result<Ends, Pruned> {
    loop {
        match events.ends(seq, of).await {
            Err(Pruned { first }) if first <= seq.saturating_add(1) => {
                tokio::time::sleep(PAUSE).await
            }
            Ok(ends) if ends.seq <= seq => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// Goes on after events that are no longer kept; what to say of it.
pub(super) fn skip(seq: &mut u64, Pruned { first }: Pruned) -> FromMaster {
    let missed = first.saturating_sub(*seq).saturating_sub(1);
    *seq = first.saturating_sub(1).max(*seq);
    FromMaster::Gap(Gap {
        missed,
        resume: *seq + 1,
        reason: "pruned".into(),
    })
}
