//! Questions to the master at any moment: every answer must be what the model says.

use crate::model::{Fate, Model};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_master::record::Gave;
use taskmaster_protocol::message::{Page, Query, ResultRef};
use taskmaster_protocol::shape::{JobView, TaskView};
use taskmaster_protocol::{JobName, TaskId, TaskState};

impl World {
    /// Asks something, as somebody who looks on does.
    pub fn question(&mut self) {
        let now = self.clock();
        // Dependents that are still to be told are as they were.
        if self
            .master
            .as_ref()
            .is_none_or(|master| master.engine.next_deadline(now).is_some_and(|at| at <= now.mono_us))
        {
            return;
        }
        let ids: Vec<TaskId> = self.oracle.pending.tasks.keys().cloned().collect();
        let jobs: Vec<JobName> = self.oracle.pending.jobs.keys().cloned().collect();
        let verdict = match (self.chance.below(8), self.chance.of(&ids).cloned(), self.chance.of(&jobs).cloned()) {
            (0..4, Some(id), _) => self.ask_task(id),
            (4, Some(_), _) => {
                let some = (0..3).filter_map(|_| self.chance.of(&ids).cloned()).collect();
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

    fn ask_task(&mut self, id: TaskId) -> Result<(), String> {
        let Some(json) = self.ask(Query::Task { id: id.clone() }) else { return Err(format!("{id} is not found")) };
        let view: TaskView = json.read().map_err(|error| error.to_string())?;
        let fate = &self.oracle.pending.tasks[&id];
        if is(&view, fate) { Ok(()) } else { Err(format!("{id} is told as {view:?}, and is {fate:?}")) }
    }

    /// What a runner asks for that prepares a task with `$result`.
    pub fn ask_results(&mut self, ids: Vec<TaskId>) -> Result<(), String> {
        let json = self.ask(Query::Results { ids: ids.clone() }).ok_or("results are not told")?;
        let told: BTreeMap<TaskId, ResultRef> = json.read().map_err(|error| error.to_string())?;
        for id in ids {
            let Some(fate) = self.oracle.pending.tasks.get(&id) else { continue };
            let result =
                fate.ends.last().filter(|_| !fate.open).and_then(|ended| ended.result.as_ref()).map(Gave::result);
            if told.get(&id) != result.as_ref() {
                return Err(format!("the result of {id} is told as {:?}, and is {result:?}", told.get(&id)));
            }
        }
        Ok(())
    }

    fn ask_job(&mut self, job: JobName) -> Result<(), String> {
        let json = self.ask(Query::Job { job: job.clone() }).ok_or_else(|| format!("job {job} is not found"))?;
        let view: JobView = json.read().map_err(|error| error.to_string())?;
        let model = &self.oracle.pending;
        let fate = &model.jobs[&job];
        let [done, failed, cancelled, skipped] = fate.ended;
        let mine = || model.tasks.values().filter(|task| task.open && task.body.job == job);
        let blocked = mine().filter(|task| !task.waits.is_empty()).count() as u64;
        let told = (view.run, view.open, view.paused, view.total, view.blocked);
        let open = view.blocked + view.delayed + view.ready + view.assigned;
        let ends = (view.done, view.failed, view.cancelled, view.skipped);
        let same = told == (fate.run, fate.open, fate.paused, fate.total, blocked)
            && open == fate.open_tasks
            && ends == (done, failed, cancelled, skipped);
        if same { Ok(()) } else { Err(format!("job {job} is told as {view:?}, and is {fate:?}, {blocked} blocked")) }
    }

    /// A list over all its pages has each task once: open ones as they came, then the ended ones, the newest first.
    fn ask_list(&mut self, job: JobName) -> Result<(), String> {
        let (limit, mut after, mut rows) = (self.chance.within(1, 7) as usize, None, Vec::new());
        loop {
            let (state, module) = (None, None);
            let query = Query::Tasks { job: Some(job.clone()), state, module, limit, after };
            let page: Page = self.ask(query).ok_or("a list is not told")?.read().map_err(|error| error.to_string())?;
            rows.extend(page.rows);
            match page.next {
                None => break,
                next => after = next,
            }
        }
        let model = &self.oracle.pending;
        let told: Vec<&TaskId> = rows.iter().map(|row| &row.id).collect();
        let wanted = listed(model, &job);
        // What may be forgotten is in the list until it is.
        let told: Vec<&TaskId> = told.into_iter().filter(|id| model.tasks.contains_key(*id)).collect();
        let once: BTreeSet<&TaskId> = told.iter().copied().collect();
        if told != wanted || once.len() != told.len() {
            return Err(format!("of job {job} are told {told:?}, there are {wanted:?}"));
        }
        let wrong = rows.iter().find(|row| model.tasks.get(&row.id).is_some_and(|fate| !is(row, fate)));
        wrong.map_or(Ok(()), |row| Err(format!("{row:?} is told in a list, and is {:?}", model.tasks.get(&row.id))))
    }
}

fn listed<'a>(model: &'a Model, job: &JobName) -> Vec<&'a TaskId> {
    let mine = || model.tasks.iter().filter(|(_, fate)| fate.body.job == *job);
    let mut open: Vec<(u64, &TaskId)> = mine().filter(|(_, f)| f.open).map(|(id, f)| (f.body.no, id)).collect();
    let ended = |(id, fate): (&'a TaskId, &'a Fate)| Some((fate.ends.last().filter(|_| !fate.open)?.seq, id));
    let mut ended: Vec<(u64, &TaskId)> = mine().filter_map(ended).collect();
    open.sort_unstable();
    ended.sort_unstable_by(|a, b| b.cmp(a));
    open.into_iter().chain(ended).map(|(_, id)| id).collect()
}

/// Whether a task is told as it is.
fn is(view: &TaskView, fate: &Fate) -> bool {
    let same = (&view.job, view.priority) == (&fate.body.job, fate.priority);
    let state = match fate.ends.last().filter(|_| !fate.open) {
        Some(ended) => {
            let result = ended.result_parts().0;
            view.state == ended.state && view.result.as_ref() == result && view.error == ended.error
        }
        None if fate.waits.is_empty() => {
            matches!(view.state, TaskState::Delayed | TaskState::Ready | TaskState::Assigned)
        }
        None => view.state == TaskState::Blocked,
    };
    same && state
}
