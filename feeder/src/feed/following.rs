//! Follows the jobs of a feed until its tasks have ended, across reconnects, and prints each task
//! that ends, once.

use super::ledger::Ledger;
use crate::client::Client;
use crate::error::CommandError;
use crate::fetch::{FetchQueue, OutputHashes};
use crate::output::text::one_line;
use crate::wire::{FinalMessage, FinalTask};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::io::{BufWriter, Stdout, Write};
use taskmaster_protocol::message::Follow;
use taskmaster_protocol::{JobName, TaskId, ToMaster};

/// Ids that are asked for in one message: some 40 KiB.
const IDS_PER_MESSAGE: usize = 1_000;

/// Bytes of ended tasks that are printed at once.
const PRINT_BUFFER_BYTES: usize = 256 << 10;

/// Follows the jobs of a feed.
pub(super) struct FeedFollower {
    /// The seq that was durable when the feed first connected. No task of it ended before.
    first_seq: u64,
    /// Per followed job the seq up to which the ends of its tasks are known.
    jobs: HashMap<JobName, u64>,
    /// Tasks that were asked for by id and whose end was not told.
    asked: HashSet<TaskId>,
    /// Where ended tasks are printed, for `--follow`.
    out: Option<BufWriter<Stdout>>,
    unflushed: bool,
    /// Where files are brought to, for `--fetch`. A task is printed when its files are here.
    pub(super) fetching: Option<FetchQueue>,
    /// Tasks whose files could not be fetched.
    pub(super) unfetched: u64,
}

impl FeedFollower {
    /// Follows from `first_seq`, the seq of the first `welcome`. With `prints` each task that ends
    /// goes to stdout.
    pub(super) fn new(first_seq: u64, prints: bool, fetching: Option<FetchQueue>) -> FeedFollower {
        let out = prints.then(|| BufWriter::with_capacity(PRINT_BUFFER_BYTES, std::io::stdout()));
        FeedFollower {
            first_seq,
            jobs: HashMap::new(),
            asked: HashSet::new(),
            out,
            unflushed: false,
            fetching,
            unfetched: 0,
        }
    }

    /// Follows a job, unless it is followed already.
    pub(super) fn follow(&mut self, client: &Client, job: JobName) {
        if !self.jobs.contains_key(&job) {
            send_follow_job(client, &job, self.first_seq);
            self.jobs.insert(job, self.first_seq);
        }
    }

    /// Asks for tasks that ended before the feed began.
    pub(super) fn ask_for(&mut self, client: &Client, ids: Vec<TaskId>) {
        send_follow_ids(client, &ids);
        self.asked.extend(ids);
    }

    /// Tells the master again what is followed, after a reconnect.
    pub(super) fn restore(&self, client: &Client) {
        for (job, since) in &self.jobs {
            send_follow_job(client, job, *since);
        }
        let asked: Vec<TaskId> = self.asked.iter().cloned().collect();
        send_follow_ids(client, &asked);
    }

    /// Follows everything from the beginning again. The ledger knows what was told already.
    pub(super) fn start_over(&mut self, client: &Client) {
        for since in self.jobs.values_mut() {
            *since = self.first_seq;
        }
        self.restore(client);
    }

    /// The jobs that are followed.
    pub(super) fn jobs(&self) -> Vec<JobName> {
        self.jobs.keys().cloned().collect()
    }

    /// Takes tasks that have ended.
    pub(super) fn take_final(
        &mut self,
        message: &FinalMessage<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), CommandError> {
        // Tasks of one job stand together, mostly.
        let mut last_job: Option<JobName> = None;
        for task in &message.tasks {
            let ended: FinalTask<'_> = serde_json::from_str(task.get()).map_err(|error| {
                CommandError::Local(format!(
                    "the master told of a task that cannot be read: {error}"
                ))
            })?;
            if !self.asked.is_empty() {
                self.asked.remove(ended.id.0.as_ref());
            }
            if last_job
                .as_ref()
                .is_none_or(|job| job.as_str() != ended.job.0)
            {
                last_job = JobName::new(&ended.job.0).ok();
                self.known_up_to(last_job.as_ref(), message.seq);
            }
            if ledger.task_ended(&ended.id.0, ended.state) {
                self.print_when_fetched(task.get())?;
            }
        }
        // A message without tasks does not name its job. Where one job is followed, it is that.
        if message.tasks.is_empty() && self.jobs.len() == 1 {
            let job = self.jobs.keys().next().cloned();
            self.known_up_to(job.as_ref(), message.seq);
        }
        Ok(())
    }

    fn known_up_to(&mut self, job: Option<&JobName>, seq: Option<u64>) {
        if let (Some(job), Some(seq)) = (job, seq)
            && let Some(since) = self.jobs.get_mut(job)
        {
            *since = seq.max(*since);
        }
    }

    /// Prints a task as soon as its files are here.
    fn print_when_fetched(&mut self, task: &str) -> Result<(), CommandError> {
        let line = one_line(task);
        if let Some(fetching) = &mut self.fetching {
            let ended: TaskFiles = serde_json::from_str(task).map_err(|error| {
                CommandError::Local(format!(
                    "the master told of files that cannot be read: {error}"
                ))
            })?;
            if !ended.outputs.is_empty() {
                fetching.push(ended.id, ended.outputs, line.into_owned());
                return Ok(());
            }
        }
        self.print(&line)
    }

    /// Prints a line, where tasks are printed.
    pub(super) fn print(&mut self, line: &str) -> Result<(), CommandError> {
        if let Some(out) = &mut self.out
            && !line.is_empty()
        {
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
            self.unflushed = true;
        }
        Ok(())
    }

    /// Whether all files are here.
    pub(super) fn has_fetched(&self) -> bool {
        self.fetching.as_ref().is_none_or(FetchQueue::is_idle)
    }

    /// Whether a printed line has not gone out.
    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// Lets the printed lines go out.
    pub(super) fn flush(&mut self) -> Result<(), CommandError> {
        self.unflushed = false;
        match &mut self.out {
            Some(out) => Ok(out.flush()?),
            None => Ok(()),
        }
    }
}

/// The files that a task gave back.
#[derive(Deserialize)]
struct TaskFiles {
    id: TaskId,
    #[serde(default)]
    outputs: OutputHashes,
}

fn send_follow_job(client: &Client, job: &JobName, since: u64) {
    client.send(&ToMaster::Follow(Follow {
        job: Some(job.clone()),
        ids: Vec::new(),
        since: Some(since),
    }));
}

fn send_follow_ids(client: &Client, ids: &[TaskId]) {
    for ids in ids.chunks(IDS_PER_MESSAGE) {
        client.send(&ToMaster::Follow(Follow {
            job: None,
            ids: ids.to_vec(),
            since: None,
        }));
    }
}
