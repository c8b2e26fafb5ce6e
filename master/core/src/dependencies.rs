//! Dependencies: a counter on the task that waits, and a list on the task that is waited for.
//! Nothing ever searches for a blocked task.

use crate::effect::{Effect, EndReason};
use crate::event::DependsOn;
use crate::keys::TaskKey;
use crate::one_or_many::OneOrMany;
use crate::priorities::WaitedFor;
use crate::scheduler::{Scheduler, TOUCHED_PER_TURN_MAX};
use crate::state::{FinalState, State};
use crate::task::Dependent;
use taskmaster_protocol::When;

/// The dependents of an ended task that have not been notified of the end yet. The ended task keeps
/// its key until all are.
#[derive(Debug)]
pub(crate) struct Notification {
    /// The task that ended.
    pub task: TaskKey,
    /// How the task ended.
    pub how: FinalState,
    /// The dependents that are left, the next one last.
    pub dependents: OneOrMany<Dependent>,
}

impl Scheduler {
    /// Counts the open dependencies of a task. Without any the task goes on; if one has ended in
    /// another way than the task waits for, the task is skipped.
    pub(crate) fn count_dependencies(
        &mut self,
        key: TaskKey,
        dependencies: &[DependsOn],
        effects: &mut Vec<Effect>,
    ) {
        let generation = self.tasks.expect(key).generation;
        let mut open = 0;
        let mut told = 0;
        let mut waits_for = OneOrMany::None;

        for (index, dependency) in dependencies.iter().enumerate() {
            match *dependency {
                DependsOn::Open(on, when) => {
                    let dependent = Dependent {
                        task: key,
                        generation,
                        when,
                    };
                    match self.wait_for(on, dependent) {
                        None => {
                            open += 1;
                            waits_for.push(WaitedFor {
                                task: on,
                                generation: self.tasks.expect(on).generation,
                            });
                        }
                        Some(how) if how.meets(when) => {}
                        Some(how) => {
                            let why = EndReason::Dependency(on, how);
                            return self.end(key, FinalState::Skipped, why, effects);
                        }
                    }
                }
                DependsOn::Ended(how, when) => {
                    if !how.meets(when) {
                        let why = EndReason::EarlierDependency(index, how);
                        return self.end(key, FinalState::Skipped, why, effects);
                    }
                }
                DependsOn::Told => {
                    open += 1;
                    told += 1;
                }
            }
        }

        if told > 0 {
            self.told.insert(key, told);
        }
        if open > 0 {
            self.enter(key, State::Blocked { open }, effects);
            self.priorities.task_waits(key, waits_for);
            self.raise_what_it_waits_for(key);
        } else {
            self.unblock(key, effects);
        }
    }

    /// The engine tells what has become of a dependency of a blocked task that only the engine knows.
    /// The engine may not know yet that the task has ended.
    pub(crate) fn dependency_told(
        &mut self,
        key: TaskKey,
        is: DependsOn,
        effects: &mut Vec<Effect>,
    ) {
        let Some(told) = self.told.get_mut(&key) else {
            return;
        };
        let (how, when) = match is {
            DependsOn::Told => return,
            DependsOn::Ended(how, when) => (how, when),
            DependsOn::Open(on, when) => {
                *told -= 1;
                return self.wait_for_task(key, on, when, effects);
            }
        };
        *told -= 1;
        if how.meets(when) {
            self.dependency_met(key, effects);
        } else {
            self.end(key, FinalState::Skipped, EndReason::ToldDependency, effects);
        }
    }

    /// A blocked task, which counts one more open dependency than tasks name it, waits for an open
    /// task from now on.
    fn wait_for_task(&mut self, key: TaskKey, on: TaskKey, when: When, effects: &mut Vec<Effect>) {
        let dependent = Dependent {
            task: key,
            generation: self.tasks.expect(key).generation,
            when,
        };
        match self.wait_for(on, dependent) {
            None => {
                let generation = self.tasks.expect(on).generation;
                let waited_for = WaitedFor {
                    task: on,
                    generation,
                };
                self.priorities.task_waits_also(key, waited_for);
                self.raise_what_it_waits_for(key);
            }
            Some(how) if how.meets(when) => self.dependency_met(key, effects),
            Some(how) => {
                let why = EndReason::Dependency(on, how);
                self.end(key, FinalState::Skipped, why, effects);
            }
        }
    }

    /// One open dependency of a blocked task is met.
    fn dependency_met(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let State::Blocked { open } = self.tasks.expect(key).state else {
            return;
        };
        assert!(open > 0, "task {key:?} has no open dependency left to meet");
        if open > 1 {
            self.enter(key, State::Blocked { open: open - 1 }, effects);
        } else {
            self.unblock(key, effects);
        }
    }

    /// Puts a dependent into the list of an open task. If that task has ended within this turn, the
    /// engine did not know of the end yet, and it is returned.
    #[expect(
        clippy::panic,
        reason = "the contract of the engine: an open dependency is a task of the core"
    )]
    fn wait_for(&mut self, on: TaskKey, dependent: Dependent) -> Option<FinalState> {
        let Some(task) = self.tasks.get_mut(on) else {
            panic!("the engine says that {on:?} is open, and the core does not hold it");
        };
        if let State::Ended(how) = task.state {
            return Some(how);
        }
        task.dependents.push(dependent);
        None
    }

    /// Has the dependents of an ended task notified by [`Scheduler::notify_some`], over several
    /// turns if there are many. A crash in between does no harm, because a restored task counts its
    /// open dependencies anew.
    pub(crate) fn notify_later(
        &mut self,
        task: TaskKey,
        how: FinalState,
        mut dependents: OneOrMany<Dependent>,
        effects: &mut Vec<Effect>,
    ) {
        if dependents.is_empty() {
            return self.forget_if_over(task, effects);
        }
        dependents.reverse();
        self.tasks.expect(task).notifies_dependents = true;
        self.notifications.push_back(Notification {
            task,
            how,
            dependents,
        });
    }

    /// Notifies dependents of ended tasks, [`TOUCHED_PER_TURN_MAX`] at most.
    pub(crate) fn notify_some(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..TOUCHED_PER_TURN_MAX {
            let Some(first) = self.notifications.front_mut() else {
                return;
            };
            let ended = first.task;
            let how = first.how;
            match first.dependents.pop() {
                Some(dependent) => self.notify(dependent, ended, how, effects),
                None => {
                    self.notifications.pop_front();
                    self.tasks.expect(ended).notifies_dependents = false;
                    self.forget_if_over(ended, effects);
                }
            }
        }
    }

    fn notify(
        &mut self,
        dependent: Dependent,
        ended: TaskKey,
        how: FinalState,
        effects: &mut Vec<Effect>,
    ) {
        let key = dependent.task;
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        // The dependent may have been cancelled, or skipped for another dependency, and its key
        // given to another task.
        if !matches!(task.state, State::Blocked { .. }) {
            return;
        }
        if task.generation != dependent.generation {
            return;
        }

        if !how.meets(dependent.when) {
            let why = EndReason::Dependency(ended, how);
            return self.end(key, FinalState::Skipped, why, effects);
        }
        self.dependency_met(key, effects);
    }
}
