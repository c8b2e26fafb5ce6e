//! The hot messages of the wire, read without copying: what a client needs of a task that ended,
//! and its text as it came. Everything else is read by `FromMaster::decode`.

use crate::feed::Text;
use serde::Deserialize;
use serde_json::value::RawValue;
use taskmaster_protocol::TaskState;

const FINAL: &str = r#"{"event":"task:final","data":"#;
const WATCH: &str = r#"{"event":"watch","data":"#;
const ADDED: &str = r#"{"event":"task:added","data":"#;

/// `task:final`, borrowed.
#[derive(Deserialize)]
pub struct Finals<'a> {
    /// Follow again from here.
    pub seq: Option<u64>,
    /// Each task as it was sent.
    #[serde(borrow)]
    pub tasks: Vec<&'a RawValue>,
    /// The run of a followed job that became done.
    #[serde(default)]
    pub job_done: Option<u32>,
}

/// What must be known of a task that ended.
#[derive(Deserialize)]
pub(crate) struct Ended<'a> {
    #[serde(borrow)]
    pub(crate) id: Text<'a>,
    pub(crate) state: TaskState,
    #[serde(borrow)]
    pub(crate) job: Text<'a>,
}

/// Events as they came.
pub type Events<'a> = Vec<&'a RawValue>;

/// A message of an event that is read here.
pub enum Hot<'a> {
    /// `task:final`.
    Finals(Finals<'a>),
    /// `watch`.
    Events(Events<'a>),
}

/// Reads a message where it is one of the hot ones. `None`: it is another, or cannot be read.
pub fn hot(text: &str) -> Option<Hot<'_>> {
    let finals = |data| serde_json::from_str(data).ok().map(Hot::Finals);
    let events = |data| serde_json::from_str(data).ok().map(Hot::Events);
    let quick = data_of(text, FINAL)
        .and_then(finals)
        .or_else(|| data_of(text, WATCH).and_then(events));
    // Answers to batches are long and frequent, and none of ours: no walk over them.
    if quick.is_some() || text.starts_with(ADDED) {
        return quick;
    }
    // What only begins as our masters write it, with more behind the data, is read here, too.
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    match envelope.event.0.as_ref() {
        "task:final" => finals(envelope.data?.get()),
        "watch" => events(envelope.data?.get()),
        _ => None,
    }
}

/// A message that is written the way our masters write, told by its first bytes alone.
pub enum Head<'a> {
    /// `task:final` with its data.
    Final(&'a str),
    /// `task:added`.
    Added,
}

impl<'a> Head<'a> {
    /// `None`: it is another message, or written in another way.
    pub fn of(text: &'a str) -> Option<Head<'a>> {
        if text.starts_with(ADDED) {
            return Some(Head::Added);
        }
        data_of(text, FINAL).map(Head::Final)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The data of a message that is written the way our masters write: saves a walk over the whole
/// text.
fn data_of<'a>(text: &'a str, head: &str) -> Option<&'a str> {
    text.strip_prefix(head)?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_messages_are_read_however_they_are_written() {
        for text in [
            r#"{"event":"task:final","data":{"seq":7,"tasks":[{"id":"a","state":"done","job":"j","result": 1 }]}}"#,
            r#"{ "data":{"tasks":[{"id":"a","state":"done","job":"j","result": 1 }],"seq":7}, "event":"task:final" }"#,
            r#"{"event":"task:final","data":{"seq":7,"tasks":[{"id":"a","state":"done","job":"j","result": 1 }]},"more":{}}"#,
        ] {
            let Some(Hot::Finals(finals)) = hot(text) else {
                panic!("{text}")
            };
            assert_eq!(
                (finals.seq, finals.job_done, finals.tasks.len()),
                (Some(7), None, 1)
            );
            let ended: Ended<'_> = serde_json::from_str(finals.tasks[0].get()).unwrap();
            assert_eq!(
                (ended.id.0.as_ref(), ended.state, ended.job.0.as_ref()),
                ("a", TaskState::Done, "j")
            );
        }
        assert!(
            matches!(hot(r#"{"event":"watch","data":[{"seq":1}]}"#), Some(Hot::Events(events)) if events.len() == 1)
        );
        assert!(
            matches!(hot(r#"{"event":"watch","data":[],"more":[]}"#), Some(Hot::Events(events)) if events.is_empty())
        );
        assert!(hot(r#"{"event":"answer","data":{"ref":1,"data":null}}"#).is_none());
        assert!(hot("garbage").is_none());
    }
}
