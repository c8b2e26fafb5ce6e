//! The end of a play: nothing goes wrong any more, and everything must end.

use crate::harness::{job_name, module_name};
use crate::{JOBS, Play, Process};
use std::collections::BTreeMap;
use taskmaster_core::{Event, FinalState};
use taskmaster_protocol::message::Offer;

/// In how many turns everything must have ended.
const HEALED_TURNS_MAX: usize = 2_000;

/// Longer than any lease, grace period or hold.
const LONG_US: u64 = 70_000_000;

impl Play {
    /// Heals the world. Open tasks end, jobs are done, and nothing is left to wait for.
    pub fn heal(&mut self) {
        self.open_modules_and_jobs();
        self.join_good_runners();
        self.end_all_tasks();
        self.disconnect_all();

        let world = &self.world;
        let deadline = world.core.next_deadline(world.now);
        assert_eq!(deadline, None, "something is waited for");
        assert_eq!(world.core.tasks_len(), 0, "a task is left over");
        let jobs: Vec<&str> = world.core.jobs().map(|job| job.name.as_str()).collect();
        assert!(jobs.is_empty(), "jobs are left over: {jobs:?}");
        self.check_counts();
    }

    fn open_modules_and_jobs(&mut self) {
        for module in std::mem::take(&mut self.world.closed) {
            self.event(Event::ModuleOpened {
                module: module_name(&module),
                open: true,
            });
        }
        for job in JOBS {
            self.event(Event::JobPaused {
                job: job_name(job),
                paused: false,
            });
            for by in ["s0", "s1"] {
                self.event(Event::JobReleased {
                    job: job_name(job),
                    by: by.into(),
                });
            }
        }
    }

    /// Two runners join that together suit every task.
    fn join_good_runners(&mut self) {
        for (i, zone) in ["x", "y"].into_iter().enumerate() {
            let offer = Offer {
                name: format!("good{i}"),
                slots: 4,
                labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
                ..Offer::default()
            };
            let (runner, effects) = self.world.join(offer.clone(), 8, &[]);
            self.processes.push(Process {
                offer,
                credits: 8,
                connection: Some(runner),
                ..Process::default()
            });
            self.judge("a good runner joins", &effects);
        }
    }

    /// Time passes, and connected runners report a success of everything that they hold.
    fn end_all_tasks(&mut self) {
        for _ in 0..HEALED_TURNS_MAX {
            let mut records = self.world.tasks.values();
            if records.all(|record| record.ended.is_some()) && !self.world.busy() {
                break;
            }
            self.hear();
            self.pass(200_000);
            for i in 0..self.processes.len() {
                self.report_all(i);
            }
        }

        let open: Vec<String> = self
            .world
            .tasks
            .iter()
            .filter(|(_, record)| record.ended.is_none())
            .map(|(name, record)| {
                let why = record.key.and_then(|key| self.world.core.explain(key));
                format!("{name}: {why:?}")
            })
            .collect();
        assert!(open.is_empty(), "still open: {open:#?}");
    }

    fn report_all(&mut self, i: usize) {
        let Some(runner) = self.processes[i].connection else {
            return;
        };
        for (name, attempt) in std::mem::take(&mut self.processes[i].held) {
            let Some(task) = self.world.key(&name) else {
                continue;
            };
            self.event(Event::AttemptDone {
                runner,
                task,
                attempt,
                run_us: 50,
            });
        }
    }

    fn disconnect_all(&mut self) {
        for i in 0..self.processes.len() {
            if let Some(runner) = self.processes[i].connection.take() {
                self.event(Event::RunnerDisconnected { runner });
            }
        }
        for _ in 0..10 {
            self.world.now.mono_us += LONG_US;
            self.world.now.wall = self.world.now.wall.plus_us(LONG_US);
            self.event(Event::TurnEnded);
        }
    }

    /// The stored counts of the jobs are what a count of their tasks gives.
    fn check_counts(&self) {
        for (name, job) in &self.world.jobs {
            assert!(!job.open, "job {name} is not done");
            let ends: Vec<FinalState> = self
                .world
                .tasks
                .values()
                .filter(|record| record.wanted.job == *name)
                .filter_map(|record| record.ended)
                .collect();
            let counts = &job.stored.counts;
            assert_eq!(counts.total, ends.len() as u64, "job {name}");
            for how in [
                FinalState::Done,
                FinalState::Failed,
                FinalState::Cancelled,
                FinalState::Skipped,
            ] {
                let ended_so = ends.iter().filter(|is| **is == how).count() as u64;
                assert_eq!(counts.of(how.task_state()), ended_so, "job {name}: {how:?}");
            }
        }
    }
}
