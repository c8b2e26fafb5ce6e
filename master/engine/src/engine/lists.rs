//! Lists of tasks, jobs, modules and runners, page by page. What memory has let go of is left to the
//! asker's own thread, see [`Lookup`].

use super::effects::job_record;
use super::{Connection, Engine};
use crate::answer::QueryAnswer;
use crate::events::ended_view;
use crate::inbox::Reply;
use crate::lookup::{JobPage, Lookup, TaskFilter, TaskPage, job_view};
use crate::page::{GrowingPage, page_by_name};
use std::collections::BTreeSet;
use taskmaster_core::{Job, RunnerFacts, RunnerKey, TaskKey};
use taskmaster_protocol::message::{Offer, Role};
use taskmaster_protocol::shape::{RunnerView, TaskView};
use taskmaster_protocol::{JobName, limits};

/// Tasks looked at for one page of a list, so that no turn is long.
const LOOKED_AT_MAX: usize = 5_000;

impl Engine {
    /// As a list shows it: of a task that no connected runner can take, with the reason.
    fn task_listed(&self, key: TaskKey) -> TaskView {
        let note = self
            .core
            .why_no_runner(key)
            .map(|waits| self.waits(key, waits));
        TaskView {
            note,
            // With them, a page would have a few rows.
            partial: None,
            ..self.task_view(key)
        }
    }

    /// A page: open tasks by `no`, then ended ones that memory has, the newest first, then those of
    /// the view.
    pub(super) fn tasks_page(
        &self,
        wanted: TaskFilter,
        rows_max: usize,
        after: Option<&str>,
    ) -> Reply {
        let mut rows = TaskPage {
            rows: GrowingPage::new(rows_max),
            wanted,
        };
        let (part, at) = after.map_or(("o", 0), |after| {
            after
                .split_at_checked(1)
                .map_or(("o", 0), |(p, n)| (p, n.parse().unwrap_or(0)))
        });
        let mut looked = 0;
        if part == "o" {
            for (no, key) in self.facts.open_from(at + 1).take(LOOKED_AT_MAX) {
                looked += 1;
                if rows.take(|| self.task_listed(key)) || looked == LOOKED_AT_MAX {
                    return Reply::Answer(rows.page(Some(format!("o{no}"))));
                }
            }
        }
        // While nothing can be written, what ended and is not safe is left out.
        let safe = if self.is_full() {
            self.events.latest() + 1
        } else {
            u64::MAX
        };
        let before = if part == "f" { at.min(safe) } else { safe };
        for ended in self
            .facts
            .unfolded_ends()
            .filter(|ended| ended.seq < before)
        {
            looked += 1;
            // It may have been opened again since, and ended anew.
            if !self.facts.is_last_end(ended) {
                continue;
            }
            if rows.take(|| ended_view(ended)) || looked >= LOOKED_AT_MAX {
                return Reply::Answer(rows.page(Some(format!("f{}", ended.seq))));
            }
        }
        let before = before.min(self.facts.first_unfolded_end().unwrap_or(u64::MAX));
        let open_again = self.facts.reopened_ids().cloned().collect();
        Reply::FromStore(Lookup::Ended {
            before,
            rows,
            open_again,
        })
    }

    /// A page of jobs: those that memory has, merged with those of the view.
    pub(super) fn jobs_page(&self, open: Option<bool>, after: String) -> Reply {
        let held = self.core.jobs_after(&after);
        if open == Some(true) {
            let jobs = held.filter(|job| job.open);
            let row = |job: &&Job| job_view(&job.name, &job_record(job), &job.counts.by_state);
            let page = page_by_name(jobs, |job| job.name.as_str(), row);
            return Reply::Answer(QueryAnswer::Jobs(page));
        }
        let rows_max = limits::PAGE_ROWS_MAX;
        let held = held.take(rows_max).map(|job| &job.name);
        let idle = self.facts.idle_jobs_after(&after).take(rows_max);
        let names: BTreeSet<&JobName> = held.chain(idle).collect();
        Reply::FromStore(Lookup::Jobs(JobPage {
            after,
            open,
            known_to: names.iter().nth(rows_max - 1).copied().cloned(),
            known: names
                .into_iter()
                .take(rows_max)
                .filter_map(|name| Some((name.clone(), self.job_in_memory(name)?)))
                .collect(),
        }))
    }

    pub(super) fn modules_page(&self, after: &str) -> Reply {
        let page = page_by_name(
            self.modules.after(after),
            |(name, _)| name.as_str(),
            |(name, record)| self.modules.view(name, record, &self.runners_of(name)),
        );
        Reply::Answer(QueryAnswer::Modules(page))
    }

    pub(super) fn runners_page(&self, after: &str) -> Reply {
        let mut runners: Vec<JoinedRunner<'_>> = self
            .runners()
            .filter(|runner| runner.offer.name.as_str() > after)
            .collect();
        runners.sort_by_key(|runner| &runner.offer.name);
        let page = page_by_name(
            runners.into_iter(),
            |runner| runner.offer.name.as_str(),
            |runner| runner.view(),
        );
        Reply::Answer(QueryAnswer::Runners(page))
    }

    /// The runners that have joined, in the order of their connections.
    pub(super) fn runners(&self) -> impl Iterator<Item = JoinedRunner<'_>> {
        self.connections.iter().filter_map(|(no, connection)| {
            let is_joined = connection.role == Role::Runner && connection.joined;
            Some(JoinedRunner {
                offer: connection.offer.as_ref().filter(|_| is_joined)?,
                facts: self.core.runner_facts(RunnerKey(no.0))?,
                connection,
            })
        })
    }
}

/// A runner that has joined.
pub(super) struct JoinedRunner<'a> {
    pub(super) offer: &'a Offer,
    facts: RunnerFacts,
    connection: &'a Connection,
}

impl JoinedRunner<'_> {
    fn view(&self) -> RunnerView {
        let JoinedRunner {
            offer,
            facts,
            connection,
        } = self;
        let state = if connection.fault.is_some() {
            "sick"
        } else if facts.draining {
            "draining"
        } else if facts.absent {
            "absent"
        } else {
            "connected"
        };
        RunnerView {
            runner: offer.name.clone(),
            state: state.into(),
            fault: connection.fault.clone(),
            slots: offer.slots,
            used: facts.used.min(offer.slots),
            attempts: facts.attempts as u64,
            finished: facts.finished,
            offer: (*offer).clone(),
            joined: connection.since,
        }
    }
}
