//! Follows the jobs of a feed until its tasks have ended, across reconnects, and prints each task
//! that ends, once.

use super::ledger::Ledger;
use crate::client::{Client, SeenPartials};
use crate::error::CommandError;
use crate::fetch::{FetchQueue, OutputHashes};
use crate::output::text::clip;
use crate::output::{OutputFormat, Printer};
use crate::wire::{FinalMessage, FinalTask};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{BufWriter, Stdout, Write};
use taskmaster_console::terminal::one_line;
use taskmaster_protocol::message::{Follow, PartialResult};
use taskmaster_protocol::{JobName, Json, TaskId, TaskView, ToMaster};

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
    /// For `--partials`.
    partials: Option<SeenPartials>,
    /// Prints ended tasks, for `--follow`.
    printer: Option<FollowPrinter>,
    /// Where files are brought to, for `--fetch`. A task is printed when its files are here.
    pub(super) fetching: Option<FetchQueue>,
    /// Tasks whose files could not be fetched.
    pub(super) unfetched: u64,
}

impl FeedFollower {
    /// Follows from `first_seq`, the seq of the first `welcome`. Each task that ends is given to the
    /// printer, where there is one; and each partial result, with `partials`.
    pub(super) fn new(
        first_seq: u64,
        partials: bool,
        printer: Option<FollowPrinter>,
        fetching: Option<FetchQueue>,
    ) -> FeedFollower {
        FeedFollower {
            first_seq,
            jobs: HashMap::new(),
            asked: HashSet::new(),
            partials: partials.then(SeenPartials::default),
            printer,
            fetching,
            unfetched: 0,
        }
    }

    /// Follows a job, unless it is followed already.
    pub(super) fn follow(&mut self, client: &Client, job: JobName) {
        if !self.jobs.contains_key(&job) {
            self.send_follow_job(client, &job, self.first_seq);
            self.jobs.insert(job, self.first_seq);
        }
    }

    /// Asks for tasks that were there before the feed began.
    pub(super) fn ask_for(&mut self, client: &Client, ids: Vec<TaskId>) {
        self.send_follow_ids(client, &ids);
        self.asked.extend(ids);
    }

    /// Tells the master again what is followed, after a reconnect.
    pub(super) fn restore(&self, client: &Client) {
        for (job, since) in &self.jobs {
            self.send_follow_job(client, job, *since);
        }
        let asked: Vec<TaskId> = self.asked.iter().cloned().collect();
        self.send_follow_ids(client, &asked);
    }

    fn send_follow_job(&self, client: &Client, job: &JobName, since: u64) {
        client.send(&ToMaster::Follow(Follow {
            job: Some(job.clone()),
            ids: Vec::new(),
            since: Some(since),
            partials: self.partials.is_some(),
        }));
    }

