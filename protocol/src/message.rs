//! The events of the wire. One WebSocket message holds one JSON object,
//! `{"event":"task:add","data":…}`.
//!
//! Tasks and attempts travel in batches, as arrays. A message with a `ref` is answered by exactly
//! one `answer` or `refused` with the same `ref`; a client chooses these numbers for itself, per
//! connection.

mod assignment;
mod cache;
mod feed;
mod hello;
mod operate;
mod question;
mod report;
mod watch;

pub use crate::offer::Offer;
pub use crate::shape::ModuleVersion;
pub use assignment::{Announce, Assignment, Attempt, ResultRef};
pub use cache::{
    BadKeyPrefix, CacheOutcome, CacheReason, CacheStats, KeptAnswerFilter, KeptAnswerView,
    KeptAnswersPageQuery, KeyPrefix,
};
pub use feed::{Add, Added, Follow, JobRef, PartialResult, Rejected, Rejection, TasksEnded};
pub use hello::{Hello, Role, Welcome};
pub use operate::{Cancel, ChangeTask, Operate, Operation, Retry};
pub use question::{Answer, Page, Query, Question, Refused, Status, Trouble, TroubleKind};
pub use report::{
    Compiled, Compiling, CreditRequest, Done, Failed, LiveOutput, Log, PartialOutput, Started,
};
pub use watch::{Gap, Watch};

