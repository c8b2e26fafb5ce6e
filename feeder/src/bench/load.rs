//! The tasks of a bench: numbered, sent in batches that are written by hand, and checked as they
//! end.

use crate::client::Client;
use crate::error::CommandError;
use crate::wire::{JsonStr, read_final, starts_as_added};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use std::ops::Range;
use taskmaster_protocol::{FromMaster, JobName, RefusalCode, TaskState, limits};

/// Tasks of one batch, as `feed` has it.
const BATCH_TASKS: u32 = 1_024;

/// Tasks that may be open at a time: enough that no slot ever waits, few enough that the queue
/// stays in the caches.
const OPEN_TASKS_MAX: u32 = 32 << 10;

/// Bytes of a batch's message beside its tasks, about.
const MESSAGE_BYTES: usize = 128;

/// Bytes of a task beside its prefix and its module, about.
const TASK_BYTES: usize = 48;

/// Which tasks wait for which.
#[derive(Debug, Clone, Copy)]
pub(super) enum LoadShape {
    /// None waits for another.
    Independent { tasks: u32 },
    /// Each waits for the one before it.
    Chain { tasks: u32 },
    /// All but the first wait for the first, and the last waits for all others.
    Fan { width: u32 },
}

impl LoadShape {
    /// How many tasks it has.
    pub(super) fn tasks(self) -> u32 {
        match self {
            LoadShape::Independent { tasks } | LoadShape::Chain { tasks } => tasks,
            LoadShape::Fan { width } => width + 2,
        }
    }

    /// For which of the tasks before it the task `index` waits.
    fn dependencies(self, index: u32) -> Range<u32> {
        match self {
            LoadShape::Independent { .. } => 0..0,
            LoadShape::Chain { .. } => index.saturating_sub(1)..index,
            LoadShape::Fan { width } if index == width + 1 => 1..index,
            LoadShape::Fan { .. } => 0..index.min(1),
        }
    }
}

/// Adds numbered tasks to a job of their own and checks their results. Task 7 has the id `<job>-7`
/// and the params `7`, and its result must be `7`.
pub(super) struct BenchLoad {
    module: String,
    job: JobName,
    /// The text before the number in every id.
    prefix: String,
    batches: u64,
    /// The number of the next task.
    next: u32,
    /// Whether the task `first + index` has ended.
    ended: Vec<bool>,
    /// The number of the first task of this run.
    first: u32,
    open: u32,
    /// Batches that the master has not answered.
    unanswered: usize,
}

/// The part of `task:final` that is checked.
#[derive(Deserialize)]
struct BenchFinal<'a> {
    #[serde(borrow)]
    tasks: Vec<BenchResult<'a>>,
}

#[derive(Deserialize)]
struct BenchResult<'a> {
    #[serde(borrow)]
    id: JsonStr<'a>,
    state: TaskState,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

impl BenchLoad {
    /// Tasks of `module`, in a new job.
    pub(super) fn new(module: &str) -> Result<BenchLoad, CommandError> {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let name = format!("b{}", unique.get(20..).unwrap_or(&unique));
        let job = JobName::new(&name).map_err(|error| CommandError::Local(error.to_string()))?;
        Ok(BenchLoad {
            module: module.to_owned(),
            job,
            prefix: format!("{name}-"),
            batches: 0,
            next: 0,
            ended: Vec::new(),
            first: 0,
            open: 0,
            unanswered: 0,
        })
    }

    /// The job of the tasks.
    pub(super) fn job(&self) -> &JobName {
        &self.job
    }

    /// Adds tasks and waits until all of them are durably done and checked.
    pub(super) async fn run(
        &mut self,
        client: &mut Client,
        shape: LoadShape,
    ) -> Result<(), CommandError> {
        let count = shape.tasks();
        let end = self.next + count;
        self.first = self.next;
        self.ended.clear();
        self.ended.resize(count as usize, false);
        while self.next < end || self.open > 0 || self.unanswered > 0 {
            while self.next < end
                && self.unanswered < limits::BATCHES_IN_FLIGHT_MAX
                && self.open < OPEN_TASKS_MAX
            {
                let batch_end = end.min(self.next + BATCH_TASKS);
                client.send_text(self.batch(shape, batch_end));
            }
            let text = client.receive().await?;
            self.take(&text)?;
        }
        Ok(())
    }

