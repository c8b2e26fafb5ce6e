//! The partial results that one follower was not told yet. A follower that reads more slowly than
//! they come gets the newest one of each task, with the number of those before that it missed.

use super::lock;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use taskmaster_protocol::TaskId;
use taskmaster_protocol::message::PartialResult;
use tokio::sync::Notify;

/// Partial results that wait for one connection, and their bytes.
const WAITING_MAX: usize = 2_000;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// About how many bytes a partial result has in a message beside its value.
const FIELDS_BYTES: usize = 256;

/// Tasks of which it is known that the follower missed some. Beyond them the numbers are lost.
const PASSED_OVER_MAX: usize = 10_000;

/// What waits for one follower.
#[derive(Debug, Default)]
pub struct WaitingPartials {
    queue: Mutex<PartialQueue>,
    /// Notified when something waits.
    grown: Notify,
}

#[derive(Debug, Default)]
struct PartialQueue {
    waiting: VecDeque<QueuedPartial>,
    bytes: usize,
    /// The tasks of which some were dropped since the follower was last told one.
    passed_over: HashMap<TaskId, PassedOver>,
    /// The number of the last partial result that came, of all tasks.
    last_serial: u64,
}

#[derive(Debug)]
struct QueuedPartial {
    serial: u64,
    partial: PartialResult,
}

/// What the next partial result of a task says of those before it that were dropped.
#[derive(Debug, Default, Clone, Copy)]
struct PassedOver {
    missed: u64,
    restart: bool,
}

impl PassedOver {
    fn add(&mut self, dropped: &PartialResult) {
        self.missed += dropped.missed + 1;
        self.restart |= dropped.restart;
    }

    fn tell(self, partial: &mut PartialResult) {
        partial.missed += self.missed;
        partial.restart |= self.restart;
    }
}

fn bytes_of(partial: &PartialResult) -> usize {
    FIELDS_BYTES + partial.value.get().len()
}

impl WaitingPartials {
    /// A new partial result, the `serial`th of all tasks. A follower of both the task and its job is
    /// told it once.
    pub(super) fn push(&self, serial: u64, partial: &PartialResult) {
        let mut queue = lock(&self.queue);
        if queue.last_serial == serial {
            return;
        }
        queue.last_serial = serial;
        queue.push(partial.clone());
        drop(queue);
        self.grown.notify_one();
    }

    /// A partial result that came before the task was followed.
    pub(super) fn push_newest(&self, partial: PartialResult) {
        lock(&self.queue).push(partial);
        self.grown.notify_one();
    }

    /// Waits until something waits to be told.
    pub async fn grown(&self) {
        while lock(&self.queue).waiting.is_empty() {
            self.grown.notified().await;
        }
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        lock(&self.queue).waiting.is_empty()
    }

    /// The number of the last partial result that came.
    pub fn last_serial(&self) -> u64 {
        lock(&self.queue).last_serial
    }

    /// Gives to `send` what came up to the number `serial`, about as many bytes as `bytes_max`. While
    /// `send` is at work nobody else takes anything, so the order stays. Returns whether there was
    /// anything.
    pub fn take(
        &self,
        serial: u64,
        bytes_max: usize,
        send: impl FnOnce(Vec<PartialResult>),
    ) -> bool {
        let mut queue = lock(&self.queue);
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(next) = queue.pop_if(|next| next.serial <= serial)
        {
            bytes += bytes_of(&next);
            taken.push(next);
        }
        let has_any = !taken.is_empty();
        if has_any {
            send(taken);
        }
        has_any
    }

    /// The follower asks no more what it missed of this task.
    pub(super) fn forget(&self, id: &TaskId) {
        lock(&self.queue).passed_over.remove(id);
    }

    #[cfg(test)]
    pub(super) fn take_all(&self) -> Vec<PartialResult> {
        let mut all = Vec::new();
        self.take(u64::MAX, usize::MAX, |taken| all = taken);
        all
    }
}

