//! The ends of tasks by job, as far as the view does not have them yet.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use taskmaster_protocol::JobName;
use taskmaster_store::record::Ended;
use taskmaster_store::view::{JobEnd, RunEnds};

/// What has happened to a job.
#[derive(Debug)]
struct JobEvent {
    seq: u64,
    run: u32,
    /// The end of a task; `None` where the run began.
    ended: Option<Arc<Ended>>,
}

/// Ends by job, oldest first.
#[derive(Debug, Default)]
pub(crate) struct UnfoldedJobEnds {
    jobs: HashMap<JobName, VecDeque<JobEvent>>,
    /// The seqs of all events, oldest first, with the job of each.
    order: VecDeque<(u64, JobName)>,
}

impl UnfoldedJobEnds {
    /// The event of this seq opened a job for this run.
    pub fn run_began(&mut self, job: &JobName, run: u32, seq: u64) {
        let ended = None;
        self.push(job, JobEvent { seq, run, ended });
    }

    /// A task of a job ended in this run.
    pub fn ended(&mut self, run: u32, ended: Arc<Ended>) {
        let job = ended.job.clone();
        let seq = ended.seq;
        let ended = Some(ended);
        self.push(&job, JobEvent { seq, run, ended });
    }

    fn push(&mut self, job: &JobName, event: JobEvent) {
        self.order.push_back((event.seq, job.clone()));
        self.jobs.entry(job.clone()).or_default().push_back(event);
    }

    /// The view has all events up to `seq`.
    pub fn view_has(&mut self, seq: u64) {
        while let Some((_, job)) = self.order.pop_front_if(|(other, _)| *other <= seq) {
            let Some(events) = self.jobs.get_mut(&job) else {
                continue;
            };
            events.pop_front();
            if events.is_empty() {
                self.jobs.remove(&job);
            }
        }
    }

    /// The ends of one run.
    pub fn of_run(&self, job: &JobName, run: u32) -> RunEnds {
        let mut found = RunEnds::default();
        let events = self.jobs.get(job).into_iter().flatten().rev();
        for event in events.skip_while(|event| event.run > run) {
            if event.run < run {
                break;
            }
            match &event.ended {
                Some(ended) => found.ends.push(JobEnd::from(&**ended)),
                None => {
                    found.from_beginning = true;
                    break;
                }
            }
        }
        found
    }
}
