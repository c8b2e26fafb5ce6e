//! Partial results of open tasks. Each goes at once to whoever follows its task or its job, and the
//! newest one of each task is kept. Nothing of this is durable, and it goes when the task ends.

mod waiting;

pub use waiting::WaitingPartials;

use crate::follower_map::FollowerMap;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::message::PartialResult;
use taskmaster_protocol::shape::PartialView;
use taskmaster_protocol::{AttemptId, JobName, Json, TaskId, Wall};

/// Bytes of the partial results that are kept, of all tasks together. Beyond them the oldest values
/// are forgotten.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// A partial result as a runner tells it.
#[derive(Debug)]
pub struct GivenPartial {
    /// The attempt that gave it.
    pub attempt: AttemptId,
    /// Its number in the attempt; 0 for the next one.
    pub n: u64,
    /// When it came.
    pub time: Wall,
    /// The value.
    pub value: Json,
}

/// The partial results of all open tasks, and their followers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Partials(Arc<Mutex<PartialTable>>);

#[derive(Debug, Default)]
struct PartialTable {
    newest: HashMap<TaskId, NewestPartial>,
    /// The tasks in `newest`, by job.
    by_job: HashMap<JobName, BTreeSet<TaskId>>,
    /// The tasks whose values are kept, by the serials of the values.
    kept: BTreeMap<u64, TaskId>,
    /// Bytes of the values that are kept.
    bytes: usize,
    /// The number of the last partial result, of all tasks.
    last_serial: u64,
    job_followers: FollowerMap<JobName, WaitingPartials>,
    task_followers: FollowerMap<TaskId, WaitingPartials>,
}

/// The newest partial result of a task.
#[derive(Debug)]
struct NewestPartial {
    job: JobName,
    attempt: AttemptId,
    n: u64,
    time: Wall,
    serial: u64,
    /// `None` when it was forgotten because there were too many bytes.
    value: Option<Json>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partials {
    /// A new follower, who follows nothing yet.
    pub fn new_follower(&self) -> PartialFollower {
        PartialFollower {
            all: self.clone(),
            waiting: Arc::default(),
            followed: Mutex::default(),
        }
    }

    /// Passes a partial result of an open task of `job` on to the followers. Returns `false` where
    /// it is not passed on, because a newer one was.
    pub fn publish(&self, job: &JobName, id: &TaskId, given: GivenPartial) -> bool {
        lock(&self.0).publish(job, id, given)
    }

    /// The newest partial result of an open task, if it is kept.
    pub fn newest(&self, id: &TaskId) -> Option<PartialView> {
        let table = lock(&self.0);
        let newest = table.newest.get(id)?;
        Some(PartialView {
            attempt: newest.attempt.n,
            n: newest.n,
            time: newest.time,
            value: newest.value.clone()?,
        })
    }

    /// The task has ended.
    pub fn forget(&self, id: &TaskId) {
        lock(&self.0).forget(id);
    }
}

impl PartialTable {
    fn publish(&mut self, job: &JobName, id: &TaskId, given: GivenPartial) -> bool {
        let last = self.newest.get(id);
        let Some(partial) = next(id, &given, last) else {
            return false;
        };
        self.forget(id);
        self.last_serial += 1;
        let serial = self.last_serial;
        let newest = NewestPartial {
            job: job.clone(),
            attempt: given.attempt,
            n: partial.n,
            time: given.time,
            serial,
            value: Some(given.value),
        };
        self.bytes += partial.value.get().len();
        self.kept.insert(serial, id.clone());
        let of_job = self.by_job.entry(job.clone()).or_default();
        of_job.insert(id.clone());
        self.newest.insert(id.clone(), newest);
        self.forget_old_values();

        let followers = self.task_followers.of(id).chain(self.job_followers.of(job));
        for waiting in followers {
            waiting.push(serial, &partial);
        }
        true
    }

    fn forget_old_values(&mut self) {
        while self.bytes > KEPT_BYTES_MAX
            && let Some((_, id)) = self.kept.pop_first()
        {
            let oldest = self.newest.get_mut(&id);
            let value = oldest.and_then(|oldest| oldest.value.take());
            self.bytes -= value.map_or(0, |value| value.get().len());
        }
    }

    fn forget(&mut self, id: &TaskId) {
        let Some(newest) = self.newest.remove(id) else {
            return;
        };
        self.kept.remove(&newest.serial);
        self.bytes -= newest.value.map_or(0, |value| value.get().len());
        if let Some(tasks) = self.by_job.get_mut(&newest.job) {
            tasks.remove(id);
            if tasks.is_empty() {
                self.by_job.remove(&newest.job);
            }
        }
    }

