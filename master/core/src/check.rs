//! The invariants of the core, one function each, named as sentences. Tests and the simulation call
//! [`Scheduler::check`], which recomputes everything and is slow.

use crate::keys::{ClassKey, GroupKey, JobKey, RunnerKey, TaskKey};
use crate::ready::RunnerGroup;
use crate::runners::Runner;
use crate::scheduler::Scheduler;
use crate::state::State;
use crate::task::Task;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_protocol::{TaskState, limits};

impl Scheduler {
    /// Every invariant that does not hold, as a sentence. An empty list means that all hold.
    pub fn check(&self) -> Vec<String> {
        let mut broken = Vec::new();
        self.counts_are_what_a_count_would_give(&mut broken);
        self.open_dependencies_are_those_that_name_the_task(&mut broken);
        self.ready_tasks_and_no_others_are_in_the_index(&mut broken);
        self.delayed_tasks_have_their_time(&mut broken);
        self.what_a_runner_holds_and_what_its_tasks_say_agree(&mut broken);
        self.no_runner_is_charged_wrongly(&mut broken);
        self.no_job_is_charged_wrongly(&mut broken);
        self.jobs_stand_where_their_ready_tasks_are_served(&mut broken);
        self.assigned_tasks_are_held_by_somebody(&mut broken);
        self.available_runners_are_listed_and_no_others(&mut broken);
        self.slots_are_kept_for_ready_tasks_alone(&mut broken);
        self.what_is_named_is_there(&mut broken);
        self.priorities_are_passed_on(&mut broken);
        self.joined_tasks_wait_for_somebody(&mut broken);
        broken
    }

    fn counts_are_what_a_count_would_give(&self, broken: &mut Vec<String>) {
        let mut counts: BTreeMap<JobKey, [u64; 8]> = BTreeMap::new();
        for (_, task) in self.tasks.iter() {
            counts.entry(task.job).or_default()[task.state().task_state() as usize] += 1;
        }
        for (key, job) in self.jobs.iter() {
            let counted = counts.remove(&key).unwrap_or_default();
            for state in TaskState::ALL.into_iter().filter(|state| !state.is_final()) {
                if job.counts.of(state) != counted[state as usize] {
                    broken.push(format!(
                        "job {} says {} {}, there are {}",
                        job.name,
                        job.counts.of(state),
                        state.as_str(),
                        counted[state as usize]
                    ));
                }
            }
            let total: u64 = job.counts.by_state.iter().sum();
            if total != job.counts.total {
                broken.push(format!(
                    "job {} has {} tasks in all states, and a total of {}",
                    job.name, total, job.counts.total
                ));
            }
        }
    }

    fn open_dependencies_are_those_that_name_the_task(&self, broken: &mut Vec<String>) {
        let mut waiting: BTreeMap<TaskKey, u32> = self.told.clone();
        let of_open = self.tasks.iter().map(|(_, task)| &task.dependents);
        let of_ended = self
            .notifications
            .iter()
            .map(|notification| &notification.dependents);
        for dependent in of_open.chain(of_ended).flat_map(|list| list.iter()) {
            let is_current = self
                .tasks
                .get(dependent.task)
                .is_some_and(|task| task.generation == dependent.generation);
            if is_current {
                *waiting.entry(dependent.task).or_default() += 1;
            }
        }
        for (key, task) in self.tasks.iter() {
            if let State::Blocked { open } = task.state()
                && waiting.get(&key) != Some(&open)
            {
                broken.push(format!(
                    "{key:?} counts {open} open dependencies, {:?} tasks name it or are told of",
                    waiting.get(&key)
                ));
            }
        }
        let is_blocked = |key: &TaskKey| {
            let task = self.tasks.get(*key);
            task.is_some_and(|task| matches!(task.state(), State::Blocked { .. }))
        };
        for key in self.told.keys().filter(|key| !is_blocked(key)) {
            broken.push(format!("{key:?} is to be told of, and not blocked"));
        }
    }

    fn ready_tasks_and_no_others_are_in_the_index(&self, broken: &mut Vec<String>) {
        let mut indexed = 0;
        for (_, job) in self.jobs.iter() {
            for (queue_key, queue) in job.ready.iter() {
                indexed += queue.len();
                for queued in queue.iter() {
                    let key = queued.key;
                    let fits = self.tasks.get(key).is_some_and(|task| {
                        task.ordinal == queued.ordinal
                            && self.priorities.of(key, task) == queue_key.priority.0
                            && task.class == queue_key.class
                            && task.state() == State::Ready { reserved: false }
                    });
                    if !fits {
                        broken.push(format!(
                            "{key:?} is in the ready index and does not belong there"
                        ));
                    }
                }
            }
            if !job.ready.are_consistent() {
                broken.push(format!(
                    "the queues of job {} are not what they would be: {:?}",
                    job.name, job.ready
                ));
            }
        }
        let ready = self
            .tasks
            .iter()
            .filter(|(_, task)| task.state() == State::Ready { reserved: false })
            .count();
        if ready != indexed {
            broken.push(format!(
                "{ready} tasks are ready, {indexed} are in the index"
            ));
        }
    }

