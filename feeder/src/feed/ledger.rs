//! What a feed has sent, what was answered, what is held, what has not ended: the part of a feed
//! without IO.
//!
//! A line is in one place at a time: queued, in a batch that is not answered, held, or settled. The
//! same batches with the same numbers are sent again after a reconnect, so nothing is added twice.

use super::holding::{Holding, keyed};
use super::line::{IdKey, Keys, Line};
use crate::trouble::Endings;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use taskmaster_protocol::message::{Added, Rejected, Rejection, Welcome};
use taskmaster_protocol::{JobName, Refusal, RefusalCode, TaskId, TaskState, limits};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Tasks of one batch: a quarter of what a master takes, so that no batch delays others by more
/// than some 3 ms.
const BATCH_TASKS: usize = 1_024;

/// Bytes at which a batch is full; a single document may be larger.
const BATCH_BYTES: usize = 1 << 20;

/// See the module's text.
pub struct Ledger {
    job: JobName,
    keys: Keys,
    batch_tasks: usize,
    queue: VecDeque<Line>,
    flight: VecDeque<Batch>,
    holding: Holding,
    /// Ids that authors gave and that were sent and not refused, with the batch in which they were
    /// taken; 0: not yet.
    sent: HashMap<IdKey, u64>,
    /// Ids of tasks that have not ended; only where somebody waits for them.
    open: Option<HashSet<IdKey>>,
    /// Lines that a master in need refused for now.
    put_off: Vec<Line>,
    /// Why, in the master's words, until it is told.
    need: Option<String>,
    batches: u64,
    /// Lines added.
    pub added: u64,
    /// Lines refused, here or by the master.
    pub refused: u64,
    /// How tasks ended, where somebody waits for them.
    pub endings: Endings,
}

/// A batch without an answer.
struct Batch {
    number: u64,
    /// The whole message, kept to be sent again.
    message: Utf8Bytes,
    entries: Vec<Entry>,
}

/// A line in a batch.
struct Entry {
    number: u64,
    key: IdKey,
    named: bool,
    job: Option<Arc<str>>,
    /// Where its document stands in the message.
    place: Range<usize>,
    /// Whether this line was the first of its id: a second one neither waits nor, when refused,
    /// ends the first.
    first: bool,
    /// Whether it was refused already: the same answer comes again after a resend.
    refused: bool,
}

/// What came of an answer to a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Jobs that lines of the batch name themselves or by default, and that tasks were added to.
    pub jobs: Vec<JobName>,
    /// Tasks that had ended before they were added now, and that are waited for.
    pub ended: Vec<TaskId>,
}

impl Ledger {
    /// For tasks of `job`. `wait`: remember which have not ended.
    pub fn new(job: JobName, keys: Keys, wait: bool, welcome: &Welcome) -> Ledger {
        let master_takes = usize::try_from(welcome.batch_tasks_max).unwrap_or(BATCH_TASKS);
        Ledger {
            job,
            keys,
            batch_tasks: BATCH_TASKS.min(master_takes).max(1),
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            holding: Holding::default(),
            sent: HashMap::new(),
            open: wait.then(HashSet::new),
            put_off: Vec::new(),
            need: None,
            batches: 0,
            added: 0,
            refused: 0,
            endings: Endings::default(),
        }
    }

    /// Queues a line.
    pub fn offer(&mut self, line: Line) {
        self.queue.push_back(line);
    }

    /// Whether more lines should be read: less than a batch is waiting.
    pub fn wants_more(&self) -> bool {
        self.queue.len() < self.batch_tasks
    }

