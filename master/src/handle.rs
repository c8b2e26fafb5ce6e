//! The handle by which the gateway and the task folder tell and ask the engine.

use taskmaster_engine::events::EventFeed;
use taskmaster_engine::inbox::{Input, Reply, waits_for_room};
use taskmaster_engine::room::{Disk, Room, TRY_EVERY};
use taskmaster_protocol::message::Query;
use taskmaster_protocol::{Json, Refusal, RefusalCode};
use taskmaster_store::kv::Reader;
use tokio::sync::oneshot;

/// Tells and asks the engine. Cheap to clone.
#[derive(Clone)]
pub struct MasterHandle {
    pub(crate) inbox: std::sync::mpsc::Sender<Input>,
    pub(crate) reader: Reader,
    /// Durable and live events, for watchers and followers.
    pub events: EventFeed,
    /// How many times a master has started on this journal.
    pub epoch: u32,
    /// How it stands with the disk.
    pub room: Room,
}

impl MasterHandle {
    /// Tells the engine. Never blocks; after a shutdown nobody listens any more.
    pub fn tell(&self, input: Input) {
        let _ = self.inbox.send(input);
    }

    async fn answer(&self, query: Query) -> Option<Reply> {
        let put = |query: &Query| {
            let (reply, answer) = oneshot::channel();
            self.tell(Input::Ask {
                query: query.clone(),
                reply,
            });
            answer
        };
        let mut answer = put(&query);
        if waits_for_room(&query) {
            return answer.await.ok();
        }
        // It may have come just before the engine heard that nothing can be written: then its
        // answer waits for that.
        loop {
            match tokio::time::timeout(TRY_EVERY, &mut answer).await {
                Ok(answer) => return answer.ok(),
                Err(_) if matches!(self.room.disk(), Disk::Full(_)) => answer = put(&query),
                Err(_) => {}
            }
        }
    }

    /// Asks, and waits for the whole answer.
    pub async fn ask(&self, query: Query) -> Result<Json, Refusal> {
        let gone = || Refusal::new(RefusalCode::Unavailable, "the master is stopping");
        match self.answer(query).await.ok_or_else(gone)? {
            Reply::Answer(json) => Ok(json),
            Reply::Refused(refusal) => Err(refusal),
            Reply::FromStore(lookup) => {
                let reader = self.reader.clone();
                tokio::task::spawn_blocking(move || lookup.complete(&reader))
                    .await
                    .map_err(|_| gone())?
            }
        }
    }
}
