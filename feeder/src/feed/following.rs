//! Follows the jobs of a feed until its tasks have ended, across reconnects, and prints each that
//! ends, once.

use super::ledger::Ledger;
use crate::client::Client;
use crate::fetch::{Fetching, Outputs};
use crate::output::text::one_line;
use crate::trouble::Trouble;
use crate::wire::{Ended, Finals};
use std::collections::{HashMap, HashSet};
use std::io::{BufWriter, Stdout, Write};
use taskmaster_protocol::message::Follow;
use taskmaster_protocol::{JobName, TaskId, ToMaster};

/// Ids asked for in one message: some 40 KiB.
const IDS_AT_ONCE: usize = 1_000;

/// See the module's text.
pub struct Following {
    /// What was durable when the feed first connected: no task of it has ended before.
    first_seq: u64,
    /// Per followed job the seq up to which its ends are known.
    jobs: HashMap<JobName, u64>,
    /// Tasks asked for by id whose end has not been told.
    asked: HashSet<TaskId>,
    /// Where ended tasks are printed, for `--follow`.
    out: Option<BufWriter<Stdout>>,
    unflushed: bool,
    /// Where files are brought to, for `--fetch`: a task is printed when its files are there.
    pub fetching: Option<Fetching>,
    /// Tasks whose files could not be fetched.
    pub unfetched: u64,
}

impl Following {
    /// From the seq of the first `welcome`. `print`: each task that ends goes to stdout.
    pub fn new(first_seq: u64, print: bool) -> Following {
        let out = print.then(|| BufWriter::with_capacity(256 << 10, std::io::stdout()));
        Following {
            first_seq,
            jobs: HashMap::new(),
            asked: HashSet::new(),
            out,
            unflushed: false,
            fetching: None,
            unfetched: 0,
        }
    }

    /// Follows a job, unless it is followed already.
    pub fn follow(&mut self, client: &Client, job: JobName) {
        if !self.jobs.contains_key(&job) {
            follow_job(client, &job, self.first_seq);
            self.jobs.insert(job, self.first_seq);
        }
    }

    /// Asks for tasks that have ended before the feed began.
    pub fn ask_for(&mut self, client: &Client, ids: Vec<TaskId>) {
        ask_ids(client, &ids);
        self.asked.extend(ids);
    }

    /// After a reconnect: says again what is followed.
    pub fn restore(&self, client: &Client) {
        self.jobs
            .iter()
            .for_each(|(job, since)| follow_job(client, job, *since));
        ask_ids(client, &self.asked.iter().cloned().collect::<Vec<_>>());
    }

    /// Follows everything from the beginning again: what has been told is known by the ledger.
    pub fn start_over(&mut self, client: &Client) {
        self.jobs
            .values_mut()
            .for_each(|since| *since = self.first_seq);
        self.restore(client);
    }

    /// The jobs that are followed.
    pub fn jobs(&self) -> Vec<JobName> {
        self.jobs.keys().cloned().collect()
    }

    /// Tasks have ended.
    pub fn finals(&mut self, finals: &Finals<'_>, ledger: &mut Ledger) -> Result<(), Trouble> {
        let mut seen: Option<JobName> = None;
        for task in &finals.tasks {
            let ended: Ended<'_> = serde_json::from_str(task.get()).map_err(|error| {
                Trouble::Local(format!(
                    "the master told of a task that cannot be read: {error}"
                ))
            })?;
            if !self.asked.is_empty() {
                self.asked.remove(ended.id.0.as_ref());
            }
            if seen.as_ref().is_none_or(|job| job.as_str() != ended.job.0) {
                seen = JobName::new(&ended.job.0).ok();
                self.known_up_to(seen.as_ref(), finals.seq);
            }
            if ledger.ended(&ended.id.0, ended.state) {
                self.tell(task.get())?;
            }
        }
        // Without a task it is not said which job is meant; that is clear only where there is one.
        if finals.tasks.is_empty() && self.jobs.len() == 1 {
            let job = self.jobs.keys().next().cloned();
            self.known_up_to(job.as_ref(), finals.seq);
        }
        Ok(())
    }

    /// Prints a task, as soon as its files are here.
    fn tell(&mut self, task: &str) -> Result<(), Trouble> {
        let line = one_line(task);
        if let Some(fetching) = &mut self.fetching {
            let made: Made = serde_json::from_str(task).map_err(|error| {
                Trouble::Local(format!(
                    "the master told of files that cannot be read: {error}"
                ))
            })?;
            if !made.outputs.is_empty() {
                fetching.begin(made.id, made.outputs, line.into_owned());
                return Ok(());
            }
        }
        self.print(&line)
    }

    /// Prints a line, where tasks are printed.
    pub fn print(&mut self, line: &str) -> Result<(), Trouble> {
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
    pub fn has_fetched(&self) -> bool {
        self.fetching.as_ref().is_none_or(Fetching::is_idle)
    }

    fn known_up_to(&mut self, job: Option<&JobName>, seq: Option<u64>) {
        if let (Some(job), Some(seq)) = (job, seq)
            && let Some(since) = self.jobs.get_mut(job)
        {
            *since = seq.max(*since);
        }
    }

    /// Whether something printed has not gone out.
    pub fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// Lets what was printed go out.
    pub fn flush(&mut self) -> Result<(), Trouble> {
        self.unflushed = false;
        match &mut self.out {
            Some(out) => Ok(out.flush()?),
            None => Ok(()),
        }
    }
}

/// What a task gave back.
#[derive(serde::Deserialize)]
struct Made {
    id: TaskId,
    #[serde(default)]
    outputs: Outputs,
}

fn follow_job(client: &Client, job: &JobName, since: u64) {
    client.say(&ToMaster::Follow(Follow {
        job: Some(job.clone()),
        ids: Vec::new(),
        since: Some(since),
    }));
}

fn ask_ids(client: &Client, ids: &[TaskId]) {
    for ids in ids.chunks(IDS_AT_ONCE) {
        client.say(&ToMaster::Follow(Follow {
            job: None,
            ids: ids.to_vec(),
            since: None,
        }));
    }
}