    /// Whether every line has been answered, but for those that are held.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.flight.is_empty() && self.put_off.is_empty()
    }

    /// How many lines are held.
    pub fn held(&self) -> usize {
        self.holding.len()
    }

    /// How many tasks have not ended; 0 where nobody waits.
    pub fn open(&self) -> usize {
        self.open.as_ref().map_or(0, HashSet::len)
    }

    /// Whether any batch was ever sent, so that the job is held.
    pub fn has_sent(&self) -> bool {
        self.batches > 0
    }

    /// The next batch to send, if there is something to send and the master has answered enough of
    /// what was sent.
    pub fn next_batch(&mut self) -> Option<Utf8Bytes> {
        if self.queue.is_empty() || self.flight.len() >= limits::BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        self.batches += 1;
        let number = self.batches;
        let (mut text, mut entries) = (head(number, &self.job), Vec::new());
        while entries.len() < self.batch_tasks {
            let fits =
                |line: &Line| entries.is_empty() || text.len() + line.text.len() < BATCH_BYTES;
            let Some(line) = self.queue.pop_front_if(|line| fits(line)) else {
                break;
            };
            if !entries.is_empty() {
                text.push(',');
            }
            let place = text.len()..text.len() + line.text.len();
            text.push_str(&line.text);
            entries.push(self.enter(line, place));
        }
        text.push_str("]}}");
        let message = Utf8Bytes::from(text);
        self.flight.push_back(Batch {
            number,
            message: message.clone(),
            entries,
        });
        Some(message)
    }

    /// Notes that a line is being sent.
    fn enter(&mut self, line: Line, place: Range<usize>) -> Entry {
        let first = !line.named || !self.sent.contains_key(&line.key);
        if line.named && first {
            self.sent.insert(line.key, 0);
        }
        if first && let Some(open) = &mut self.open {
            open.insert(line.key);
        }
        Entry {
            number: line.number,
            key: line.key,
            named: line.named,
            job: line.job,
            place,
            first,
            refused: false,
        }
    }

    /// The batches without an answer, in order: sent again after a reconnect.
    pub fn unanswered(&self) -> impl Iterator<Item = Utf8Bytes> {
        self.flight.iter().map(|batch| batch.message.clone())
    }

    /// Tasks of a batch were not taken. Gives those that are refused for good, each with its line.
    pub fn rejected(&mut self, rejected: Rejected) -> Vec<Refusal> {
        let Some(at) = self
            .flight
            .iter()
            .position(|batch| batch.number == rejected.batch)
        else {
            return Vec::new();
        };
        let mut refusals = Vec::new();
        // First every line is taken back, so that no line of this batch is thought to be there by
        // another.
        let lines: Vec<(Line, Refusal)> = rejected
            .tasks
            .into_iter()
            .filter_map(|rejection| self.take_back(at, rejection))
            .collect();
        for (line, refusal) in lines {
            refusals.extend(self.judge(line, rejected.batch, refusal));
        }
        self.refused += refusals.len() as u64;
        refusals
    }

    /// The line that a rejection is about, once.
    fn take_back(&mut self, at: usize, rejection: Rejection) -> Option<(Line, Refusal)> {
        let batch = self.flight.get_mut(at)?;
        let entry = batch
            .entries
            .get_mut(rejection.index)
            .filter(|entry| !entry.refused)?;
        entry.refused = true;
        let text = batch.message.as_str().get(entry.place.clone())?.to_owned();
        let line = Line {
            number: entry.number,
            key: entry.key,
            named: entry.named,
            job: entry.job.clone(),
            text,
            has_inputs: false,
        };
        if entry.first {
            self.sent.remove(&line.key);
            if let Some(open) = &mut self.open {
                open.remove(&line.key);
            }
        }
        let refusal = Refusal {
            line: Some(line.number),
            ..rejection.error
        };
        Some((line, refusal))
    }

    /// What becomes of a line that was not taken: queued again, held, put off, or refused.
    fn judge(&mut self, line: Line, batch: u64, refusal: Refusal) -> Option<Refusal> {
        match refusal.code {
            RefusalCode::Unavailable => {
                self.put_off.push(line);
                self.need = Some(refusal.message);
                None
            }
            RefusalCode::UnknownDependency if !refusal.ids.is_empty() => {
                let unknown = keyed(refusal.ids.clone(), &self.keys);
                let taken = |key: &IdKey| self.sent.get(key).copied().filter(|batch| *batch > 0);
                // An id that the master has taken earlier and does not know now will not be known
                // by asking again.
                if unknown
                    .iter()
                    .any(|(key, _)| taken(key).is_some_and(|taken| taken <= batch))
                {
                    return Some(refusal);
                }
                // What is only on its way may be refused as well: lines of a circle would be sent
                // for ever.
                let missing: Vec<_> = unknown
                    .into_iter()
                    .filter(|(key, _)| taken(key).is_none())
                    .collect();
                if missing.is_empty() {
                    self.queue.push_back(line);
                    return None;
                }
                self.holding.hold(line, missing).err()
            }
            _ => Some(refusal),
        }
    }

    /// A batch is durable.
    pub fn added(&mut self, added: Added) -> News {
        let Some(at) = self
            .flight
            .iter()
            .position(|batch| batch.number == added.batch)
        else {
            return News::default();
        };
        let Some(batch) = self.flight.remove(at) else {
            return News::default();
        };
        let mut news = News::default();
        let mut last: Option<Option<&str>> = None;
        for entry in batch.entries.iter().filter(|entry| !entry.refused) {
            self.added += 1;
            if entry.named && entry.first {
                self.sent.insert(entry.key, batch.number);
                self.free(entry.key);
            }
            // Jobs seldom change from line to line.
            if last != Some(entry.job.as_deref()) {
                last = Some(entry.job.as_deref());
                let job = entry
                    .job
                    .as_deref()
                    .map_or(Some(self.job.clone()), |job| JobName::new(job).ok());
                news.jobs.extend(job.filter(|job| !news.jobs.contains(job)));
            }
        }
        news.ended = added
            .ended
            .into_iter()
            .filter(|id| self.is_open(id.as_str()))
            .collect();
        news
    }

    /// An id was taken: queues the lines that waited for it, then those that waited for these, and
    /// so on. Sent in this order, each comes behind what it depends on.
    fn free(&mut self, key: IdKey) {
        let mut came = VecDeque::from([key]);
        while let Some(key) = came.pop_front() {
            for line in self.holding.came(key) {
                came.extend(line.named.then_some(line.key));
                self.queue.push_back(line);
            }
        }
    }

    /// Whether this feed waits for a task.
    pub fn is_open(&self, id: &str) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.contains(&self.keys.of(id)))
    }

    /// A task has ended. Whether it is one of this feed and this is the first time that it is told.
    pub fn ended(&mut self, id: &str, state: TaskState) -> bool {
        let ours = self
            .open
            .as_mut()
            .is_some_and(|open| open.remove(&self.keys.of(id)));
        if ours {
            self.endings.count(state);
        }
        ours
    }

    /// Queues what was put off because the master could not take it; whether there was any.
    pub fn try_again(&mut self) -> bool {
        let any = !self.put_off.is_empty();
        self.queue.extend(self.put_off.drain(..));
        any
    }

    /// Whether lines wait for a master in need.
    pub fn is_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Why the master takes nothing for now; once after each answer that said so.
    pub fn need(&mut self) -> Option<String> {
        self.need.take()
    }

    /// The input has ended and everything is answered: refuses what is still held.
    pub fn refuse_held(&mut self) -> Vec<Refusal> {
        let refusals = self.holding.refuse_all();
        self.refused += refusals.len() as u64;
        refusals
    }
}

