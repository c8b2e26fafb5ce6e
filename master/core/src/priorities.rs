//! Priority inheritance: what an urgent task waits for becomes as urgent, and as long as it does. A
//! task that waits names the tasks that it waits for, so that a raise goes from task to task and
//! nothing is searched. When a task asks for less, or has ended, those that it waited for are counted
//! anew: what the greatest of their dependents ask for is what they inherit.

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
    /// The inherited priority of each open task that has one greater than its own.
    raised: BTreeMap<TaskKey, i32>,
    /// Raises that are not carried out yet.
    pending: BTreeSet<Raise>,
    /// Tasks that may inherit less than before, or more, and are to be counted.
    uncertain: BTreeSet<WaitedFor>,
    /// The task whose dependents are being counted.
    recount: Option<Recount>,
}

/// The count of what the dependents of a task ask for. It may take many turns.
#[derive(Debug)]
struct Recount {
    of: WaitedFor,
    /// The place of the dependent that is looked at next.
    next: usize,
    /// The greatest priority that was asked for so far, also by a task which has begun to wait, or
    /// has become more urgent, since it was looked at.
    greatest: Option<i32>,
}

impl InheritedPriorities {
    /// Whether anything is left for the next turn.
    pub fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.uncertain.is_empty() || self.recount.is_some()
    }

    /// Whether the dependents of this task are being counted.
    fn is_counted(&self, waited_for: &WaitedFor) -> bool {
        self.recount
            .as_ref()
            .is_some_and(|recount| recount.of == *waited_for)
    }

    /// The count that was begun, or that of the next task.
    fn next_recount(&mut self) -> Option<Recount> {
        self.recount.take().or_else(|| {
            let of = self.uncertain.pop_first()?;
            Some(Recount {
                of,
                next: 0,
                greatest: None,
            })
        })
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
        let mut asked: BTreeMap<TaskKey, i32> = BTreeMap::new();
        for (key, waits_for) in &self.priorities.waits_for {
            for on in waits_for.iter() {
                let is_it = |task: &&Task| task.generation == on.generation;
                let other = self.tasks.get(on.task).filter(is_it);
                let own = other.filter(|task| task.state().is_open());
                if let Some((own, asks)) = own.zip(self.effective_priority(*key))
                    && asks > own.priority
                {
                    let greatest = asked.entry(on.task).or_insert(asks);
                    *greatest = asks.max(*greatest);
                }
            }
        }
        if asked != self.priorities.raised {
            let raised = &self.priorities.raised;
            broken.push(format!("{raised:?} is inherited, and {asked:?} asked for"));
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
        // What is being counted may have been looked at before this task asked for so much.
        let is_asked = |waited_for: &WaitedFor| {
            self.priorities.is_counted(waited_for)
                || self
                    .effective_priority(waited_for.task)
                    .is_some_and(|other| other < priority)
        };
        if waits_for.iter().any(is_asked) {
            self.priorities.raise_dependencies_of(key, priority);
        }
    }

    /// A task waits for no other task any more. What it waited for may have been urgent only for its
    /// sake.
    pub(crate) fn stop_waiting(&mut self, key: TaskKey) {
        let Some(waits_for) = self.priorities.waits_for.remove(&key) else {
            return;
        };
        if let Some(asked) = self.effective_priority(key) {
            self.asks_less(&waits_for, asked);
        }
    }

    /// The own priority of a task has changed. Until now the task was sent by the priority `before`.
    pub(crate) fn own_priority_changed(&mut self, key: TaskKey, before: i32) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let own = task.priority;
        let inherits = self.priorities.raised.get(&key).copied();
        if inherits.is_some_and(|inherited| inherited <= own) {
            self.priorities.raised.remove(&key);
        }
        let now = self.priorities.of(key, task);
        // Those that wait for the task may ask for more than what it has now. As long as it had as
        // much by itself, nobody counted what they ask for.
        if inherits.is_none() && now < before && !task.dependents.is_empty() {
            let waited_for = WaitedFor {
                task: key,
                generation: task.generation,
            };
            self.priorities.uncertain.insert(waited_for);
        }
        self.effective_priority_changed(key, before);
    }

    /// The priority by which a task is sent was `before` until now: what the task waits for follows.
    fn effective_priority_changed(&mut self, key: TaskKey, before: i32) {
        let now = self.effective_priority(key).unwrap_or(before);
        if now > before {
            self.raise_what_it_waits_for(key);
        } else if now < before
            && let Some(waits_for) = self.priorities.waits_for.get(&key).cloned()
        {
            self.asks_less(&waits_for, before);
        }
    }

    /// A task asked that these be as urgent as `asked`, and asks no more. Those of which it may have
    /// been the only one that asked for so much are counted anew.
    fn asks_less(&mut self, waits_for: &[WaitedFor], asked: i32) {
        let priorities = &self.priorities;
        if priorities.raised.is_empty() && !priorities.has_work() {
            return;
        }
        let is_uncertain = |waited_for: &WaitedFor| match priorities.raised.get(&waited_for.task) {
            Some(inherited) => *inherited <= asked || priorities.is_counted(waited_for),
            // A raise may be on its way.
            None => priorities.has_work(),
        };
        let uncertain: Vec<WaitedFor> = waits_for.iter().copied().filter(is_uncertain).collect();
        self.priorities.uncertain.extend(uncertain);
    }

    /// Carries out raises, and then counts anew what tasks inherit: [`TOUCHED_PER_TURN_MAX`] tasks
    /// are looked at.
    pub(crate) fn pass_on_some(&mut self) {
        let mut left = TOUCHED_PER_TURN_MAX;
        while left > 0 {
            if let Some(raise) = self.priorities.pending.pop_first() {
                self.raise(raise);
                left -= 1;
            } else if let Some(recount) = self.priorities.next_recount() {
                left = self.count_some(recount, left);
            } else {
                return;
            }
        }
    }

    /// Looks at `most` dependents at most. Returns how many more may be looked at in this turn.
    fn count_some(&mut self, mut recount: Recount, most: usize) -> usize {
        let left = most - 1;
        let WaitedFor {
            task: key,
            generation,
        } = recount.of;
        let is_it = |task: &&Task| task.generation == generation && task.state().is_open();
        let Some(task) = self.tasks.get(key).filter(is_it) else {
            return left;
        };
        let rest = task.dependents.get(recount.next..).unwrap_or_default();
        let looked_at = rest.len().min(most);
        let ask = rest.iter().take(looked_at).filter_map(|dependent| {
            let waiting = self.tasks.get(dependent.task)?;
            let waits = matches!(waiting.state(), State::Blocked { .. });
            let is_it = waiting.generation == dependent.generation;
            (waits && is_it).then(|| self.priorities.of(dependent.task, waiting))
        });
        recount.greatest = ask.chain(recount.greatest).max();
        recount.next += looked_at;
        if recount.next < task.dependents.len() {
            self.priorities.recount = Some(recount);
            return 0;
        }
        self.inherit(key, recount.greatest);
        left.saturating_sub(looked_at)
    }

    /// A task inherits this priority, where it is greater than its own.
    fn inherit(&mut self, key: TaskKey, inherited: Option<i32>) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let before = self.priorities.of(key, task);
        let inherited = inherited.filter(|inherited| *inherited > task.priority);
        // The ready index goes by the priority.
        let in_index = task.state() == State::Ready { reserved: false };
        if in_index {
            self.remove_ready(key);
        }
        match inherited {
            Some(inherited) => self.priorities.raised.insert(key, inherited),
            None => self.priorities.raised.remove(&key),
        };
        if in_index {
            self.insert_ready(key);
        }
        self.effective_priority_changed(key, before);
    }

    fn raise(&mut self, raise: Raise) {
        let key = raise.waited_for.task;
        let Reverse(priority) = raise.to;
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        if task.generation != raise.waited_for.generation || !task.state().is_open() {
            return;
        }
        if let Some(recount) = self.priorities.recount.as_mut()
            && recount.of == raise.waited_for
        {
            recount.greatest = recount.greatest.max(Some(priority));
        }
        if self.priorities.of(key, task) < priority {
            self.inherit(key, Some(priority));
        }
    }
}