    /// The message that adds the next tasks, up to the number `end`.
    fn batch(&mut self, shape: LoadShape, end: u32) -> String {
        self.batches += 1;
        let batch = self.batches;
        let job = &self.job;
        let module = &self.module;
        let prefix = &self.prefix;

        let count = (end - self.next) as usize;
        let task_bytes = prefix.len() + module.len() + TASK_BYTES;
        let mut text = String::with_capacity(MESSAGE_BYTES + count * task_bytes);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{{"event":"task:add","data":{{"batch":{batch},"job":"{job}","hold":true,"tasks":["#
        );
        for number in self.next..end {
            let comma = if number == self.next { "" } else { "," };
            let _ = write!(
                text,
                r#"{comma}{{"id":"{prefix}{number}","module":"{module}","params":{number}"#
            );
            let first = self.first;
            for (nth, on) in shape.dependencies(number - first).enumerate() {
                let begin = if nth == 0 {
                    r#","dependencies":["#
                } else {
                    ","
                };
                let _ = write!(text, r#"{begin}"{prefix}{}""#, first + on);
            }
            let ends_list = !shape.dependencies(number - first).is_empty();
            text.push_str(if ends_list { "]}" } else { "}" });
        }
        text.push_str("]}}");

        self.open += end - self.next;
        self.next = end;
        self.unanswered += 1;
        text
    }

    fn take(&mut self, text: &str) -> Result<(), CommandError> {
        // A batch without a rejection is taken whole, so the ids in its answer need not be read.
        if starts_as_added(text) {
            self.batch_answered();
            return Ok(());
        }
        if let Some(message) = read_final::<BenchFinal<'_>>(text) {
            return message.tasks.iter().try_for_each(|task| self.check(task));
        }
        match FromMaster::decode(text) {
            Ok(FromMaster::Added(_)) => {
                self.batch_answered();
                Ok(())
            }
            Ok(FromMaster::Rejected(rejected)) => Err(match rejected.tasks.into_iter().next() {
                Some(task) => task.error.into(),
                None => wrong("a task was refused".into()),
            }),
            Ok(FromMaster::Refused(refused)) => Err(refused.error.into()),
            Ok(FromMaster::Final(_)) => Err(CommandError::Local(
                "the master told of tasks that cannot be read".into(),
            )),
            _ => Ok(()),
        }
    }

    fn batch_answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Checks that a task ends once, is done, and has its own params as its result.
    fn check(&mut self, task: &BenchResult<'_>) -> Result<(), CommandError> {
        let id = &task.id.0;
        let Some(digits) = id.strip_prefix(&self.prefix) else {
            return Ok(());
        };
        let ended = digits
            .parse::<u32>()
            .ok()
            .and_then(|number| number.checked_sub(self.first))
            .and_then(|index| self.ended.get_mut(index as usize));
        let Some(ended) = ended else {
            return Err(wrong(format!("task {id} ended, which was not sent")));
        };
        if std::mem::replace(ended, true) {
            return Err(wrong(format!("task {id} ended twice")));
        }
        let result = task.result.map_or("nothing", RawValue::get);
        if task.state != TaskState::Done || result != digits {
            let state = task.state.as_str();
            return Err(wrong(format!(
                "task {id} is {state} with {result}, it should be done with {digits}"
            )));
        }
        self.open = self.open.saturating_sub(1);
        Ok(())
    }
}

fn wrong(what: String) -> CommandError {
    CommandError::refused(RefusalCode::Internal, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{TaskDocument, ToMaster};

    fn sent(n: u32) -> (BenchLoad, String) {
        sent_as(LoadShape::Independent { tasks: n })
    }

    fn sent_as(shape: LoadShape) -> (BenchLoad, String) {
        let mut load = BenchLoad::new("echo").unwrap();
        load.ended.resize(shape.tasks() as usize, false);
        let text = load.batch(shape, shape.tasks());
        (load, text)
    }

    #[test]
    fn in_a_chain_and_a_fan_each_task_waits_for_those_that_it_should() {
        let chain: &[&[&str]] = &[&[], &["0"], &["1"]];
        let fan: &[&[&str]] = &[&[], &["0"], &["0"], &["1", "2"]];
        for (shape, expected) in [
            (LoadShape::Chain { tasks: 3 }, chain),
            (LoadShape::Fan { width: 2 }, fan),
        ] {
            let (load, text) = sent_as(shape);
            let ToMaster::Add(add) = ToMaster::decode(&text).unwrap() else {
                panic!("not an add")
            };
            let numbers = |task: &taskmaster_protocol::Json| {
                let document = TaskDocument::parse(task.get()).unwrap();
                let on = document.dependencies.iter();
                on.map(|it| {
                    it.on
                        .as_str()
                        .strip_prefix(&load.prefix)
                        .unwrap()
                        .to_owned()
                })
                .collect::<Vec<_>>()
            };
            let all: Vec<Vec<String>> = add.tasks.iter().map(numbers).collect();
            assert_eq!(all, expected);
        }
    }

    fn ended(load: &mut BenchLoad, i: u32, state: &str, result: &str) -> Result<(), CommandError> {
        let id = format!("{}{i}", load.prefix);
        let task = format!(r#"{{"id":"{id}","state":"{state}","result":{result}}}"#);
        load.take(&format!(
            r#"{{"event":"task:final","data":{{"seq":1,"tasks":[{task}]}}}}"#
        ))
    }

    #[test]
    fn a_batch_is_what_a_master_reads() {
        let (load, text) = sent(3);
        let ToMaster::Add(add) = ToMaster::decode(&text).unwrap() else {
            panic!("not an add")
        };
        assert_eq!(add.batch, 1);
        assert_eq!(add.job.as_ref(), Some(&load.job));
        assert_eq!(add.tasks.len(), 3);
        let documents: Vec<_> = add
            .tasks
            .iter()
            .map(|task| TaskDocument::parse(task.get()).unwrap())
            .collect();
        assert_eq!(documents[2].params.as_ref().unwrap().get(), "2");
        assert_eq!(load.open, 3);
        assert_eq!(load.unanswered, 1);
    }

    #[test]
    fn a_wrong_a_missing_and_a_second_result_are_noticed() {
        let (mut load, _) = sent(3);
        ended(&mut load, 0, "done", "0").unwrap();
        for (i, state, result, words) in [
            (0, "done", "0", "twice"),
            (1, "done", "7", "with 7"),
            (2, "failed", "null", "failed"),
            (9, "done", "9", "not sent"),
        ] {
            let error = ended(&mut load, i, state, result).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(load.open, 2);
    }

    #[test]
    fn messages_are_read_however_a_master_writes_them() {
        let (mut load, _) = sent(2);
        let prefix = load.prefix.clone();
        let task = |n: u32| format!(r#"{{"id":"{prefix}{n}","state":"done","result":{n}}}"#);
        let behind = format!(
            r#"{{"event":"task:final","data":{{"seq":1,"tasks":[{}]}},"more":{{}}}}"#,
            task(0)
        );
        load.take(&behind).unwrap();
        let spaced = format!(
            r#"{{ "data": {{"tasks":[{}]}}, "event": "task:final" }}"#,
            task(1)
        );
        load.take(&spaced).unwrap();
        assert_eq!(load.open, 0);

        load.take(r#"{ "event":"task:added", "data":{"batch":1,"ids":[]} }"#)
            .unwrap();
        assert_eq!(load.unanswered, 0);
    }
}
