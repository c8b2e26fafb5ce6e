//! Dependencies: a counter on the waiting task, a list on the one waited for. Nothing is ever
//! searched.

use crate::effect::{Effect, Why};
use crate::event::TaskKey;
use crate::few::Few;
use crate::scheduler::{Scheduler, TOUCHED_MAX};
use crate::state::{Final, State, Waiter};

/// An ended task whose dependents do not all know yet. It keeps its key until they do.
#[derive(Debug)]
pub(crate) struct Settling {
    /// The task that ended.
    pub task: TaskKey,
    /// How.
    pub how: Final,
    /// Who has not been told; the last is told first, so the list is kept in reverse.
    pub waiters: Few<Waiter>,
}

impl Scheduler {
    /// Tells dependents that `task` ended: at once where they are few and nobody is before them,
    /// else over several turns. A crash in between does no harm: a restored task counts its open
    /// dependencies anew.
    pub(crate) fn settle(
        &mut self,
        task: TaskKey,
        how: Final,
        mut waiters: Few<Waiter>,
        effects: &mut Vec<Effect>,
    ) {
        if waiters.is_empty() {
            return self.forget_if_over(task, effects);
        }
        waiters.reverse();
        self.tasks.expect(task).telling = true;
        self.settling.push_back(Settling { task, how, waiters });
    }

    /// Tells up to a thousand dependents.
    pub(crate) fn settle_some(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..TOUCHED_MAX {
            let Some(first) = self.settling.front_mut() else {
                return;
            };
            let (on, how) = (first.task, first.how);
            match first.waiters.pop() {
                Some(waiter) => self.tell(waiter, on, how, effects),
                None => {
                    self.settling.pop_front();
                    self.tasks.expect(on).telling = false;
                    self.forget_if_over(on, effects);
                }
            }
        }
    }

    fn tell(&mut self, waiter: Waiter, on: TaskKey, how: Final, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(waiter.task) else {
            return;
        };
        // It may have been cancelled, or skipped for another dependency, and its key given to
        // another task.
        let State::Blocked { open } = task.state else {
            return;
        };
        if task.life != waiter.life {
            return;
        }
        if !how.meets(waiter.when) {
            return self.end(
                waiter.task,
                Final::Skipped,
                Why::Dependency(on, how),
                effects,
            );
        }
        assert!(
            open > 0,
            "task {:?} has no open dependency left to meet",
            waiter.task
        );
        if open > 1 {
            self.enter(waiter.task, State::Blocked { open: open - 1 }, effects);
        } else {
            self.unblocked(waiter.task, effects);
        }
    }
}
