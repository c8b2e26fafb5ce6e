//! The hot messages of the protocol, read without copying: the ends of tasks, and events. A client
//! takes from them what it needs and passes the text on as it came.
//!
//! A message that is written the way our masters write is known by its first bytes, which saves a
//! walk over the whole text. Any other way to write it is read as well. Everything else is read by
//! `FromMaster::decode`.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use taskmaster_protocol::TaskState;

const FINAL_START: &str = r#"{"event":"task:final","data":"#;
const WATCH_START: &str = r#"{"event":"watch","data":"#;
const ADDED_START: &str = r#"{"event":"task:added","data":"#;

/// A JSON string, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub struct JsonStr<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A `task:final`: tasks that have ended.
#[derive(Deserialize)]
pub struct FinalMessage<'a> {
    /// Follow from this seq after a reconnect.
    pub seq: Option<u64>,
    /// Each task as it was sent.
    #[serde(borrow)]
    pub tasks: Vec<&'a RawValue>,
    /// The run of a followed job that became done.
    #[serde(default)]
    pub job_done: Option<u32>,
}

/// What a client must know of a task that ended.
#[derive(Deserialize)]
pub struct FinalTask<'a> {
    /// The id of the task.
    #[serde(borrow)]
    pub id: JsonStr<'a>,
    /// The final state of the task.
    pub state: TaskState,
    /// The name of the task's job.
    #[serde(borrow)]
    pub job: JsonStr<'a>,
}

/// A message that comes often enough to be read without copying.
pub enum HotMessage<'a> {
    /// `task:final`.
    Final(FinalMessage<'a>),
    /// `watch`: each event as it was sent.
    Watch(Vec<&'a RawValue>),
}

/// Reads a message if it is a hot one. `None` where it is another, or cannot be read.
pub fn read_hot(text: &str) -> Option<HotMessage<'_>> {
    let quick = read_after(FINAL_START, text)
        .map(HotMessage::Final)
        .or_else(|| read_after(WATCH_START, text).map(HotMessage::Watch));
    // Answers to batches are long and frequent, and not read here.
    if quick.is_some() || starts_as_added(text) {
        return quick;
    }
    let message: AnyMessage<'_> = serde_json::from_str(text).ok()?;
    let data = message.data?.get();
    match message.event.0.as_ref() {
        "task:final" => serde_json::from_str(data).ok().map(HotMessage::Final),
        "watch" => serde_json::from_str(data).ok().map(HotMessage::Watch),
        _ => None,
    }
}

/// Reads the data of a `task:final` as `T`. `None` where the message is another, or its data no
/// `T`.
pub fn read_final<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    read_after(FINAL_START, text).or_else(|| {
        let message: AnyMessage<'_> = serde_json::from_str(text).ok()?;
        if message.event.0 != "task:final" {
            return None;
        }
        serde_json::from_str(message.data?.get()).ok()
    })
}

/// Whether a message is `task:added`, as our masters write it. `false` says nothing: the message
/// may be written another way.
pub fn starts_as_added(text: &str) -> bool {
    text.starts_with(ADDED_START)
}

/// A message of any event.
#[derive(Deserialize)]
struct AnyMessage<'a> {
    #[serde(borrow)]
    event: JsonStr<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads what stands between `start` and the last brace. Fails where more stands behind the data.
fn read_after<'a, T: Deserialize<'a>>(start: &str, text: &'a str) -> Option<T> {
    let data = text.strip_prefix(start)?.strip_suffix('}')?;
    serde_json::from_str(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One `task:final` with one task, in three ways to write it.
    const FINALS: [&str; 3] = [
        concat!(
            r#"{"event":"task:final","data":{"seq":7,"tasks":["#,
            r#"{"id":"a","state":"done","job":"j","result": 1 }]}}"#,
        ),
        concat!(
            r#"{ "data":{"tasks":[{"id":"a","state":"done","job":"j","result": 1 }],"#,
            r#""seq":7}, "event":"task:final" }"#,
        ),
        concat!(
            r#"{"event":"task:final","data":{"seq":7,"tasks":["#,
            r#"{"id":"a","state":"done","job":"j","result": 1 }]},"more":{}}"#,
        ),
    ];

    #[test]
    fn hot_messages_are_read_however_they_are_written() {
        for text in FINALS {
            let Some(HotMessage::Final(message)) = read_hot(text) else {
                panic!("{text}")
            };
            assert_eq!(message.seq, Some(7));
            assert_eq!(message.job_done, None);
            assert_eq!(message.tasks.len(), 1);

            let ended: FinalTask<'_> = serde_json::from_str(message.tasks[0].get()).unwrap();
            assert_eq!(ended.id.0, "a");
            assert_eq!(ended.state, TaskState::Done);
            assert_eq!(ended.job.0, "j");
        }
        for (text, count) in [
            (r#"{"event":"watch","data":[{"seq":1}]}"#, 1),
            (r#"{"event":"watch","data":[],"more":[]}"#, 0),
        ] {
            let Some(HotMessage::Watch(events)) = read_hot(text) else {
                panic!("{text}")
            };
            assert_eq!(events.len(), count);
        }
        assert!(read_hot(r#"{"event":"answer","data":{"ref":1,"data":null}}"#).is_none());
        assert!(read_hot("garbage").is_none());
    }

    #[test]
    fn the_ends_of_tasks_are_read_as_any_type() {
        #[derive(Deserialize)]
        struct Tasks<'a> {
            #[serde(borrow)]
            tasks: Vec<FinalTask<'a>>,
        }
        for text in FINALS {
            let tasks: Tasks<'_> = read_final(text).unwrap();
            assert_eq!(tasks.tasks[0].id.0, "a");
        }
        assert!(read_final::<Tasks<'_>>(r#"{"event":"watch","data":[]}"#).is_none());
        assert!(read_final::<Tasks<'_>>("garbage").is_none());
    }
}
