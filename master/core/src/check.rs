//! The invariants, one function each, named as sentences. Tests and the simulation call
//! [`Scheduler::check`] after every event; it recomputes everything and is slow.

use crate::event::RunnerKey;
use crate::runners::Runner;
use crate::scheduler::Scheduler;
use crate::state::State;
use std::collections::BTreeMap;
use taskmaster_protocol::TaskState;

impl Scheduler {
    /// Every invariant that does not hold, as a sentence; empty: all is well.
    pub fn check(&self) -> Vec<String> {
        let mut broken = Vec::new();
        self.counts_are_what_a_count_would_give(&mut broken);
        self.open_dependencies_are_those_that_name_the_task(&mut broken);
        self.ready_tasks_and_no_others_are_in_the_index(&mut broken);
        self.delayed_tasks_have_their_time(&mut broken);
        self.what_a_runner_holds_and_what_its_tasks_say_agree(&mut broken);
        self.no_runner_is_charged_wrongly(&mut broken);
        self.jobs_stand_where_their_ready_tasks_are_served(&mut broken);
        self.assigned_tasks_are_held_by_somebody(&mut broken);
        self.runners_with_room_are_listed_and_no_others(&mut broken);
        self.slots_are_kept_for_ready_tasks_alone(&mut broken);
        self.what_is_named_is_there(&mut broken);
        broken
    }

