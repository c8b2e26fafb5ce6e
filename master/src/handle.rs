//! The handle by which the gateway and the task folder tell and ask the engine.

use std::sync::mpsc;
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_engine::disk_monitor::{DiskMonitor, TRY_EVERY};
use taskmaster_engine::disk_space::DiskSpace;
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::inbox::{Input, Reply, waits_for_disk_space};
use taskmaster_engine::sick_runners::SickRunners;
use taskmaster_protocol::message::Query;
use taskmaster_protocol::{Refusal, RefusalCode};
use taskmaster_store::kv::SharedStore;
use tokio::sync::oneshot;

/// Tells and asks the engine. Cheap to clone.
#[derive(Clone)]
pub struct MasterHandle {
    pub(crate) inbox: mpsc::Sender<Input>,
    pub(crate) reader: SharedStore,
    /// Durable and live events, for watchers and followers.
    pub events: EventFeed,
    /// How many times a master has started on this journal.
    pub epoch: u32,
    /// Whether the disk has space.
    pub room: DiskMonitor,
    /// How many runners are sick.
    pub sick_runners: SickRunners,
}

impl MasterHandle {
    /// Tells the engine. Never blocks. After a shutdown nobody listens any more.
    pub fn tell(&self, input: Input) {
        let _ = self.inbox.send(input);
    }

    /// Asks, and waits for the whole answer.
    pub async fn ask(&self, query: Query) -> Result<QueryAnswer, Refusal> {
        let stopping = || Refusal::new(RefusalCode::Unavailable, "the master is stopping");
        match self.reply(query).await.ok_or_else(stopping)? {
            Reply::Answer(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(refusal),
            Reply::FromStore(lookup) => {
                let reader = self.reader.clone();
                let damage = self.room.damage();
                tokio::task::spawn_blocking(move || lookup.complete(&reader, &damage))
                    .await
                    .map_err(|_| stopping())?
            }
        }
    }

    /// The engine's reply. `None` where the engine stops.
    async fn reply(&self, query: Query) -> Option<Reply> {
        let mut reply = self.send_query(&query);
        if waits_for_disk_space(&query) {
            return reply.await.ok();
        }
        // The question may have come just before the engine heard that the disk is full, and then
        // its reply waits for space. Asked again, it is answered or refused at once.
        loop {
            match tokio::time::timeout(TRY_EVERY, &mut reply).await {
                Ok(reply) => return reply.ok(),
                Err(_) if matches!(self.room.disk(), DiskSpace::Full(_)) => {
                    reply = self.send_query(&query);
                }
                Err(_) => {}
            }
        }
    }

    fn send_query(&self, query: &Query) -> oneshot::Receiver<Reply> {
        let (reply, receiver) = oneshot::channel();
        self.tell(Input::Ask {
            query: query.clone(),
            reply,
        });
        receiver
    }
}