use crate::excerpt::excerpt;
use crate::{EventView, Refusal, RefusalCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A message whose data is not read yet. `data` may stand before `event`.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Makes the enum of one direction from `Variant = "event": Data` lines.
macro_rules! messages {
    (
        $(#[$enum_doc:meta])*
        $enum:ident {
            $($(#[$doc:meta])* $name:ident = $event:literal: $data:ty),* $(,)?
        }
    ) => {
        $(#[$enum_doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "event", content = "data")]
        #[allow(
            clippy::large_enum_variant,
            reason = "messages are moved once or twice; a box per message costs more"
        )]
        pub enum $enum {
            $($(#[$doc])* #[serde(rename = $event)] $name($data),)*
        }

        impl $enum {
            /// The names of all events of this direction.
            pub const EVENTS: &'static [&'static str] = &[$($event),*];

            /// The event's name on the wire.
            pub fn event(&self) -> &'static str {
                match self {
                    $($enum::$name(_) => $event),*
                }
            }

            /// Reads one message.
            pub fn decode(text: &str) -> Result<$enum, Refusal> {
                let Envelope { event, data } = open(text)?;
                let data = data.map_or("null", RawValue::get);
                match event.as_ref() {
                    $($event => crate::refusal::read::<$data>(data).map($enum::$name),)*
                    other => Err(unknown_event(other, $enum::EVENTS)),
                }
            }

            /// Writes one message.
            pub fn encode(&self) -> String {
                // Our own types always serialise: string keys, no failing implementations.
                serde_json::to_string(self).unwrap_or_default()
            }

            pub(crate) fn schemas(
                generator: &mut schemars::SchemaGenerator,
            ) -> Vec<(&'static str, schemars::Schema)> {
                vec![$(($event, generator.subschema_for::<$data>())),*]
            }
        }
    };
}

fn open(text: &str) -> Result<Envelope<'_>, Refusal> {
    // serde would take an array for the fields in their order.
    if text.trim_start().starts_with('[') {
        let text = "a message is an object, {\"event\":…,\"data\":…}, not an array";
        return Err(Refusal::new(RefusalCode::WrongType, text));
    }
    crate::refusal::read(text)
}

fn unknown_event(event: &str, known: &[&str]) -> Refusal {
    let hint = crate::near::hint(event, known.iter().copied());
    let text = format!("unknown event `{}`{hint}", excerpt(event));
    Refusal::new(RefusalCode::UnknownEvent, text).at("event")
}

messages! {
    /// What runners and clients send to the master.
    ToMaster {
        /// The first message of a connection.
        Hello = "hello": Hello,
        /// How many attempts a runner takes and, after a connect, which ones it holds.
        Request = "task:request": CreditRequest,
        /// For watchers: guest code started. Short attempts, of a few milliseconds, are not told
        /// of.
        Started = "task:started": Vec<Started>,
        /// Attempts that ended with a result.
        Done = "task:done": Vec<Done>,
        /// Attempts that ended without a result.
        Failed = "task:error": Vec<Failed>,
        /// The answer to every `task:recall`, also to an empty one: attempts that are given back
        /// because they have not started; often none.
        Returned = "task:returned": Vec<Attempt>,
        /// For watchers: how far modules are.
        Progress = "task:progress": Vec<LiveOutput>,
        /// For followers and watchers: partial results.
        Partial = "task:partial": Vec<PartialOutput>,
        /// For watchers: lines of logs.
        Log = "task:log": Vec<LiveOutput>,
        /// Modules that a runner compiled, or failed to compile.
        Compiled = "module:compiled": Vec<Compiled>,
        /// For watchers: modules that a runner is still compiling.
        Compiling = "module:compiling": Vec<Compiling>,
        /// Tasks to add.
        Add = "task:add": Add,
        /// The input of a feed has ended, so that its session holds the job no longer.
        Release = "job:release": JobRef,
        /// A request to be told of tasks that end.
        Follow = "task:follow": Follow,
        /// Tasks to cancel, or a job.
        Cancel = "task:cancel": Cancel,
        /// Ended tasks to open again.
        Retry = "task:retry": Retry,
        /// A change of an open task.
        Set = "task:set": ChangeTask,
        /// Something to do to a job, a module or a runner.
        Operate = "operate": Operate,
        /// A request to be shown events.
        Watch = "watch": Watch,
        /// A question about tasks, jobs, modules, runners or the master.
        Ask = "query": Question,
    }
}

messages! {
    /// What the master sends to runners and clients.
    FromMaster {
        /// The answer to `hello`.
        Welcome = "welcome": Welcome,
        /// A message that was refused, and why. After a refused `hello` the connection is closed.
        Refused = "refused": Refused,
        /// The answer to a message with a `ref`.
        Answer = "answer": Answer,
        /// Attempts to run.
        Send = "task:send": Vec<Assignment>,
        /// Attempts to give back if they have not started. Empty: the runner only has to answer.
        Recall = "task:recall": Vec<Attempt>,
        /// Attempts to stop. Their results are void.
        Cancel = "task:cancel": Vec<Attempt>,
        /// Attempts whose results are durable or void, so that the runner may forget them.
        Ack = "task:ack": Vec<Attempt>,
        /// The runner shall take no more attempts, and leave when it has finished.
        Drain = "runner:drain": (),
        /// Modules to compile before a task needs them.
        Announce = "module:announce": Vec<Announce>,
        /// A batch of tasks that is durable.
        Added = "task:added": Added,
        /// Tasks of a batch that were not added.
        Rejected = "task:rejected": Rejected,
        /// Partial results of open tasks.
        Partials = "task:partial": Vec<PartialResult>,
        /// Tasks that ended.
        Final = "task:final": TasksEnded,
        /// Events, the oldest first.
        Events = "watch": Vec<EventView>,
        /// Events that will not be shown.
        Gap = "watch:gap": Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobName, TaskId};

    #[test]
    fn a_message_reads_what_it_writes_in_either_order() {
        let text = r#"{"event":"job:release","data":{"job":"j"}}"#;
        let message = ToMaster::decode(text).unwrap();
        assert_eq!(
            message,
            ToMaster::Release(JobRef {
                job: JobName::new("j").unwrap()
            })
        );
        assert_eq!(message.encode(), text);
        assert_eq!(
            ToMaster::decode(r#"{"data":{"job":"j"},"event":"job:release"}"#).unwrap(),
            message
        );
    }

    #[test]
    fn questions_are_flat() {
        let ask = ToMaster::Ask(Question {
            reference: 7,
            query: Query::Task {
                id: TaskId::new("t").unwrap(),
            },
        });
        let text = r#"{"event":"query","data":{"ref":7,"what":"task","id":"t"}}"#;
        assert_eq!(ask.encode(), text);
        assert_eq!(ToMaster::decode(text).unwrap(), ask);
        assert_eq!(
            ToMaster::decode(r#"{"event":"query","data":{"ref":1,"what":"jobs"}}"#).unwrap(),
            ToMaster::Ask(Question {
                reference: 1,
                query: Query::JOBS
            })
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (text, code, words) in [
            ("", RefusalCode::MalformedJson, "not JSON"),
            ("[1,2]", RefusalCode::WrongType, "is an object"),
            (r#"{"data":1}"#, RefusalCode::MissingField, "event"),
            (
                r#"{"event":"task:ad","data":{}}"#,
                RefusalCode::UnknownEvent,
                "`task:add`",
            ),
            (
                r#"{"event":"task:add","data":{"batch":"x","tasks":[]}}"#,
                RefusalCode::WrongType,
                "`batch`",
            ),
        ] {
            let refusal = ToMaster::decode(text).unwrap_err();
            assert_eq!(refusal.code, code, "{text}: {refusal}");
            assert!(refusal.message.contains(words), "{text}: {refusal}");
        }
    }
}