    fn delayed_tasks_have_their_time(&self, broken: &mut Vec<String>) {
        for (key, task) in self.tasks.iter() {
            let waits = task
                .due()
                .is_some_and(|due| self.deadlines.has_task(due, key));
            if task.state() == State::Delayed && !waits {
                broken.push(format!("{key:?} is delayed, and nothing will wake it"));
            }
        }
        let delayed = self
            .tasks
            .iter()
            .filter(|(_, task)| task.state() == State::Delayed)
            .count();
        if delayed != self.deadlines.tasks_len() {
            broken.push(format!(
                "{delayed} tasks are delayed, {} have a time",
                self.deadlines.tasks_len()
            ));
        }
    }

    fn what_a_runner_holds_and_what_its_tasks_say_agree(&self, broken: &mut Vec<String>) {
        for (key, task) in self.tasks.iter() {
            for open in task.open_attempts() {
                let Some(runner_key) = open.runner else {
                    continue;
                };
                let holds = |runner: &Runner| runner.in_flight.contains_key(&(key, open.attempt));
                if !self.runners.get(&runner_key).is_some_and(holds) {
                    broken.push(format!(
                        "{key:?} says that {runner_key:?} holds {}, which does not know",
                        open.attempt
                    ));
                }
            }
        }
        for (runner_key, runner) in &self.runners {
            for (key, attempt) in runner.in_flight.keys() {
                let is_known = |task: &Task| {
                    task.open_attempt(*attempt)
                        .is_some_and(|open| open.runner == Some(*runner_key))
                };
                if !self.tasks.get(*key).is_some_and(is_known) {
                    broken.push(format!(
                        "{runner_key:?} holds {attempt} of {key:?}, which does not know"
                    ));
                }
            }
        }
    }

    fn no_runner_is_charged_wrongly(&self, broken: &mut Vec<String>) {
        for (key, runner) in &self.runners {
            let charges = runner.in_flight.values();
            let used: u32 = charges.clone().map(|charge| charge.slots).sum();
            let memory_mb: u64 = charges
                .clone()
                .map(|charge| u64::from(charge.memory_mb))
                .sum();
            let backlog_us: u64 = charges.map(|charge| charge.expected_us).sum();
            let charged = (runner.used_slots, runner.used_memory_mb, runner.backlog_us);
            if charged != (used, memory_mb, backlog_us) {
                broken.push(format!(
                    "{key:?} is charged {charged:?} (slots, MiB, us) and holds attempts of \
                     {used}, {memory_mb}, {backlog_us}"
                ));
            }
            if runner.in_flight.len() > limits::CREDITS_MAX as usize {
                broken.push(format!(
                    "{key:?} holds {} attempts, more than any credit",
                    runner.in_flight.len()
                ));
            }
        }
    }

    fn no_job_is_charged_wrongly(&self, broken: &mut Vec<String>) {
        let mut in_use: BTreeMap<JobKey, u32> = BTreeMap::new();
        for runner in self.runners.values() {
            for ((key, _), charge) in &runner.in_flight {
                if let Some(task) = self.tasks.get(*key) {
                    *in_use.entry(task.job).or_default() += charge.slots;
                }
            }
        }
        for (key, job) in self.jobs.iter() {
            let counted = in_use.get(&key).copied().unwrap_or(0);
            if job.usage.slots_in_use != counted {
                broken.push(format!(
                    "job {} is charged {} slots, its attempts have {counted}",
                    job.name, job.usage.slots_in_use
                ));
            }
        }
    }

    fn jobs_stand_where_their_ready_tasks_are_served(&self, broken: &mut Vec<String>) {
        for (group_key, group) in &self.ready.groups {
            self.jobs_stand_where_a_group_serves(*group_key, group, broken);

            let entries: usize = group.job_queues.values().map(BTreeSet::len).sum();
            let known = self
                .jobs
                .iter()
                .flat_map(|(_, job)| job.queued_in.iter())
                .filter(|queue| queue.group == *group_key)
                .count();
            if entries != known {
                broken.push(format!(
                    "{group_key:?} has {entries} entries in its queues, jobs know of {known}"
                ));
            }
        }
    }

    fn jobs_stand_where_a_group_serves(
        &self,
        group_key: GroupKey,
        group: &RunnerGroup,
        broken: &mut Vec<String>,
    ) {
        for (job_key, job) in self.jobs.iter() {
            let wanted: BTreeSet<Reverse<i32>> = job
                .ready
                .keys()
                .filter(|key| !job.is_held_back() && group.serves.contains(&key.class))
                .filter(|key| self.ready.class(key.class).open)
                .map(|key| key.priority)
                .collect();
            let stands: BTreeSet<Reverse<i32>> = group
                .job_queues
                .iter()
                .filter(|(_, jobs)| jobs.contains(&(job.usage, job_key)))
                .map(|(priority, _)| *priority)
                .collect();
            if wanted != stands {
                broken.push(format!(
                    "job {} stands at {stands:?} for {group_key:?}, and should at {wanted:?}",
                    job.name
                ));
            }
        }
    }

