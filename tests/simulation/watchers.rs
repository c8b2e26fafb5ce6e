//! Watchers. Each follows the durable events by their seq, over every cut and every restart of the
//! master. It must see each event once, in order, and as it is in the journal.

use crate::network::Parcel;
use crate::planted::Planted;
use crate::world::World;
use taskmaster_protocol::message::{Gap, Watch};
use taskmaster_protocol::{EventView, FromMaster, ToMaster};

#[derive(Default)]
pub struct Watcher {
    pub link: Option<u64>,
    /// The seq of the last event that the watcher has seen.
    pub seen: u64,
}

impl World {
    /// Sends every watcher the events that it was not sent yet, as the gateway does.
    pub fn feed_watchers(&mut self) {
        for at in 0..self.open_links.len() {
            let no = self.open_links[at];
            let Some(master) = &self.master else {
                return;
            };
            let link = self.links.get(&no).filter(|link| link.life == master.life);
            let Some(seq) = link.and_then(|link| link.watched) else {
                continue;
            };
            let (last, message) = match master.events.read_after(seq) {
                Ok(logged) if logged.is_empty() => continue,
                Ok(logged) => {
                    let views: Vec<EventView> = logged.iter().map(|event| event.view()).collect();
                    (
                        logged.last().map_or(seq, |event| event.seq()),
                        FromMaster::Events(views),
                    )
                }
                Err(pruned) => {
                    let missed = pruned.first.saturating_sub(seq + 1);
                    let gap = Gap {
                        missed,
                        resume: pruned.first.max(seq + 1),
                        reason: "pruned".into(),
                    };
                    self.oracle.claim(missed > 0, || {
                        format!("events after {seq} are there, and cannot be read")
                    });
                    (gap.resume - 1, FromMaster::Gap(gap))
                }
            };
            self.links
                .entry(no)
                .and_modify(|link| link.watched = Some(last));
            self.post(no, false, Parcel::Text(message.encode()));
        }
    }

    /// A client begins to watch, and says what it has seen.
    pub fn watch(&mut self, no: u64, watch: &Watch) {
        let Some(latest) = self.master.as_ref().map(|master| master.events.latest()) else {
            return;
        };
        let since = match self.planted {
            Some(Planted::WatcherGap) => latest,
            _ => watch.since.map_or(latest, |since| since.min(latest)),
        };
        self.links
            .entry(no)
            .and_modify(|link| link.watched = Some(since));
        self.flush();
    }

    pub fn watcher_hears(&mut self, index: usize, link: u64, parcel: Parcel) {
        let Parcel::Text(text) = parcel else { return };
        if self.watchers[index].link != Some(link) {
            return;
        }
        match FromMaster::decode(&text) {
            Ok(FromMaster::Welcome(_)) => {
                let since = Some(self.watchers[index].seen);
                let watch = ToMaster::Watch(Watch {
                    since,
                    ..Watch::default()
                });
                self.post(link, true, Parcel::Text(watch.encode()));
            }
            Ok(FromMaster::Events(events)) => events
                .iter()
                .for_each(|event| self.watcher_sees(index, event)),
            Ok(FromMaster::Gap(gap)) => {
                let seen = self.watchers[index].seen;
                let right = gap.missed > 0
                    && gap.resume == seen + 1 + gap.missed
                    && gap.resume <= self.oracle.kept_from;
                self.oracle.claim(right, || {
                    format!("a watcher that has seen {seen} is told of a gap: {gap:?}")
                });
                self.watchers[index].seen = gap.resume - 1;
            }
            Ok(_) => {}
            Err(refusal) => self.oracle.broken = Some(format!("{text} cannot be read: {refusal}")),
        }
    }

    fn watcher_sees(&mut self, index: usize, event: &EventView) {
        let seen = self.watchers[index].seen;
        let next = event.seq == Some(seen + 1);
        self.oracle.claim(next, || {
            format!("after event {seen} a watcher is told of {event:?}")
        });
        self.oracle.event_is_seen(event);
        self.watchers[index].seen = event.seq.unwrap_or(seen);
    }
}