impl PartialQueue {
    fn push(&mut self, mut partial: PartialResult) {
        if let Some(over) = self.passed_over.remove(&partial.id) {
            over.tell(&mut partial);
        }
        self.bytes += bytes_of(&partial);
        let serial = self.last_serial;
        self.waiting.push_back(QueuedPartial { serial, partial });
        if !self.fits_into(1) {
            self.thin_out();
        }
    }

    fn pop_if(&mut self, may: impl Fn(&QueuedPartial) -> bool) -> Option<PartialResult> {
        let next = self.waiting.pop_front_if(|next| may(next))?;
        self.bytes -= bytes_of(&next.partial);
        Some(next.partial)
    }

    /// Whether what waits fits into one part of so many equal parts of what may wait.
    fn fits_into(&self, parts: usize) -> bool {
        self.waiting.len() <= WAITING_MAX / parts && self.bytes <= WAITING_BYTES_MAX / parts
    }

    /// Keeps the newest one of each task; then, where that is not enough, drops the oldest until
    /// half is free, so that not every one that comes has this work done.
    fn thin_out(&mut self) {
        let mut left: HashMap<TaskId, usize> = HashMap::new();
        for queued in &self.waiting {
            *left.entry(queued.partial.id.clone()).or_default() += 1;
        }
        let mut dropped: HashMap<TaskId, PassedOver> = HashMap::new();
        for mut queued in std::mem::take(&mut self.waiting) {
            let newer = left.entry(queued.partial.id.clone()).or_default();
            *newer = newer.saturating_sub(1);
            if *newer > 0 {
                self.bytes -= bytes_of(&queued.partial);
                let over = dropped.entry(queued.partial.id.clone()).or_default();
                over.add(&queued.partial);
            } else {
                if let Some(over) = dropped.remove(&queued.partial.id) {
                    over.tell(&mut queued.partial);
                }
                self.waiting.push_back(queued);
            }
        }
        while !self.fits_into(2)
            && let Some(oldest) = self.pop_if(|_| true)
        {
            if self.passed_over.len() < PASSED_OVER_MAX {
                let over = self.passed_over.entry(oldest.id.clone()).or_default();
                over.add(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{Json, Wall};

    fn partial(task: usize, n: u64, bytes: usize) -> PartialResult {
        PartialResult {
            id: TaskId::new(&format!("t{task}")).unwrap(),
            attempt: 2,
            n,
            restart: n == 1,
            missed: 0,
            time: Wall(0),
            value: Json::of(&"x".repeat(bytes)),
        }
    }

    #[test]
    fn a_slow_follower_gets_the_newest_of_each_task_and_how_many_it_missed() {
        let waiting = WaitingPartials::default();
        let each = 20_000;
        for n in 1..=each {
            for task in 0..3 {
                waiting.push(3 * n + task, &partial(task as usize, n, 100));
                let queue = lock(&waiting.queue);
                assert!(queue.waiting.len() <= WAITING_MAX && queue.bytes <= WAITING_BYTES_MAX);
            }
        }
        let all = waiting.take_all();
        for task in 0..3 {
            let id = TaskId::new(&format!("t{task}")).unwrap();
            let told: Vec<&PartialResult> = all.iter().filter(|it| it.id == id).collect();
            let ns: Vec<u64> = told.iter().map(|it| it.n).collect();
            assert!(ns.is_sorted() && ns.last() == Some(&each), "{ns:?}");
            assert!(told[0].restart && !told[1].restart);
            let missed: u64 = told.iter().map(|it| it.missed).sum();
            assert_eq!(missed + told.len() as u64, each);
            assert!(told[0].missed > 0);
        }
        assert_eq!(lock(&waiting.queue).bytes, 0);
    }

    #[test]
    fn large_ones_of_many_tasks_wait_within_a_bound_and_their_next_ones_count_them() {
        let waiting = WaitingPartials::default();
        for task in 0..100 {
            waiting.push(1 + task, &partial(task as usize, 1, 60_000));
            assert!(lock(&waiting.queue).bytes <= WAITING_BYTES_MAX);
        }
        waiting.push(200, &partial(0, 2, 10));
        let all = waiting.take_all();
        assert!(all.len() < 20);
        let last = all.last().unwrap();
        assert!(last.n == 2 && last.missed == 1 && last.restart);
    }
}
