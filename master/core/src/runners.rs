//! Runners: what they offer, what they hold, and whether they can take more.

use crate::effect::Effect;
use crate::keys::{GroupKey, RunnerKey, TaskKey};
use crate::ready::Availability;
use crate::scheduler::Scheduler;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{AttemptId, limits};

/// What a runner is charged for an attempt that it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    /// Slots that the attempt takes.
    pub slots: u32,
    /// The most memory that the attempt may take, in MiB.
    pub memory_mb: u32,
    /// The run time that was expected when the attempt was sent, times its slots, in microseconds.
    pub expected_us: u64,
    /// The order of sending, in which the runner starts its attempts.
    pub order: u64,
}

/// A runner's connection. After the connection is lost, the runner has a grace period, in which it
/// keeps what it holds and is sent nothing.
#[derive(Debug)]
pub(crate) struct Runner {
    pub offer: Offer,
    /// The name in the offer.
    pub name: Arc<str>,
    /// Names the runner's process, shared with the records of attempts.
    pub process: Arc<str>,
    /// How many attempts the runner will hold at most.
    pub credits: u32,
    /// Whether the runner takes no more attempts.
    pub draining: bool,
    /// When the grace period ends, if the connection is lost; in microseconds of the monotonic
    /// clock, as all times here.
    pub absent_until: Option<u64>,
    /// Attempts that were sent and have not ended.
    pub in_flight: BTreeMap<(TaskKey, AttemptId), InFlight>,
    /// Slots of the attempts in flight. These are more than the runner has while some of the
    /// attempts wait there.
    pub used_slots: u32,
    /// Memory that the attempts in flight may take at most, in MiB. It is more than the runner offers
    /// while some of the attempts wait there.
    pub used_memory_mb: u64,
    /// Expected run time of the attempts in flight, in microseconds.
    pub backlog_us: u64,
    /// The task that the runner keeps its slots for.
    pub reserved_for: Option<TaskKey>,
    pub group: Option<GroupKey>,
    /// The runner's entry among the available runners of its group.
    pub availability: Option<Availability>,
    /// Attempts sent so far.
    pub sent: u64,
    /// Attempts that ended here so far, over all connections of the runner.
    pub finished: u64,
    /// When something last came from the runner.
    pub last_heard_us: u64,
    /// When an attempt last ended here, or the first one began to wait.
    pub last_progress_us: u64,
    pub recall_timer_set: bool,
    /// Whether nothing is sent ahead until an attempt ends, because attempts sent ahead have waited
    /// for too long.
    pub prefetch_paused: bool,
    /// When the first recall was sent that the runner has not answered.
    pub unanswered_since_us: Option<u64>,
}

impl Runner {
    pub fn new(name: Arc<str>, process: Arc<str>, offer: Offer, now_us: u64) -> Runner {
        Runner {
            name,
            process,
            offer: Offer {
                slots: offer.slots.clamp(1, limits::SLOTS_MAX),
                ..offer
            },
            credits: 0,
            draining: false,
            absent_until: None,
            in_flight: BTreeMap::new(),
            used_slots: 0,
            used_memory_mb: 0,
            backlog_us: 0,
            reserved_for: None,
            group: None,
            availability: None,
            sent: 0,
            finished: 0,
            last_heard_us: now_us,
            last_progress_us: now_us,
            recall_timer_set: false,
            prefetch_paused: false,
            unanswered_since_us: None,
        }
    }

    pub fn free_slots(&self) -> u32 {
        self.offer.slots.saturating_sub(self.used_slots)
    }

    pub fn free_memory_mb(&self) -> u64 {
        self.offer.memory_mb.saturating_sub(self.used_memory_mb)
    }

    /// Whether an attempt with this much memory can start beside what the runner holds. A runner
    /// that holds nothing always starts one, since a task may take less than its limit.
    pub fn has_memory_for(&self, memory_mb: u32) -> bool {
        self.in_flight.is_empty() || u64::from(memory_mb) <= self.free_memory_mb()
    }

