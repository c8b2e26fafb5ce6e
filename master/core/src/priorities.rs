//! Priority inheritance: what an urgent task waits for becomes as urgent. A task that waits names
//! the tasks that it waits for, so that a raise goes from task to task and nothing is searched.

use crate::keys::TaskKey;
use crate::one_or_many::OneOrMany;
use crate::scheduler::{Scheduler, TOUCHED_PER_TURN_MAX};
use crate::state::State;
use crate::task::Task;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// An open task that another one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitedFor {
    pub task: TaskKey,
    /// The [`Task::generation`] of the task waited for. If the task under the key has another one,
    /// the task waited for has ended since.
    pub generation: u32,
}

/// A task that becomes as urgent as one that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Raise {
    /// The greatest priority comes first, so that a task which many urgent tasks wait for is touched
    /// once.
    to: Reverse<i32>,
    waited_for: WaitedFor,
}

/// What tasks inherit from those that wait for them.
#[derive(Debug, Default)]
pub(crate) struct InheritedPriorities {
    /// What each blocked task waits for.
    waits_for: BTreeMap<TaskKey, OneOrMany<WaitedFor>>,
    /// The inherited priority of each open task that has one greater than its own. It lasts until the
    /// task ends, also when the urgent task is cancelled first.
    raised: BTreeMap<TaskKey, i32>,
    /// Raises that are not carried out yet.
    pending: BTreeSet<Raise>,
}

impl InheritedPriorities {
    /// Whether raises are left for the next turn.
    pub fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The priority by which a task is sent.
    pub fn of(&self, key: TaskKey, task: &Task) -> i32 {
        if self.raised.is_empty() {
            return task.priority;
        }
        let inherited = self.raised.get(&key).copied();
        inherited.map_or(task.priority, |inherited| inherited.max(task.priority))
    }

    /// Remembers what a blocked task waits for.
    pub fn task_waits(&mut self, key: TaskKey, waits_for: OneOrMany<WaitedFor>) {
        self.waits_for.insert(key, waits_for);
    }

    /// A blocked task waits for one more task.
    pub fn task_waits_also(&mut self, key: TaskKey, waited_for: WaitedFor) {
        self.waits_for.entry(key).or_default().push(waited_for);
    }

    /// A task waits for no other task any more.
    pub fn task_unblocked(&mut self, key: TaskKey) {
        self.waits_for.remove(&key);
    }

    /// A task has ended.
    pub fn task_ended(&mut self, key: TaskKey) {
        if !self.raised.is_empty() {
            self.raised.remove(&key);
        }
    }

    /// Has everything that a blocked task waits for become as urgent as this.
    fn raise_dependencies_of(&mut self, key: TaskKey, priority: i32) {
        let Some(waits_for) = self.waits_for.get(&key) else {
            return;
        };
        let raises = waits_for.iter().map(|waited_for| Raise {
            to: Reverse(priority),
            waited_for: *waited_for,
        });
        self.pending.extend(raises);
    }
}

impl Scheduler {
    /// Appends what is broken in what urgent tasks pass on.
    pub(crate) fn priorities_are_passed_on(&self, broken: &mut Vec<String>) {
        for (key, task) in self.tasks.iter() {
            let waits = matches!(task.state(), State::Blocked { open } if open > 0);
            if waits != self.priorities.waits_for.contains_key(&key) {
                broken.push(format!(
                    "{key:?} waits: {waits}, and what for is remembered"
                ));
            }
        }
        let ended = |key: &&TaskKey| {
            let task = self.tasks.get(**key);
            !task.is_some_and(|task| task.state().is_open())
        };
        for key in self.priorities.raised.keys().filter(ended) {
            broken.push(format!("{key:?} is not open and has an inherited priority"));
        }
        if self.priorities.has_work() {
            return;
        }
        for (key, waits_for) in &self.priorities.waits_for {
            let own = self.effective_priority(*key);
            for on in waits_for.iter() {
                let is_it = |task: &&Task| task.generation == on.generation;
                let other = self.tasks.get(on.task).filter(is_it);
                let is_open = other.is_some_and(|task| task.state().is_open());
                if is_open && self.effective_priority(on.task) < own {
                    broken.push(format!(
                        "{:?} is less urgent than {key:?}, which waits",
                        on.task
                    ));
                }
            }
        }
    }

    /// The priority by which a task is sent: its own, or that of an urgent task that waits for it.
    pub fn effective_priority(&self, key: TaskKey) -> Option<i32> {
        let task = self.tasks.get(key)?;
        Some(self.priorities.of(key, task))
    }

    /// A blocked task has this priority from now on: what it waits for becomes as urgent, unless all
    /// of that is already.
    pub(crate) fn raise_what_it_waits_for(&mut self, key: TaskKey) {
        let Some(priority) = self.effective_priority(key) else {
            return;
        };
        let Some(waits_for) = self.priorities.waits_for.get(&key) else {
            return;
        };
        let is_less_urgent = |waited_for: &WaitedFor| {
            self.effective_priority(waited_for.task)
                .is_some_and(|other| other < priority)
        };
        if waits_for.iter().any(is_less_urgent) {
            self.priorities.raise_dependencies_of(key, priority);
        }
    }

    /// The own priority of a task has changed. It still inherits from the tasks that wait for it. At
    /// most [`TOUCHED_PER_TURN_MAX`] of these are asked; hardly any task has more.
    pub(crate) fn inherit_again(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let dependents = task.dependents.iter().take(TOUCHED_PER_TURN_MAX);
        let greatest = dependents
            .filter_map(|dependent| {
                let waiting = self.tasks.get(dependent.task)?;
                let waits = matches!(waiting.state(), State::Blocked { .. });
                let is_it = waiting.generation == dependent.generation;
                (waits && is_it).then(|| self.priorities.of(dependent.task, waiting))
            })
            .max();
        if let Some(greatest) = greatest.filter(|greatest| *greatest > task.priority) {
            let raised = self.priorities.raised.entry(key).or_insert(greatest);
            *raised = greatest.max(*raised);
        }
    }

    /// Carries out raises, [`TOUCHED_PER_TURN_MAX`] at most.
    pub(crate) fn raise_some(&mut self) {
        for _ in 0..TOUCHED_PER_TURN_MAX {
            let Some(raise) = self.priorities.pending.pop_first() else {
                return;
            };
            self.raise(raise);
        }
    }

    fn raise(&mut self, raise: Raise) {
        let key = raise.waited_for.task;
        let Reverse(priority) = raise.to;
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let is_another = task.generation != raise.waited_for.generation;
        let is_urgent = self.priorities.of(key, task) >= priority;
        if is_another || is_urgent || !task.state().is_open() {
            return;
        }

        // The ready index goes by the priority.
        let in_index = task.state() == State::Ready { reserved: false };
        if in_index {
            self.remove_ready(key);
        }
        self.priorities.raised.insert(key, priority);
        if in_index {
            self.insert_ready(key);
        }
        self.priorities.raise_dependencies_of(key, priority);
    }
}
