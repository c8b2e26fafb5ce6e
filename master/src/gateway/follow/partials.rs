//! Partial results of what a session follows. One task sends them as they come; and whoever tells of
//! an end sends first what waits, so that a task's end comes after all that it gave before.

use super::{MESSAGE_BYTES, SessionOver, Side};
use std::sync::Arc;
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::partials::PartialFollower;
use taskmaster_protocol::{FromMaster, JobName, TaskId};

/// The partial results that one session asked for.
pub(in crate::gateway) struct SessionPartials {
    follower: PartialFollower,
    side: Side,
}

impl SessionPartials {
    /// Follows nothing yet.
    pub(in crate::gateway) fn new(events: &EventFeed, side: Side) -> Arc<SessionPartials> {
        Arc::new(SessionPartials {
            follower: events.partials().new_follower(),
            side,
        })
    }

    /// Sends partial results as they come, until the session ends.
    pub(in crate::gateway) async fn run(self: Arc<SessionPartials>) {
        loop {
            tokio::select! {
                () = self.follower.waiting().grown() => {}
                () = self.side.closed() => return,
            }
            if self.send(u64::MAX).await.is_err() {
                return;
            }
        }
    }

    pub(in crate::gateway) fn follow_job(&self, job: &JobName) {
        self.follower.follow_job(job);
    }

    pub(in crate::gateway) fn follow_task(&self, id: &TaskId) {
        self.follower.follow_task(id);
    }

    /// Sends what came before now. To be called before the session is told of the ends of tasks.
    pub(super) async fn send_all(&self) -> Result<(), SessionOver> {
        let now = self.follower.waiting().last_serial();
        while !self.follower.waiting().is_empty() && self.send(now).await? {}
        Ok(())
    }

    /// Forgets tasks whose ends were told.
    pub(super) fn tasks_ended<'a>(&self, ids: impl Iterator<Item = &'a TaskId>) {
        ids.for_each(|id| self.follower.task_ended(id));
    }

    /// Sends one message of what came up to the number `serial`. Returns whether there was anything.
    async fn send(&self, serial: u64) -> Result<bool, SessionOver> {
        // The message is made when the writer has space for it: what comes meanwhile waits where it
        // is thinned out, and nobody else can send between the taking and the sending.
        let space = self.side.reserve().await.map_err(|_| SessionOver)?;
        let send = |partials| space.send(FromMaster::Partials(partials));
        Ok(self.follower.waiting().take(serial, MESSAGE_BYTES, send))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_engine::partials::GivenPartial;
    use taskmaster_protocol::{AttemptId, Json, Wall};
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn who_reads_slowly_gets_the_newest_and_is_told_how_many_it_missed() {
        let (handle, _inputs) = crate::modules::scratch::fake_engine();
        let (side, mut read) = mpsc::channel(1);
        let partials = SessionPartials::new(&handle.events, side);
        let id = TaskId::new("t").unwrap();
        partials.follow_task(&id);
        let sending = tokio::spawn(partials.clone().run());
        let all = 20_000;
        for n in 1..=all {
            let given = GivenPartial {
                attempt: AttemptId { epoch: 1, n: 1 },
                n,
                time: Wall(0),
                value: Json::of(&"x".repeat(1_000)),
            };
            let job = JobName::new("j").unwrap();
            handle.events.partials().publish(&job, &id, given);
            if n % 500 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // The end is told by another task of the session, behind everything that came before it.
        let telling = partials.clone();
        let ended = tokio::spawn(async move { telling.send_all().await.is_ok() });
        let (mut last, mut told, mut missed) = (0, 0, 0);
        while last < all {
            let Some(FromMaster::Partials(message)) = read.recv().await else {
                panic!("the session has ended");
            };
            for partial in message {
                assert!(partial.n > last);
                last = partial.n;
                told += 1;
                missed += partial.missed;
            }
        }
        assert_eq!(told + missed, all);
        assert!(missed > 0 && told > 200, "{told} told, {missed} missed");
        assert!(ended.await.unwrap(), "nothing is left to be sent");
        sending.abort();
    }
}