    fn counts_are_what_a_count_would_give(&self, broken: &mut Vec<String>) {
        let mut counts: BTreeMap<_, [u64; 8]> = BTreeMap::new();
        for (_, task) in self.tasks.iter() {
            counts.entry(task.job).or_default()[task.state().name() as usize] += 1;
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
        let mut waiting: BTreeMap<_, u32> = BTreeMap::new();
        let lists = self
            .tasks
            .iter()
            .map(|(_, task)| task.waiters.iter())
            .chain(self.settling.iter().map(|s| s.waiters.iter()));
        for waiter in lists.flatten() {
            if self
                .tasks
                .get(waiter.task)
                .is_some_and(|task| task.life == waiter.life)
            {
                *waiting.entry(waiter.task).or_default() += 1;
            }
        }
        for (key, task) in self.tasks.iter() {
            if let State::Blocked { open } = task.state()
                && waiting.get(&key) != Some(&open)
            {
                broken.push(format!(
                    "{key:?} counts {open} open dependencies, {:?} tasks name it",
                    waiting.get(&key)
                ));
            }
        }
    }

    fn ready_tasks_and_no_others_are_in_the_index(&self, broken: &mut Vec<String>) {
        let mut indexed = 0;
        for (_, job) in self.jobs.iter() {
            for ((priority, class), queue) in job.ready.iter() {
                indexed += queue.len();
                for (no, key) in queue.iter() {
                    let fits = self.tasks.get(key).is_some_and(|task| {
                        let place = (task.no, task.priority, task.class) == (no, priority.0, class);
                        place && task.state() == State::Ready { reserved: false }
                    });
                    if !fits {
                        broken.push(format!(
                            "{key:?} is in the ready index and does not belong there"
                        ));
                    }
                }
            }
            if !job.ready.are_right() {
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
            for held in task.held() {
                let Some(runner) = held.runner else { continue };
                if !self
                    .runners
                    .get(&runner)
                    .is_some_and(|r| r.lent.contains_key(&(key, held.attempt)))
                {
                    broken.push(format!(
                        "{key:?} says that {runner:?} holds {}, which does not know",
                        held.attempt
                    ));
                }
            }
        }
        for (runner_key, runner) in &self.runners {
            for (key, attempt) in runner.lent.keys() {
                let known = |task: &crate::Task| {
                    task.held()
                        .iter()
                        .any(|h| h.attempt == *attempt && h.runner == Some(*runner_key))
                };
                if !self.tasks.get(*key).is_some_and(known) {
                    broken.push(format!(
                        "{runner_key:?} holds {attempt} of {key:?}, which does not know"
                    ));
                }
            }
        }
    }

    fn no_runner_is_charged_wrongly(&self, broken: &mut Vec<String>) {
        let mut in_use: BTreeMap<_, u32> = BTreeMap::new();
        for (key, runner) in &self.runners {
            let used: u32 = runner.lent.values().map(|lent| lent.slots).sum();
            let backlog: u64 = runner.lent.values().map(|lent| lent.expected_us).sum();
            if (used, backlog) != (runner.used, runner.backlog_us) {
                broken.push(format!(
                    "{key:?} is charged {} slots and holds attempts of {used}",
                    runner.used
                ));
            }
            if runner.lent.len() > taskmaster_protocol::limits::CREDITS_MAX as usize {
                broken.push(format!(
                    "{key:?} holds {} attempts, more than any credit",
                    runner.lent.len()
                ));
            }
            for ((task, _), lent) in &runner.lent {
                if let Some(task) = self.tasks.get(*task) {
                    *in_use.entry(task.job).or_default() += lent.slots;
                }
            }
        }
        for (key, job) in self.jobs.iter() {
            let is = in_use.get(&key).copied().unwrap_or(0);
            if job.share.in_use != is {
                broken.push(format!(
                    "job {} is charged {} slots, its attempts have {is}",
                    job.name, job.share.in_use
                ));
            }
        }
    }

    fn jobs_stand_where_their_ready_tasks_are_served(&self, broken: &mut Vec<String>) {
        for (group_key, group) in &self.ready.groups {
            for (job_key, job) in self.jobs.iter() {
                let mut wanted = std::collections::BTreeSet::new();
                for (priority, class) in job.ready.keys() {
                    if !job.paused && group.serves.contains(&class) && self.ready.class(class).open
                    {
                        wanted.insert(priority);
                    }
                }
                let stands: std::collections::BTreeSet<_> = group
                    .queues
                    .iter()
                    .filter(|(_, jobs)| jobs.contains(&(job.share, job_key)))
                    .map(|(priority, _)| *priority)
                    .collect();
                if wanted != stands {
                    broken.push(format!(
                        "job {} stands at {stands:?} for {group_key:?}, and should at {wanted:?}",
                        job.name
                    ));
                }
            }
            let entries: usize = group
                .queues
                .values()
                .map(std::collections::BTreeSet::len)
                .sum();
            let places = self
                .jobs
                .iter()
                .flat_map(|(_, job)| job.places.iter())
                .filter(|(key, _)| key == group_key)
                .count();
            if entries != places {
                broken.push(format!(
                    "{group_key:?} has {entries} entries in its queues, jobs know of {places}"
                ));
            }
        }
    }

    fn assigned_tasks_are_held_by_somebody(&self, broken: &mut Vec<String>) {
        for (key, task) in self.tasks.iter() {
            let held = task.is_held();
            if (task.state() == State::Assigned) != held && !matches!(task.state(), State::Ended(_))
            {
                broken.push(format!(
                    "{key:?} is {:?}, and held by a runner: {held}",
                    task.state()
                ));
            }
        }
    }

    fn runners_with_room_are_listed_and_no_others(&self, broken: &mut Vec<String>) {
        for (key, runner) in &self.runners {
            let group = runner.group.and_then(|group| self.ready.groups.get(&group));
            let Some(group) = group.filter(|group| group.members.contains(key)) else {
                broken.push(format!("{key:?} is in no group"));
                continue;
            };
            let listed = runner.room.is_none_or(|room| group.rooms.contains(&room));
            if runner.room != runner.room(*key) || !listed {
                broken.push(format!(
                    "{key:?} has room {:?}, and is listed with {:?}",
                    runner.room(*key),
                    runner.room
                ));
            }
            let serves: std::collections::BTreeSet<_> = self
                .ready
                .classes()
                .filter(|(_, class)| class.suits(&runner.offer))
                .map(|(class, _)| class)
                .collect();
            if serves != group.serves {
                broken.push(format!(
                    "{key:?} suits {serves:?}, and its group serves {:?}",
                    group.serves
                ));
            }
        }
        let members: usize = self
            .ready
            .groups
            .values()
            .map(|group| group.members.len())
            .sum();
        let rooms: usize = self
            .ready
            .groups
            .values()
            .map(|group| group.rooms.len())
            .sum();
        let with_room = self
            .runners
            .values()
            .filter(|runner| runner.room.is_some())
            .count();
        if (members, rooms) != (self.runners.len(), with_room) {
            broken.push(format!(
                "groups have {members} members and {rooms} rooms, {} runners {with_room}",
                self.runners.len()
            ));
        }
    }

    fn slots_are_kept_for_ready_tasks_alone(&self, broken: &mut Vec<String>) {
        for (key, runner) in &self.runners {
            let Some(task) = runner.reserved.and_then(|task| self.tasks.get(task)) else {
                continue;
            };
            let may_run = self.ready.class(task.class).open && !self.jobs.get(task.job).paused;
            if task.state() != (State::Ready { reserved: true }) || !may_run {
                broken.push(format!(
                    "{key:?} keeps its slots for a task that is {:?}",
                    task.state()
                ));
            }
        }
        let keeping =
            |(key, runner): (&RunnerKey, &Runner)| runner.reserved.map(|task| (task, *key));
        if self
            .runners
            .iter()
            .filter_map(keeping)
            .collect::<BTreeMap<_, _>>()
            != self.ready.reserving
        {
            broken.push(format!(
                "slots are said to be kept for {:?}, runners say otherwise",
                self.ready.reserving
            ));
        }
        for (key, task) in self.tasks.iter() {
            let is_kept = self.ready.reserving.contains_key(&key);
            if (task.state() == State::Ready { reserved: true }) != is_kept {
                broken.push(format!(
                    "{key:?} is {:?}, and slots are kept for it: {is_kept}",
                    task.state()
                ));
            }
        }
    }

    fn what_is_named_is_there(&self, broken: &mut Vec<String>) {
        let (mut of_job, mut of_class) = (BTreeMap::new(), BTreeMap::new());
        for (_, task) in self.tasks.iter() {
            *of_job.entry(task.job).or_insert(0) += 1;
            *of_class.entry(task.class).or_insert(0) += 1;
        }
        for (key, job) in self.jobs.iter() {
            let sweeps = self.sweeps.iter().filter(|sweep| sweep.job == key).count();
            if (of_job.remove(&key).unwrap_or(0), sweeps) != (job.tasks, job.sweeps) {
                broken.push(format!(
                    "job {} counts {} tasks and {} cancels",
                    job.name, job.tasks, job.sweeps
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
