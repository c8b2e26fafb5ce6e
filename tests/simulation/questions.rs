//! Questions to the master at any moment. Every answer must be what the model says.

use crate::model::{Fate, Model};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_engine::disk_space::DiskSpace;
use taskmaster_protocol::message::{Page, Query, ResultRef};
use taskmaster_protocol::shape::{JobView, TaskView};
use taskmaster_protocol::{JobName, RefusalCode, TaskId, TaskState};
use taskmaster_store::record::TaskOutput;

impl World {
    /// Asks something at random.
    pub fn question(&mut self) {
        let now = self.clock();
        // While the engine has work left over, dependents of an ended task may not know of the end yet,
        // and the model knows.
        if self.master.as_ref().is_none_or(|master| {
            master
                .engine
                .next_deadline(now)
                .is_some_and(|at| at <= now.mono_us)
        }) {
            return;
        }
        let verdict = match (self.chance.below(8), self.any_task(), self.any_job()) {
            (0..4, Some(id), _) => self.ask_task(id),
            (4, Some(_), _) => {
                let some = (0..3).filter_map(|_| self.any_task()).collect();
                self.ask_results(some)
            }
            (5 | 6, _, Some(job)) => self.ask_job(job),
            (_, _, Some(job)) => self.ask_list(job),
            _ => Ok(()),
        };
        if let Err(text) = verdict {
            self.oracle.claim(false, || text);
        }
    }

    fn any_task(&mut self) -> Option<TaskId> {
        let tasks = &self.oracle.pending.tasks;
        tasks
            .keys()
            .nth(self.chance.below(tasks.len() as u64) as usize)
            .cloned()
    }

    fn any_job(&mut self) -> Option<JobName> {
        let jobs = &self.oracle.pending.jobs;
        jobs.keys()
            .nth(self.chance.below(jobs.len() as u64) as usize)
            .cloned()
    }

    /// Whether the engine knows that the disk is full.
    fn is_full(&self) -> bool {
        self.master
            .as_ref()
            .is_some_and(|master| matches!(master.disk, DiskSpace::Full(_)))
    }

    fn ask_task(&mut self, id: TaskId) -> Result<(), String> {
        let answer = self.ask(Query::Task { id: id.clone() });
        let fate = &self.oracle.pending.tasks[&id];
        let durable = &self.oracle.durable;
        let refused = answer
            .as_ref()
            .is_err_and(|refusal| refusal.code == RefusalCode::Unavailable);
        if self.is_full() && !durable.is_safe(&id, fate) {
            return if refused {
                Ok(())
            } else {
                Err(format!("{answer:?} is told of {id}, which waits for room"))
            };
        }
        // The id may name another task by now, which is not durable yet, while the end of the former
        // task has left the view.
        if self.is_full()
            && refused
            && fate.body.ordinal > durable.no
            && durable.gone.contains_key(&id)
        {
            return Ok(());
        }
        let json = answer.map_err(|refusal| format!("{id} is not told: {refusal}"))?;
        let view: TaskView = json.read().map_err(|error| error.to_string())?;
        if is(&view, fate) {
            Ok(())
        } else {
            Err(format!("{id} is told as {view:?}, and is {fate:?}"))
        }
    }

    /// Asks for results, as a runner does before it starts a task with `$result`.
    pub fn ask_results(&mut self, ids: Vec<TaskId>) -> Result<(), String> {
        let json = self
            .ask(Query::Results { ids: ids.clone() })
            .map_err(|refusal| format!("results are not told: {refusal}"))?;
        let told: BTreeMap<TaskId, ResultRef> = json.read().map_err(|error| error.to_string())?;
        for id in ids {
            let Some(fate) = self.oracle.pending.tasks.get(&id) else {
                continue;
            };
            let result = fate
                .ends
                .last()
                .filter(|_| !fate.open)
                .and_then(|ended| ended.end.result.as_ref())
                .map(TaskOutput::result);
            if told.get(&id) != result.as_ref() {
                return Err(format!(
                    "the result of {id} is told as {:?}, and is {result:?}",
                    told.get(&id)
                ));
            }
        }
        Ok(())
    }

