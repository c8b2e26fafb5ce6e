//! The bench's tasks: numbered, sent in batches by hand, and checked as they end.

use crate::client::Client;
use crate::trouble::Trouble;
use crate::wire::Head;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use taskmaster_protocol::{FromMaster, JobName, RefusalCode, TaskState, limits};

/// Tasks of one batch, as `feed` has it.
const BATCH_TASKS: u32 = 1_024;

/// Tasks that may be open at a time: enough that no slot ever waits, few enough that the queue
/// stays in the caches.
const OPEN_MAX: u32 = 32 << 10;

/// See the module's text. Task `i` has the id `<job>-<i>` and the params `i`.
pub struct Load {
    module: String,
    job: JobName,
    /// What stands before the number in every id.
    prefix: String,
    batches: u64,
    /// The number of the next task.
    next: u32,
    /// Whether task `first + i` has ended.
    ended: Vec<bool>,
    first: u32,
    open: u32,
    unanswered: usize,
}

/// `task:final`, as far as it matters here.
#[derive(Deserialize)]
struct Finals<'a> {
    #[serde(borrow)]
    tasks: Vec<Checked<'a>>,
}

#[derive(Deserialize)]
struct Checked<'a> {
    /// Ids of ours have nothing that JSON escapes.
    id: &'a str,
    state: TaskState,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

impl Load {
    /// Tasks of `module`, in a job of their own.
    pub fn new(module: &str) -> Result<Load, Trouble> {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let name = format!("b{}", unique.get(20..).unwrap_or(&unique));
        let job = JobName::new(&name).map_err(|error| Trouble::Local(error.to_string()))?;
        let prefix = format!("{name}-");
        Ok(Load {
            module: module.to_owned(),
            job,
            prefix,
            batches: 0,
            next: 0,
            ended: Vec::new(),
            first: 0,
            open: 0,
            unanswered: 0,
        })
    }

    /// The job of the tasks.
    pub fn job(&self) -> &JobName {
        &self.job
    }

    /// Adds `n` tasks and waits until all of them are durably done, each checked.
    pub async fn run(&mut self, client: &mut Client, n: u32) -> Result<(), Trouble> {
        let end = self.next + n;
        self.first = self.next;
        self.ended.clear();
        self.ended.resize(n as usize, false);
        while self.next < end || self.open > 0 || self.unanswered > 0 {
            while self.next < end
                && self.unanswered < limits::BATCHES_IN_FLIGHT_MAX
                && self.open < OPEN_MAX
            {
                let to = end.min(self.next + BATCH_TASKS);
                client.say_text(self.batch(to));
            }
            let text = client.hear().await?;
            self.take(&text)?;
        }
        Ok(())
    }

    /// The message that adds the tasks up to number `to`.
    fn batch(&mut self, to: u32) -> String {
        self.batches += 1;
        let (batch, job, module, prefix) = (self.batches, &self.job, &self.module, &self.prefix);
        let mut text = String::with_capacity(
            128 + (to - self.next) as usize * (prefix.len() + module.len() + 48),
        );
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{{"event":"task:add","data":{{"batch":{batch},"job":"{job}","hold":true,"tasks":["#
        );
        for i in self.next..to {
            let comma = if i == self.next { "" } else { "," };
            let _ = write!(
                text,
                r#"{comma}{{"id":"{prefix}{i}","module":"{module}","params":{i}}}"#
            );
        }
        text.push_str("]}}");
        self.open += to - self.next;
        self.next = to;
        self.unanswered += 1;
        text
    }

    fn take(&mut self, text: &str) -> Result<(), Trouble> {
        match Head::of(text) {
            Some(Head::Final(data)) => {
                let finals: Finals<'_> = serde_json::from_str(data).map_err(|error| {
                    Trouble::Local(format!(
                        "the master told of tasks that cannot be read: {error}"
                    ))
                })?;
                finals.tasks.iter().try_for_each(|task| self.check(task))
            }
            // A batch without a rejection is taken whole: its ids need not be read.
            Some(Head::Added) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                Ok(())
            }
            None => match FromMaster::decode(text) {
                Ok(FromMaster::Rejected(rejected)) => {
                    let refusal = rejected.tasks.into_iter().next().map(|task| task.error);
                    Err(refusal.map_or_else(|| wrong("a task was refused".into()), Trouble::from))
                }
                Ok(FromMaster::Refused(refused)) => Err(refused.error.into()),
                Ok(FromMaster::Final(_) | FromMaster::Added(_)) => Err(wrong(
                    "this master writes its messages in another way".into(),
                )),
                _ => Ok(()),
            },
        }
    }

    /// Every task ends once, done, with its own params as its result.
    fn check(&mut self, task: &Checked<'_>) -> Result<(), Trouble> {
        let Some(digits) = task.id.strip_prefix(&self.prefix) else {
            return Ok(());
        };
        let place = digits
            .parse::<u32>()
            .ok()
            .and_then(|i| i.checked_sub(self.first));
        let Some(ended) = place.and_then(|i| self.ended.get_mut(i as usize)) else {
            return Err(wrong(format!("task {} ended, which was not sent", task.id)));
        };
        if std::mem::replace(ended, true) {
            return Err(wrong(format!("task {} ended twice", task.id)));
        }
        let result = task.result.map_or("nothing", RawValue::get);
        if task.state != TaskState::Done || result != digits {
            let state = task.state.as_str();
            return Err(wrong(format!(
                "task {} is {state} with {result}, it should be done with {digits}",
                task.id
            )));
        }
        self.open = self.open.saturating_sub(1);
        Ok(())
    }
}

fn wrong(what: String) -> Trouble {
    Trouble::refused(RefusalCode::Internal, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{TaskDocument, ToMaster};

    fn sent(n: u32) -> (Load, String) {
        let mut load = Load::new("echo").unwrap();
        load.ended.resize(n as usize, false);
        let text = load.batch(n);
        (load, text)
    }

    fn ended(load: &mut Load, i: u32, state: &str, result: &str) -> Result<(), Trouble> {
        let id = format!("{}{i}", load.prefix);
        load.take(&format!(r#"{{"event":"task:final","data":{{"seq":1,"tasks":[{{"id":"{id}","state":"{state}","result":{result}}}]}}}}"#))
    }

    #[test]
    fn a_batch_is_what_a_master_reads() {
        let (load, text) = sent(3);
        let ToMaster::Add(add) = ToMaster::decode(&text).unwrap() else {
            panic!("not an add")
        };
        assert_eq!(
            (add.batch, add.job.as_ref(), add.tasks.len()),
            (1, Some(&load.job), 3)
        );
        let documents: Vec<_> = add
            .tasks
            .iter()
            .map(|task| TaskDocument::parse(task.get()).unwrap())
            .collect();
        assert_eq!(documents[2].params.as_ref().unwrap().get(), "2");
        assert_eq!((load.open, load.unanswered), (3, 1));
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
            assert!(
                ended(&mut load, i, state, result)
                    .unwrap_err()
                    .to_string()
                    .contains(words)
            );
        }
        assert_eq!(load.open, 2);
    }
}