    /// Tells a new follower the newest partial result of a task, if it is kept.
    fn tell_newest(&self, id: &TaskId, to: &WaitingPartials) {
        let Some(newest) = self.newest.get(id) else {
            return;
        };
        let Some(value) = &newest.value else {
            return;
        };
        to.push_newest(PartialResult {
            id: id.clone(),
            attempt: newest.attempt.n,
            n: newest.n,
            restart: newest.attempt.n > 1,
            missed: 0,
            time: newest.time,
            value: value.clone(),
        });
    }
}

/// What is passed on of a partial result, where `last` was the newest before. `None`: it is older.
fn next(id: &TaskId, given: &GivenPartial, last: Option<&NewestPartial>) -> Option<PartialResult> {
    let given_n = given.n.max(1);
    let (n, missed, restart) = match last {
        Some(last) if given.attempt < last.attempt => return None,
        Some(last) if given.attempt == last.attempt => {
            let n = if given.n == 0 { last.n + 1 } else { given.n };
            let after = n.checked_sub(last.n).filter(|after| *after > 0)?;
            (n, after - 1, false)
        }
        Some(_) => (given_n, given_n - 1, true),
        // An earlier master may have passed on those before.
        None => (given_n, 0, given.attempt.n > 1),
    };
    Some(PartialResult {
        id: id.clone(),
        attempt: given.attempt.n,
        n,
        restart,
        missed,
        time: given.time,
        value: given.value.clone(),
    })
}

/// One follower of partial results. Dropping it ends that.
#[derive(Debug)]
pub struct PartialFollower {
    all: Partials,
    waiting: Arc<WaitingPartials>,
    followed: Mutex<FollowedNames>,
}

#[derive(Debug, Default)]
struct FollowedNames {
    jobs: Vec<JobName>,
    tasks: BTreeSet<TaskId>,
}

impl PartialFollower {
    /// From now on the follower is told the partial results of a job's tasks, the newest ones at
    /// once.
    pub fn follow_job(&self, job: &JobName) {
        let mut table = lock(&self.all.0);
        if table.job_followers.add(job, &self.waiting) {
            lock(&self.followed).jobs.push(job.clone());
        }
        for id in table.by_job.get(job).into_iter().flatten() {
            table.tell_newest(id, &self.waiting);
        }
    }

    /// From now on the follower is told the partial results of a task, the newest one at once.
    pub fn follow_task(&self, id: &TaskId) {
        let mut table = lock(&self.all.0);
        if table.task_followers.add(id, &self.waiting) {
            lock(&self.followed).tasks.insert(id.clone());
        }
        table.tell_newest(id, &self.waiting);
    }

    /// The follower is told of the end of a task.
    pub fn task_ended(&self, id: &TaskId) {
        self.waiting.forget(id);
        if lock(&self.followed).tasks.remove(id) {
            lock(&self.all.0).task_followers.remove(id, &self.waiting);
        }
    }

    /// What the follower was not told yet.
    pub fn waiting(&self) -> &WaitingPartials {
        &self.waiting
    }
}

impl Drop for PartialFollower {
    fn drop(&mut self) {
        let followed = std::mem::take(&mut *lock(&self.followed));
        let mut table = lock(&self.all.0);
        for job in &followed.jobs {
            table.job_followers.remove(job, &self.waiting);
        }
        for task in &followed.tasks {
            table.task_followers.remove(task, &self.waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TaskId {
        TaskId::new(text).unwrap()
    }

    fn job() -> JobName {
        JobName::new("j").unwrap()
    }

    fn given(attempt: u32, n: u64) -> GivenPartial {
        GivenPartial {
            attempt: AttemptId {
                epoch: 1,
                n: attempt,
            },
            n,
            time: Wall(0),
            value: Json::of(&format!("{attempt}/{n}")),
        }
    }

    /// Attempt, number, restart and missed of all that waits.
    fn told(follower: &PartialFollower) -> Vec<(u32, u64, bool, u64)> {
        let all = follower.waiting().take_all();
        all.iter()
            .map(|it| (it.attempt, it.n, it.restart, it.missed))
            .collect()
    }

    #[test]
    fn partials_come_in_order_and_a_new_attempt_says_so() {
        let partials = Partials::default();
        let by_job = partials.new_follower();
        by_job.follow_job(&job());
        let by_both = partials.new_follower();
        by_both.follow_job(&job());
        by_both.follow_task(&id("t"));
        for (attempt, n, passes) in [
            (1, 1, true),
            (1, 2, true),
            (1, 2, false),
            (1, 0, true),
            (1, 6, true),
            (2, 2, true),
            (1, 7, false),
            (2, 3, true),
        ] {
            let is_passed_on = partials.publish(&job(), &id("t"), given(attempt, n));
            assert_eq!(is_passed_on, passes, "{attempt}/{n}");
        }
        let expected = [
            (1, 1, false, 0),
            (1, 2, false, 0),
            (1, 3, false, 0),
            (1, 6, false, 2),
            (2, 2, true, 1),
            (2, 3, false, 0),
        ];
        assert_eq!(told(&by_job), expected);
        assert_eq!(told(&by_both), expected, "each once");
    }

    #[test]
    fn who_comes_later_gets_the_newest_at_once_and_nothing_of_what_has_ended() {
        let partials = Partials::default();
        for n in 1..=3 {
            partials.publish(&job(), &id("t"), given(1, n));
        }
        partials.publish(&job(), &id("gone"), given(1, 1));
        partials.forget(&id("gone"));
        let late = partials.new_follower();
        late.follow_job(&job());
        assert_eq!(told(&late), [(1, 3, false, 0)]);
        assert_eq!(partials.newest(&id("t")).unwrap().n, 3);
        assert_eq!(partials.newest(&id("gone")), None);

        partials.forget(&id("t"));
        drop(late);
        let table = lock(&partials.0);
        assert!(table.newest.is_empty() && table.by_job.is_empty() && table.kept.is_empty());
        assert!(table.job_followers.is_empty() && table.bytes == 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let partials = Partials::default();
        let bytes = 64 << 10;
        let count = 2 * KEPT_BYTES_MAX / bytes;
        for n in 0..count {
            let value = Json::of(&"x".repeat(bytes - 2));
            let given = GivenPartial {
                value,
                ..given(1, 1)
            };
            partials.publish(&job(), &id(&format!("t{n}")), given);
        }
        assert_eq!(lock(&partials.0).bytes, KEPT_BYTES_MAX);
        assert_eq!(partials.newest(&id("t0")), None);
        assert!(partials.newest(&id(&format!("t{}", count - 1))).is_some());
        // Its number is known still.
        assert!(!partials.publish(&job(), &id("t0"), given(1, 1)));
        assert!(partials.publish(&job(), &id("t0"), given(1, 2)));
    }
}