    fn assigned_tasks_are_held_by_somebody(&self, broken: &mut Vec<String>) {
        for (key, task) in self.tasks.iter() {
            let is_held = task.is_on_a_runner();
            let is_assigned = task.state() == State::Assigned;
            if is_assigned != is_held && task.state().is_open() {
                broken.push(format!(
                    "{key:?} is {:?}, and held by a runner: {is_held}",
                    task.state()
                ));
            }
        }
    }

    fn available_runners_are_listed_and_no_others(&self, broken: &mut Vec<String>) {
        for (key, runner) in &self.runners {
            let group = runner.group.and_then(|group| self.ready.groups.get(&group));
            let Some(group) = group.filter(|group| group.members.contains(key)) else {
                broken.push(format!("{key:?} is in no group"));
                continue;
            };
            let is_listed = runner
                .availability
                .is_none_or(|availability| group.available.contains(&availability));
            if runner.availability != runner.availability(*key) || !is_listed {
                broken.push(format!(
                    "{key:?} is available as {:?}, and listed as {:?}",
                    runner.availability(*key),
                    runner.availability
                ));
            }
            let suits: BTreeSet<ClassKey> = self
                .ready
                .classes()
                .filter(|(_, class)| class.suits(&runner.offer))
                .map(|(class, _)| class)
                .collect();
            if suits != group.serves {
                broken.push(format!(
                    "{key:?} suits {suits:?}, and its group serves {:?}",
                    group.serves
                ));
            }
        }

        let groups = self.ready.groups.values();
        let members: usize = groups.clone().map(|group| group.members.len()).sum();
        let listed: usize = groups.map(|group| group.available.len()).sum();
        let runners = self.runners.len();
        let available = self
            .runners
            .values()
            .filter(|runner| runner.availability.is_some())
            .count();
        if members != runners || listed != available {
            broken.push(format!(
                "groups have {members} members and list {listed} as available, of {runners} runners {available} are"
            ));
        }
    }

    fn slots_are_kept_for_ready_tasks_alone(&self, broken: &mut Vec<String>) {
        let mut reservations: BTreeMap<TaskKey, RunnerKey> = BTreeMap::new();
        for (key, runner) in &self.runners {
            let Some(task_key) = runner.reserved_for else {
                continue;
            };
            reservations.insert(task_key, *key);
            let Some(task) = self.tasks.get(task_key) else {
                continue;
            };
            let may_be_sent =
                self.ready.class(task.class).open && !self.jobs.get(task.job).is_held_back();
            if task.state() != (State::Ready { reserved: true }) || !may_be_sent {
                broken.push(format!(
                    "{key:?} keeps its slots for a task that is {:?}",
                    task.state()
                ));
            }
        }
        if reservations != self.ready.reservations {
            broken.push(format!(
                "slots are said to be kept for {:?}, runners say otherwise",
                self.ready.reservations
            ));
        }
        for (key, task) in self.tasks.iter() {
            let is_kept = self.ready.reservations.contains_key(&key);
            if (task.state() == State::Ready { reserved: true }) != is_kept {
                broken.push(format!(
                    "{key:?} is {:?}, and slots are kept for it: {is_kept}",
                    task.state()
                ));
            }
        }
    }

    fn what_is_named_is_there(&self, broken: &mut Vec<String>) {
        let mut of_job: BTreeMap<JobKey, usize> = BTreeMap::new();
        let mut of_class: BTreeMap<ClassKey, usize> = BTreeMap::new();
        for (_, task) in self.tasks.iter() {
            *of_job.entry(task.job).or_default() += 1;
            *of_class.entry(task.class).or_default() += 1;
        }
        for (key, job) in self.jobs.iter() {
            let tasks = of_job.remove(&key).unwrap_or(0);
            let cancels = self
                .job_cancels
                .iter()
                .filter(|cancel| cancel.job == key)
                .count();
            if tasks != job.tasks || cancels != job.cancels {
                broken.push(format!(
                    "job {} counts {} tasks and {} cancels",
                    job.name, job.tasks, job.cancels
                ));
            }
        }
        for (key, class) in self.ready.classes() {
            if of_class.remove(&key).unwrap_or(0) != class.tasks {
                broken.push(format!("{key:?} counts {} tasks wrongly", class.tasks));
            }
        }
        if !of_job.is_empty() || !of_class.is_empty() {
            broken.push(format!(
                "tasks name {of_job:?} and {of_class:?}, which are not there"
            ));
        }
    }
}
