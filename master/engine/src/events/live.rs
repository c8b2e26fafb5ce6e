//! Live events on their way to watchers. They are bounded by number in each channel, and by bytes in
//! all of them together.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use taskmaster_protocol::EventView;
use tokio::sync::broadcast;

/// Bytes of the live events that some watcher has not taken yet. One event may have 256 KiB, and the
/// channels would hold a gigabyte of such events.
const LIVE_BYTES_MAX: usize = 64 << 20;

/// A live event, or the place of one that was left out.
#[derive(Debug, Clone)]
pub enum LiveEvent {
    /// The event. Clones share it.
    Event(Arc<CountedEvent>),
    /// Too many bytes wait for watchers, so that nobody gets this event.
    LeftOut,
}

/// What a watcher of live events listens to.
pub type LiveEvents = broadcast::Receiver<LiveEvent>;

/// A live event that counts until the last watcher has taken it.
#[derive(Debug)]
pub struct CountedEvent {
    event: EventView,
    bytes: usize,
    waiting: LiveBytes,
}

impl Deref for CountedEvent {
    type Target = EventView;

    fn deref(&self) -> &EventView {
        &self.event
    }
}

impl Drop for CountedEvent {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.bytes, Relaxed);
    }
}

/// Counts the bytes of all live events that wait. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveBytes(Arc<AtomicUsize>);

impl LiveBytes {
    /// Counts an event in, where there is space for it.
    pub fn take(&self, event: EventView) -> LiveEvent {
        let bytes = event.bytes();
        let before = self.0.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > LIVE_BYTES_MAX {
            self.0.fetch_sub(bytes, Relaxed);
            return LiveEvent::LeftOut;
        }
        LiveEvent::Event(Arc::new(CountedEvent {
            event,
            bytes,
            waiting: self.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{EventKind, Json, Wall};

    fn event(bytes: usize) -> EventView {
        EventView {
            seq: None,
            time: Wall(0),
            event: EventKind::TaskPartial,
            task: None,
            module: None,
            job: None,
            runner: None,
            data: Json::of(&"x".repeat(bytes)),
        }
    }

    #[test]
    fn large_live_events_wait_within_a_bound_and_count_until_the_last_watcher_has_them() {
        let counted = LiveBytes::default();
        let channel = broadcast::Sender::new(4_096);
        let mut quick = channel.subscribe();
        let mut slow = channel.subscribe();
        for _ in 0..1_000 {
            channel.send(counted.take(event(256 << 10))).unwrap();
            quick.try_recv().unwrap();
            assert!(counted.0.load(Relaxed) <= LIVE_BYTES_MAX);
        }
        let mut kept = 0;
        let mut left_out = 0;
        while let Ok(event) = slow.try_recv() {
            match event {
                LiveEvent::Event(event) => {
                    assert_eq!(event.event.event, EventKind::TaskPartial);
                    kept += 1;
                }
                LiveEvent::LeftOut => left_out += 1,
            }
        }
        assert!((240..256).contains(&kept), "{kept} of 256 KiB in 64 MiB");
        assert_eq!(kept + left_out, 1_000);
        // Everybody has everything, so there is space again.
        assert_eq!(counted.0.load(Relaxed), 0);
        assert!(matches!(counted.take(event(1)), LiveEvent::Event(_)));
    }
}