    fn ask_job(&mut self, job: JobName) -> Result<(), String> {
        let json = self
            .ask(Query::Job { job: job.clone() })
            .map_err(|refusal| format!("job {job} is not told: {refusal}"))?;
        let view: JobView = json.read().map_err(|error| error.to_string())?;
        let model = &self.oracle.pending;
        let fate = &model.jobs[&job];
        let [done, failed, cancelled, skipped] = fate.ended;
        let mine = || {
            model
                .tasks
                .values()
                .filter(|task| task.open && task.body.job == job)
        };
        let blocked = mine().filter(|task| !task.waits.is_empty()).count() as u64;
        let told = (view.run, view.open, view.paused, view.total, view.blocked);
        let open = view.blocked + view.delayed + view.ready + view.assigned;
        let ends = (view.done, view.failed, view.cancelled, view.skipped);
        let same = told == (fate.run, fate.open, fate.paused, fate.total, blocked)
            && open == fate.open_tasks
            && ends == (done, failed, cancelled, skipped);
        let waits = || {
            mine()
                .filter(|task| !task.waits.is_empty())
                .map(|task| (&task.body.id, &task.waits))
        };
        let is = || {
            format!(
                "{fate:?}, {blocked} blocked: {:?}",
                waits().collect::<Vec<_>>()
            )
        };
        if same {
            Ok(())
        } else {
            Err(format!("job {job} is told as {view:?}, and is {}", is()))
        }
    }

    /// Asks for a list of a job's tasks. All pages together must have each task once: the open ones in
    /// the order of adding, then the ended ones with the newest first.
    fn ask_list(&mut self, job: JobName) -> Result<(), String> {
        let limit = self.chance.spread(1, 64) as usize;
        let mut after = None;
        let mut rows = Vec::new();
        loop {
            let query = Query::Tasks {
                job: Some(job.clone()),
                state: None,
                module: None,
                limit,
                after,
            };
            let json = self
                .ask(query)
                .map_err(|refusal| format!("a list is not told: {refusal}"))?;
            let page: Page<TaskView> = json.read().map_err(|error| error.to_string())?;
            rows.extend(page.rows);
            match page.next {
                None => break,
                next => after = next,
            }
        }
        let model = &self.oracle.pending;
        // On a full disk, tasks whose end is not durable are left out.
        let safe = if self.is_full() {
            self.oracle.durable.seq
        } else {
            u64::MAX
        };
        let wanted = listed(model, &job, safe);
        // A task that may be forgotten is in the list until it is. Its id may name another task by
        // then, which comes before it in the list.
        let relapsed = &self.oracle.relapsed;
        let mut newer = BTreeSet::new();
        let mut is_meant = |row: &TaskView, fate| {
            !relapsed.contains(&row.id) || is(row, fate) && newer.insert(row.id.clone())
        };
        rows.retain(|row| {
            model
                .tasks
                .get(&row.id)
                .is_some_and(|fate| is_meant(row, fate))
        });
        let told: Vec<&TaskId> = rows.iter().map(|row| &row.id).collect();
        let once: BTreeSet<&TaskId> = told.iter().copied().collect();
        if told != wanted || once.len() != told.len() {
            return Err(format!(
                "of job {job} are told {told:?}, there are {wanted:?}"
            ));
        }
        let wrong = rows
            .iter()
            .find(|row| model.tasks.get(&row.id).is_some_and(|fate| !is(row, fate)));
        wrong.map_or(Ok(()), |row| {
            Err(format!(
                "{row:?} is told in a list, and is {:?}",
                model.tasks.get(&row.id)
            ))
        })
    }
}

/// The tasks of a job in the order of a list. Ends after the event `safe` are left out.
fn listed<'a>(model: &'a Model, job: &JobName, safe: u64) -> Vec<&'a TaskId> {
    let mine = || model.tasks.iter().filter(|(_, fate)| fate.body.job == *job);
    let mut open: Vec<(u64, &TaskId)> = mine()
        .filter(|(_, fate)| fate.open)
        .map(|(id, fate)| (fate.body.ordinal, id))
        .collect();
    let ended = |(id, fate): (&'a TaskId, &'a Fate)| {
        Some((fate.ends.last().filter(|_| !fate.open)?.seq, id))
    };
    let mut ended: Vec<(u64, &TaskId)> = mine()
        .filter_map(ended)
        .filter(|(seq, _)| *seq <= safe)
        .collect();
    open.sort_unstable();
    ended.sort_unstable_by(|a, b| b.cmp(a));
    open.into_iter().chain(ended).map(|(_, id)| id).collect()
}

/// Whether the view of a task is what the model says.
fn is(view: &TaskView, fate: &Fate) -> bool {
    let same = view.job == fate.body.job && view.priority == fate.priority;
    let state = match fate.ends.last().filter(|_| !fate.open) {
        Some(ended) => {
            let result = ended.end.result_parts().0;
            view.state == ended.end.state
                && view.result.as_ref() == result
                && view.error == ended.end.error
        }
        None if fate.waits.is_empty() => {
            matches!(
                view.state,
                TaskState::Delayed | TaskState::Ready | TaskState::Assigned
            )
        }
        None => view.state == TaskState::Blocked,
    };
    same && state
}