/// The beginning of a batch's message, up to its tasks.
fn head(number: u64, job: &JobName) -> String {
    let mut text = String::with_capacity(BATCH_BYTES / 4);
    // A job's name holds nothing that JSON would escape.
    text.push_str(&format!(
        r#"{{"event":"task:add","data":{{"batch":{number},"job":"{job}","hold":true,"tasks":["#
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::ToMaster;

    fn welcome() -> Welcome {
        Welcome {
            protocol: 1,
            epoch: 1,
            seq: 0,
            message_bytes_max: 1 << 25,
            batch_tasks_max: 3,
            leader: None,
        }
    }

    struct Feed {
        ledger: Ledger,
        keys: Keys,
        lines: u64,
    }

    impl Feed {
        fn new() -> Feed {
            let keys = Keys::default();
            let ledger = Ledger::new(JobName::new("j").unwrap(), keys.clone(), true, &welcome());
            Feed {
                ledger,
                keys,
                lines: 0,
            }
        }

        fn offer(&mut self, ids: &[&str]) {
            for id in ids {
                self.lines += 1;
                let text = format!(r#"{{"id":"{id}","module":"echo"}}"#);
                self.ledger
                    .offer(Line::read(self.lines, text, &self.keys, String::new).unwrap());
            }
        }

        /// The ids of the next batch, read as a master reads them.
        fn send(&mut self) -> Vec<String> {
            let Some(text) = self.ledger.next_batch() else {
                return Vec::new();
            };
            let ToMaster::Add(add) = ToMaster::decode(&text).unwrap() else {
                panic!("not an add")
            };
            assert!(add.hold && add.job == JobName::new("j").ok());
            add.tasks
                .iter()
                .map(|task| {
                    task.read::<serde_json::Value>().unwrap()["id"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect()
        }

        fn reject(
            &mut self,
            batch: u64,
            index: usize,
            code: RefusalCode,
            ids: &[&str],
        ) -> Vec<String> {
            let ids = ids.iter().map(|id| TaskId::new(id).unwrap()).collect();
            let error = Refusal::new(code, "no").about(ids);
            let refusals = self.ledger.rejected(Rejected {
                batch,
                tasks: vec![Rejection { index, error }],
            });
            refusals.iter().map(Refusal::to_string).collect()
        }

        fn add(&mut self, batch: u64) -> News {
            self.ledger.added(Added {
                batch,
                ids: Vec::new(),
                ended: Vec::new(),
            })
        }
    }

    #[test]
    fn batches_are_numbered_bounded_and_resent_as_they_were() {
        let mut feed = Feed::new();
        let ids: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
        feed.offer(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(feed.send(), ["t0", "t1", "t2"]);
        (1..limits::BATCHES_IN_FLIGHT_MAX).for_each(|_| assert_eq!(feed.send().len(), 3));
        assert!(feed.send().is_empty(), "eight are unanswered");
        let before: Vec<_> = feed.ledger.unanswered().collect();
        assert_eq!(feed.add(1).jobs, [JobName::new("j").unwrap()]);
        assert_eq!(feed.ledger.unanswered().collect::<Vec<_>>(), before[1..]);
        assert_eq!(
            feed.add(1),
            News::default(),
            "the answer to a resend comes twice"
        );
        assert_eq!((feed.ledger.added, feed.send().len()), (3, 3));
    }

    #[test]
    fn a_forward_reference_is_held_until_its_id_is_taken() {
        let mut feed = Feed::new();
        feed.offer(&["a"]);
        feed.send();
        assert!(
            feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"])
                .is_empty()
        );
        assert!(
            feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"])
                .is_empty(),
            "told twice"
        );
        feed.add(1);
        assert_eq!(
            (feed.ledger.held(), feed.ledger.open(), feed.ledger.added),
            (1, 0, 0)
        );
        feed.offer(&["b"]);
        assert_eq!(feed.send(), ["b"]);
        feed.add(2);
        assert_eq!(feed.send(), ["a"]);
        feed.add(3);
        assert_eq!(
            (feed.ledger.held(), feed.ledger.open(), feed.ledger.added),
            (0, 2, 2)
        );
        assert!(feed.ledger.is_settled());
    }

    #[test]
    fn a_chain_that_is_held_is_sent_in_its_order_at_once() {
        let mut feed = Feed::new();
        feed.offer(&["a", "b"]);
        feed.send();
        assert!(
            feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"])
                .is_empty()
        );
        assert!(
            feed.reject(1, 1, RefusalCode::UnknownDependency, &["c"])
                .is_empty()
        );
        feed.add(1);
        feed.offer(&["c"]);
        feed.send();
        feed.add(2);
        assert_eq!(feed.send(), ["b", "a"]);
    }

    #[test]
    fn lines_of_a_circle_are_not_sent_for_ever() {
        let mut feed = Feed::new();
        feed.offer(&["a"]);
        feed.send();
        feed.offer(&["b"]);
        feed.send();
        assert!(
            feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"])
                .is_empty()
        );
        assert!(
            feed.reject(2, 0, RefusalCode::UnknownDependency, &["a"])
                .is_empty()
        );
        [1, 2].iter().for_each(|batch| drop(feed.add(*batch)));
        assert!(feed.ledger.is_settled() && feed.send().is_empty());
        let refusals: Vec<String> = feed
            .ledger
            .refuse_held()
            .iter()
            .map(Refusal::to_string)
            .collect();
        assert_eq!(
            refusals,
            [
                "line 1: dependency cycle: a → b → a",
                "line 2: dependency cycle: b → a → b"
            ]
        );
        assert_eq!(
            (feed.ledger.refused, feed.ledger.added, feed.ledger.open()),
            (2, 0, 0)
        );
    }

    #[test]
    fn what_the_master_has_forgotten_is_not_asked_for_again() {
        let mut feed = Feed::new();
        feed.offer(&["b"]);
        feed.send();
        feed.add(1);
        feed.offer(&["a"]);
        feed.send();
        assert_eq!(
            feed.reject(2, 0, RefusalCode::UnknownDependency, &["b"]),
            ["line 2: no"]
        );
    }

    #[test]
    fn a_second_line_of_an_id_neither_waits_nor_ends_the_first() {
        let mut feed = Feed::new();
        feed.offer(&["a", "a", "a"]);
        feed.send();
        assert_eq!(
            feed.reject(1, 1, RefusalCode::IdConflict, &[]),
            ["line 2: no"]
        );
        feed.add(1);
        assert_eq!((feed.ledger.open(), feed.ledger.added), (1, 2));
        assert!(
            feed.ledger.ended("a", TaskState::Done) && !feed.ledger.ended("a", TaskState::Done)
        );
        assert_eq!(
            feed.ledger.endings,
            Endings {
                done: 1,
                ..Endings::default()
            }
        );
    }

    #[test]
    fn a_master_in_need_is_asked_again() {
        let mut feed = Feed::new();
        feed.offer(&["a"]);
        feed.send();
        assert!(feed.reject(1, 0, RefusalCode::Unavailable, &[]).is_empty());
        feed.add(1);
        assert!(feed.ledger.need().is_some() && feed.ledger.need().is_none());
        assert!(!feed.ledger.is_settled() && feed.ledger.try_again());
        assert_eq!(feed.send(), ["a"]);
    }
}
