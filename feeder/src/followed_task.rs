//! One task that is waited for, and what comes of it until it ends. A connection that breaks is made
//! again.

use crate::client::{Client, ClientError, SeenPartials};
use crate::waiting::reconnect;
use crate::wire::{FinalMessage, FinalTask, HotMessage, read_hot};
use serde::Deserialize;
use std::collections::VecDeque;
use taskmaster_protocol::message::{Follow, PartialResult, Query, Watch};
use taskmaster_protocol::{EventFilter, EventKind, FromMaster, Json, TaskId, ToMaster};

/// What came of a task.
pub enum TaskNews {
    /// A partial result.
    Partial(PartialResult),
    /// The sentence that was asked for with [`FollowedTask::ask_why`].
    Why(String),
    /// How far the task is, as its module says.
    Progress(TaskProgress),
    /// A new attempt begins, or the last one has failed.
    Attempt,
    /// The task has ended. It is as the master wrote it.
    Ended(Json),
}

/// How far a task is.
#[derive(Debug, Clone, Deserialize)]
pub struct TaskProgress {
    /// From 0 to 1.
    pub fraction: f64,
    /// For people; often empty.
    #[serde(default)]
    pub note: String,
}

/// A task that is followed.
pub struct FollowedTask<'a> {
    client: &'a mut Client,
    follow: ToMaster,
    watch: Option<ToMaster>,
    id: TaskId,
    seen: SeenPartials,
    /// Came in one message with what was given last.
    news: VecDeque<TaskNews>,
    /// The question that waits for its answer.
    question: Option<u64>,
}

impl<'a> FollowedTask<'a> {
    /// Follows a task, with its partial results where they are wanted.
    pub fn begin(client: &'a mut Client, id: &TaskId, partials: bool) -> FollowedTask<'a> {
        let follow = ToMaster::Follow(Follow {
            job: None,
            ids: vec![id.clone()],
            since: None,
            partials,
        });
        client.send(&follow);
        FollowedTask {
            client,
            follow,
            watch: None,
            id: id.clone(),
            seen: SeenPartials::default(),
            news: VecDeque::new(),
            question: None,
        }
    }

    /// What was asked for with [`watch_progress`] is asked for on every later connection, too.
    pub fn keep_watching(&mut self, watch: ToMaster) {
        self.watch = Some(watch);
    }

    /// Asks why the task is where it is. An earlier question is forgotten.
    pub fn ask_why(&mut self) {
        let query = Query::Why {
            id: self.id.clone(),
        };
        self.question = Some(self.client.send_question(query));
    }

    /// What comes next. The future may be dropped and made again: nothing is lost.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`], after which [`FollowedTask::reconnect`] goes on, or the master's
    /// refusal.
    pub async fn next(&mut self) -> Result<TaskNews, ClientError> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            let text = self.client.receive().await?;
            self.take(&text)?;
        }
    }

    /// Connects again and goes on.
    pub async fn reconnect(&mut self, lost: &ClientError) -> Result<(), ClientError> {
        reconnect(self.client, lost).await?;
        self.question = None;
        self.client.send(&self.follow);
        if let Some(watch) = &self.watch {
            self.client.send(watch);
        }
        Ok(())
    }

    fn take(&mut self, text: &str) -> Result<(), ClientError> {
        match read_hot(text) {
            Some(HotMessage::Final(message)) => {
                self.news
                    .extend(find(&self.id, &message).map(TaskNews::Ended));
                return Ok(());
            }
            Some(HotMessage::Watch(events)) => {
                let events = events.iter().filter_map(|event| news_of(event.get()));
                self.news.extend(events);
                return Ok(());
            }
            None => {}
        }
        match FromMaster::decode(text) {
            Ok(FromMaster::Partials(partials)) => {
                let new = partials
                    .into_iter()
                    .filter_map(|partial| self.seen.take(partial));
                self.news.extend(new.map(TaskNews::Partial));
            }
            Ok(FromMaster::Answer(answer)) if self.question == Some(answer.reference) => {
                self.question = None;
                let reason: Result<Reason, _> = answer.data.read();
                self.news
                    .extend(reason.ok().map(|it| TaskNews::Why(it.why)));
            }
            // A question about a task that has just ended is no mistake.
            Ok(FromMaster::Refused(refused)) if refused.reference.is_none() => {
                return Err(refused.error.into());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Asks to be told of the progress and the attempts of a task, which need not be added yet: what it
/// tells at once would be missed otherwise. Gives the message.
pub fn watch_progress(client: &Client, id: &TaskId) -> ToMaster {
    let kinds = [
        EventKind::TaskProgress,
        EventKind::TaskAssigned,
        EventKind::TaskRetrying,
    ];
    let watch = ToMaster::Watch(Watch {
        filter: EventFilter {
            events: kinds.map(|kind| kind.as_str().to_owned()).into(),
            task: Some(id.clone()),
            ..EventFilter::default()
        },
        since: None,
    });
    client.send(&watch);
    watch
}

/// Waits until a task has ended, and gives it as the master wrote it.
pub async fn task_end(client: &mut Client, id: &TaskId) -> Result<Json, ClientError> {
    let mut task = FollowedTask::begin(client, id, false);
    loop {
        match task.next().await {
            Ok(TaskNews::Ended(end)) => return Ok(end),
            Ok(_) => {}
            Err(lost @ ClientError::Lost(_)) => task.reconnect(&lost).await?,
            Err(other) => return Err(other),
        }
    }
}

/// The part of the answer to [`Query::Why`] that is shown.
#[derive(Deserialize)]
struct Reason {
    why: String,
}

/// The part of an event that is looked at.
#[derive(Deserialize)]
struct WatchedEvent<'a> {
    event: EventKind,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

fn news_of(event: &str) -> Option<TaskNews> {
    let watched: WatchedEvent<'_> = serde_json::from_str(event).ok()?;
    if watched.event != EventKind::TaskProgress {
        return Some(TaskNews::Attempt);
    }
    serde_json::from_str(watched.data.get())
        .ok()
        .map(TaskNews::Progress)
}

fn find(id: &TaskId, message: &FinalMessage<'_>) -> Option<Json> {
    let task = message.tasks.iter().find(|task| {
        serde_json::from_str::<FinalTask<'_>>(task.get())
            .is_ok_and(|ended| ended.id.0 == id.as_str())
    })?;
    Json::parse(task.get()).ok()
}