    /// Whether attempts wait on the runner, for a slot or for memory.
    pub fn is_overfull(&self) -> bool {
        let lacks_memory = self.used_memory_mb > self.offer.memory_mb && self.in_flight.len() > 1;
        self.used_slots > self.offer.slots || lacks_memory
    }

    /// Whether the runner has so little to do that an attempt may be sent ahead, to wait there.
    pub fn may_prefetch(&self) -> bool {
        let backlog_of_a_slot_us = self.backlog_us / u64::from(self.offer.slots.max(1));
        !self.prefetch_paused && backlog_of_a_slot_us < limits::PREFETCH_US
    }

    /// Whether the runner holds as many attempts as it will.
    pub fn is_full(&self) -> bool {
        self.in_flight.len() >= self.credits as usize
    }

    pub fn is_connected(&self) -> bool {
        self.absent_until.is_none()
    }

    /// Whether and how well the runner can take one more attempt: it has a free slot, or so little
    /// to do that one more may be sent ahead.
    pub fn availability(&self, key: RunnerKey) -> Option<Availability> {
        let takes_more = self.is_connected() && !self.draining && self.reserved_for.is_none();
        if !takes_more || self.is_full() {
            return None;
        }
        let free = self.free_slots();
        (free > 0 || self.may_prefetch()).then_some(Availability {
            free_slots: Reverse(free),
            backlog_us: self.backlog_us,
            runner: key,
        })
    }
}

/// What the core knows of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerFacts {
    /// Slots of the attempts that were sent and have not ended.
    pub used: u32,
    /// Memory that these attempts may take at most, in MiB.
    pub used_memory_mb: u64,
    /// Attempts that were sent and have not ended.
    pub attempts: usize,
    /// Attempts that the runner has ended.
    pub finished: u64,
    /// Whether the runner takes no more attempts.
    pub draining: bool,
    /// Whether the connection is lost and the grace period lasts.
    pub absent: bool,
}

impl Scheduler {
    /// What the core knows of a runner; `None` if it does not hold the runner.
    pub fn runner_facts(&self, key: RunnerKey) -> Option<RunnerFacts> {
        self.runners.get(&key).map(|runner| RunnerFacts {
            used: runner.used_slots,
            used_memory_mb: runner.used_memory_mb,
            attempts: runner.in_flight.len(),
            finished: runner.finished,
            draining: runner.draining,
            absent: !runner.is_connected(),
        })
    }

    /// How many attempts runners hold, including runners in their grace period.
    pub fn attempts_in_flight(&self) -> usize {
        self.runners
            .values()
            .map(|runner| runner.in_flight.len())
            .sum()
    }

    /// A runner that the core must hold, because the key was found in one of the core's own indices.
    #[expect(
        clippy::panic,
        reason = "the core's indices name only runners that it holds"
    )]
    pub(crate) fn runner(&mut self, key: RunnerKey) -> &mut Runner {
        self.runners.get_mut(&key).unwrap_or_else(|| {
            panic!("the core's own index names runner {key:?}, which it does not hold")
        })
    }

    /// Sends nothing more, and recalls what has not started.
    pub(crate) fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.stopping = true;
        for (key, runner) in &self.runners {
            if runner.is_connected() && !runner.in_flight.is_empty() {
                effects.push(Effect::Recall {
                    runner: *key,
                    attempts: runner.in_flight.keys().copied().collect(),
                });
            }
        }
    }

    /// Brings a runner's entry among the available runners of its group up to date.
    pub(crate) fn update_availability(&mut self, key: RunnerKey) {
        let runner = self.runner(key);
        let last = runner.availability;
        let next = runner.availability(key);
        if last == next {
            return;
        }
        let group = runner.group;
        runner.availability = group.and(next);
        let Some(group) = group else { return };
        let available = &mut self.ready.group_mut(group).available;
        if let Some(last) = last {
            available.remove(&last);
        }
        if let Some(next) = next {
            available.insert(next);
        }
    }
}
