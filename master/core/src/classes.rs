//! Classes of tasks: made when a task needs a new one, opened and closed with their modules, and
//! served by the groups of runners that suit.

use crate::effect::Effect;
use crate::event::NewTask;
use crate::keys::{ClassKey, GroupKey, JobKey, RunnerKey};
use crate::ready::TaskClass;
use crate::scheduler::Scheduler;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_protocol::{Capabilities, ModuleName, Requires, limits};

impl Scheduler {
    /// Whether a task with these requirements would need one class more than the index takes. The
    /// shell refuses to add such a task.
    pub fn classes_full(&self, module: &ModuleName, requires: &Requires, memory_mb: u32) -> bool {
        let existing = self.ready.class_key(module, requires, memory_mb);
        if existing.is_some() {
            return false;
        }
        let used = self.ready.classes().filter(|(_, class)| class.tasks > 0);
        used.count() >= limits::CLASSES_MAX
    }

    /// The copy of these requirements that other tasks of the module share, so that a million tasks
    /// with equal requirements need one copy.
    pub fn shared_requires(
        &self,
        module: &ModuleName,
        requires: &Requires,
    ) -> Option<Arc<Requires>> {
        self.ready.shared_requires(module, requires).cloned()
    }

    /// The class of a task, which is made if there is none.
    pub(crate) fn class_of(&mut self, task: &NewTask) -> ClassKey {
        let NewTask {
            module,
            requires,
            memory_mb,
            ..
        } = task;
        if let Some(key) = self.ready.class_key(module, requires, *memory_mb) {
            return key;
        }
        let class = TaskClass {
            module: module.clone(),
            requires: requires.clone(),
            memory_mb: *memory_mb,
            needs: self.module_needs.get(module).cloned().unwrap_or_default(),
            open: !self.closed_modules.contains(module),
            tasks: 0,
            jobs: BTreeSet::new(),
            mean_us: None,
        };
        let key = self.ready.insert_class(class, limits::CLASSES_MAX);
        self.serve_new_class(key);
        key
    }

    /// Finds the groups that serve a new class. A group is split if the class suits only some of its
    /// runners.
    fn serve_new_class(&mut self, key: ClassKey) {
        let groups: Vec<GroupKey> = self.ready.groups.keys().copied().collect();
        for group in groups {
            let members: Vec<RunnerKey> =
                self.ready.groups[&group].members.iter().copied().collect();
            let class = self.ready.class(key);
            let (suited, others): (Vec<RunnerKey>, Vec<RunnerKey>) = members
                .into_iter()
                .partition(|member| class.suits(&self.runners[member].offer));
            if suited.is_empty() {
                continue;
            }
            for runner in &others {
                self.leave_group(*runner);
            }
            self.ready.group_mut(group).serves.insert(key);
            for runner in others {
                self.join_group(runner);
            }
        }
    }

    /// Lets the tasks of a module be sent, or holds them back.
    pub(crate) fn open_module(
        &mut self,
        module: ModuleName,
        open: bool,
        effects: &mut Vec<Effect>,
    ) {
        if open {
            self.closed_modules.remove(&module);
        } else {
            self.closed_modules.insert(module.clone());
            self.unreserve_where(|_, class| class.module == module, effects);
        }
        for key in self.ready.classes_of(&module) {
            let class = self.ready.class_mut(key);
            class.open = open;
            let jobs: BTreeSet<JobKey> = class.jobs.iter().map(|(job, _)| *job).collect();
            for job in jobs {
                self.requeue_job(job);
            }
        }
    }

    /// Changes what a module needs of a runner. Other runners may suit its classes from now on, so
    /// all runners are grouped anew.
    pub(crate) fn change_needs(
        &mut self,
        module: ModuleName,
        needs: Arc<Capabilities>,
        effects: &mut Vec<Effect>,
    ) {
        let last = if needs.is_empty() {
            self.module_needs.remove(&module)
        } else {
            self.module_needs.insert(module.clone(), needs.clone())
        };
        if last.unwrap_or_default() == needs {
            return;
        }
        self.unreserve_where(|_, class| class.module == module, effects);

        let classes = self.ready.classes_of(&module);
        if classes.is_empty() {
            return;
        }
        for key in classes {
            self.ready.class_mut(key).needs = needs.clone();
        }
        let runners: Vec<RunnerKey> = self
            .runners
            .iter()
            .filter(|(_, runner)| runner.group.is_some())
            .map(|(key, _)| *key)
            .collect();
        for runner in &runners {
            self.leave_group(*runner);
        }
        for runner in runners {
            self.join_group(runner);
        }
    }
}