    fn send_follow_ids(&self, client: &Client, ids: &[TaskId]) {
        for ids in ids.chunks(IDS_PER_MESSAGE) {
            client.send(&ToMaster::Follow(Follow {
                job: None,
                ids: ids.to_vec(),
                since: None,
                partials: self.partials.is_some(),
            }));
        }
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
            let ended: FinalTask<'_> = read(task.get())?;
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
            if let Some(seen) = &mut self.partials {
                seen.forget(&ended.id.0);
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

    /// Prints the partial results of tasks of this feed.
    pub(super) fn take_partials(
        &mut self,
        partials: Vec<PartialResult>,
        ledger: &Ledger,
    ) -> Result<(), CommandError> {
        let (Some(seen), Some(printer)) = (&mut self.partials, &mut self.printer) else {
            return Ok(());
        };
        for partial in partials {
            if ledger.is_open(partial.id.as_str())
                && let Some(partial) = seen.take(partial)
            {
                printer.print_partial(&partial)?;
            }
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
        if let Some(fetching) = &mut self.fetching {
            let ended: TaskFiles = read(task)?;
            if !ended.outputs.is_empty() {
                fetching.push(ended.id, ended.outputs, task.to_owned());
                return Ok(());
            }
        }
        self.print(task)
    }

    /// Prints a task that has ended, where tasks are printed.
    pub(super) fn print(&mut self, task: &str) -> Result<(), CommandError> {
        match &mut self.printer {
            Some(printer) if !task.is_empty() => printer.print(task),
            _ => Ok(()),
        }
    }

    /// Whether what is printed goes to a terminal, on which another line may be drawn.
    pub(super) fn shares_terminal(&self) -> bool {
        let printer = self.printer.as_ref();
        printer.is_some_and(|printer| printer.printer.is_terminal())
    }

    /// Whether all files are here.
    pub(super) fn has_fetched(&self) -> bool {
        self.fetching.as_ref().is_none_or(FetchQueue::is_idle)
    }

    /// Whether a printed line has not gone out.
    pub(super) fn is_unflushed(&self) -> bool {
        self.printer
            .as_ref()
            .is_some_and(|printer| printer.unflushed)
    }

    /// Lets the printed lines go out.
    pub(super) fn flush(&mut self) -> Result<(), CommandError> {
        match &mut self.printer {
            Some(printer) => printer.flush(),
            None => Ok(()),
        }
    }
}

/// Prints each task that has ended: as a JSON line, as a line for people, or its id alone.
pub(super) struct FollowPrinter {
    out: BufWriter<Stdout>,
    unflushed: bool,
    printer: Printer,
}

impl FollowPrinter {
    /// Prints to stdout in the format of `printer`.
    pub(super) fn new(printer: Printer) -> FollowPrinter {
        FollowPrinter {
            out: BufWriter::with_capacity(PRINT_BUFFER_BYTES, std::io::stdout()),
            unflushed: false,
            printer,
        }
    }

    /// Prints a partial result: as a JSON line that no ended task has, or as a line for people.
    fn print_partial(&mut self, partial: &PartialResult) -> Result<(), CommandError> {
        let line = match self.printer.format() {
            OutputFormat::Json | OutputFormat::Jsonl => {
                let line = Json::of(&PartialLine::new(partial));
                self.printer.one_line(line.get()).into_owned()
            }
            OutputFormat::Table => {
                let line = format!("{:<9}  {}  {}", "partial", partial.id, partial.value.get());
                for_terminal(&line, self.printer.columns())
            }
            OutputFormat::Quiet => return Ok(()),
        };
        self.write_line(&line)
    }

    fn print(&mut self, task: &str) -> Result<(), CommandError> {
        let line = match self.printer.format() {
            OutputFormat::Json | OutputFormat::Jsonl => self.printer.one_line(task),
            OutputFormat::Table => Cow::Owned(for_people(task, self.printer.columns())?),
            OutputFormat::Quiet => {
                let ended: FinalTask<'_> = read(task)?;
                Cow::Owned(ended.id.0.into_owned())
            }
        };
        self.write_line(&line)
    }

    fn write_line(&mut self, line: &str) -> Result<(), CommandError> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")?;
        self.unflushed = true;
        // The terminal's other line must not be drawn between a task and its place.
        if self.printer.is_terminal() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CommandError> {
        self.unflushed = false;
        Ok(self.out.flush()?)
    }
}

/// A task that has ended on one line, cut to the terminal's width.
fn for_people(task: &str, columns: Option<usize>) -> Result<String, CommandError> {
    let task: TaskView = read(task)?;
    let end = match (&task.error, &task.result) {
        (Some(error), _) => format!("{}: {}", error.kind.as_str(), error.message),
        (None, Some(result)) => result.get().to_owned(),
        (None, None) => String::new(),
    };
    let line = format!("{:<9}  {}  {end}", task.state.as_str(), task.id);
    Ok(for_terminal(&line, columns))
}

/// One line, cut to the terminal's width.
fn for_terminal(line: &str, columns: Option<usize>) -> String {
    let line = one_line(line);
    let width = columns.unwrap_or(usize::MAX);
    clip(line.trim_end(), width).into_owned()
}

/// A partial result as `feed --follow --partials` prints it. The fields are read by scripts.
#[derive(Serialize)]
struct PartialLine<'a> {
    id: &'a TaskId,
    partial: &'a Json,
    n: u64,
    attempt: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    restart: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

impl PartialLine<'_> {
    fn new(partial: &PartialResult) -> PartialLine<'_> {
        PartialLine {
            id: &partial.id,
            partial: &partial.value,
            n: partial.n,
            attempt: partial.attempt,
            restart: partial.restart,
            missed: Some(partial.missed).filter(|missed| *missed > 0),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(task: &'a str) -> Result<T, CommandError> {
    serde_json::from_str(task).map_err(|error| {
        CommandError::Local(format!(
            "the master told of a task that cannot be read: {error}"
        ))
    })
}

/// The files that a task gave back.
#[derive(Deserialize)]
struct TaskFiles {
    id: TaskId,
    #[serde(default)]
    outputs: OutputHashes,
}
