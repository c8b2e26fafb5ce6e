//! One feed at work: a loop that takes what was read, sends what may be sent, and looks at what
//! came.

use super::following::{FeedFollower, FollowPrinter};
use super::ledger::Ledger;
use super::line::IdHasher;
use super::progress::{FeedSummary, ProgressLine, plural};
use super::source::InputChunk;
use crate::client::{Client, ClientError, read_answer};
use crate::error::CommandError;
use crate::exit;
use crate::fetch::{FetchQueue, FetchedTask};
use crate::output::{OutputFormat, Printer, notice};
use crate::waiting::{reconnect, stop_signal};
use crate::wire::{HotMessage, read_hot};
use std::pin::pin;
use std::time::Duration;
use taskmaster_protocol::message::{JobRef, Query};
use taskmaster_protocol::shape::JobView;
use taskmaster_protocol::{FromMaster, JobName, Refusal, RefusalCode, ToMaster};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How often the progress line is drawn, deferred lines are sent again, and a wait that hears
/// nothing is looked after.
const TICK: Duration = Duration::from_millis(200);

/// Refusals that people are told one by one. The others are counted.
const REFUSALS_TOLD_MAX: u64 = 20;

/// After this time without news of open tasks it is asked whether their jobs are done.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// When a feed is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedGoal {
    /// All lines are answered.
    Added,
    /// The job is done.
    JobDone,
    /// All tasks of this feed have ended.
    TasksEnded,
}

/// What a session begins with.
pub(super) struct SessionSetup {
    pub(super) client: Client,
    /// The job of the lines that name none.
    pub(super) job: JobName,
    /// Whether the job's name was made up, so that people have to be told it.
    pub(super) job_is_new: bool,
    pub(super) goal: FeedGoal,
    /// Whether partial results are printed, too.
    pub(super) partials: bool,
    /// Hashes ids as the input does.
    pub(super) hasher: IdHasher,
    pub(super) input: mpsc::Receiver<InputChunk>,
    /// Where the files of ended tasks are brought to, for `--fetch`.
    pub(super) fetching: Option<FetchQueue>,
    pub(super) printer: Printer,
}

/// One feed at work.
pub(super) struct FeedSession {
    client: Client,
    job: JobName,
    /// Whether people still have to be told the name of the job.
    job_is_untold: bool,
    goal: FeedGoal,
    ledger: Ledger,
    /// `None` where nobody waits for tasks.
    follower: Option<FeedFollower>,
    /// `None` when the input has ended.
    input: Option<mpsc::Receiver<InputChunk>>,
    /// Whether the session has let go of its job.
    released: bool,
    /// Whether the master must be asked if the job is done.
    ask_job: bool,
    job_is_done: bool,
    /// When a task was last heard to have ended.
    last_end: Instant,
    tick: Interval,
    progress: ProgressLine,
    /// When the master last said that it takes nothing for now.
    last_unavailable: Option<Instant>,
    /// Refusals that were printed.
    refusals_told: u64,
    printer: Printer,
}

impl FeedSession {
    pub(super) fn new(setup: SessionSetup) -> FeedSession {
        let waits = setup.goal != FeedGoal::Added;
        let welcome = setup.client.welcome();
        let ledger = Ledger::new(setup.job.clone(), setup.hasher, waits, welcome);
        let prints = setup.goal == FeedGoal::TasksEnded;
        let printer = prints.then(|| FollowPrinter::new(setup.printer));
        let partials = setup.partials;
        let mut follower =
            waits.then(|| FeedFollower::new(welcome.seq, partials, printer, setup.fetching));
        // A task may give its partial results before its batch is durable.
        if let Some(follower) = follower.as_mut().filter(|_| partials) {
            follower.follow(&setup.client, setup.job.clone());
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        FeedSession {
            client: setup.client,
            job: setup.job,
            job_is_untold: setup.job_is_new,
            goal: setup.goal,
            ledger,
            follower,
            input: Some(setup.input),
            released: false,
            ask_job: false,
            job_is_done: false,
            last_end: Instant::now(),
            tick,
            progress: ProgressLine::new(waits),
            last_unavailable: None,
            refusals_told: 0,
            printer: setup.printer,
        }
    }

    /// Runs the feed until it is complete and gives the exit code.
    pub(super) async fn run(mut self) -> Result<u8, CommandError> {
        let mut signal = pin!(stop_signal());
        loop {
            let went = tokio::select! {
                biased;
                signal = &mut signal => {
                    let text = self.what_goes_on();
                    Err(CommandError::Interrupted { signal, text })
                }
                went = self.go_on() => went,
            };
            match went {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    self.progress.clear();
                    if matches!(error, CommandError::PipeClosed) {
                        let goes_on = self.what_goes_on();
                        notice(&format!("the reader of stdout has gone; {goes_on}"));
                    }
                    return Err(error);
                }
            }
        }
        self.progress.clear();
        self.count_refusals_untold();
        self.print_summary()?;
        let unfetched = self
            .follower
            .as_ref()
            .is_some_and(|follower| follower.unfetched > 0);
        Ok(if self.ledger.refused > 0 || unfetched {
            exit::ERROR
        } else {
            self.ledger.ends.exit_code()
        })
    }

    /// One step, and a new connection where the old one has broken.
    async fn go_on(&mut self) -> Result<bool, CommandError> {
        match self.step().await {
            Err(CommandError::Client(lost @ ClientError::Lost(_))) => {
                self.restore(&lost).await?;
                Ok(false)
            }
            other => other,
        }
    }

    /// What was added when the feed is cut short, and what to type now.
    fn what_goes_on(&self) -> String {
        let added = self.ledger.added;
        let rest = "lines that were not answered yet may not be added";
        if added == 0 {
            return format!("nothing is known to be added; {rest}");
        }
        let jobs = self.ledger.named_jobs();
        let job = self.ledger.only_job().map_or("JOB", |job| job.as_str());
        let added = plural(added, "task");
        format!(
            "{added} added to {jobs} and they go on: `taskmaster jobs wait {job}` waits for them, \
             `taskmaster jobs cancel {job}` ends them; {rest}"
        )
    }

    fn print_summary(&self) -> Result<(), CommandError> {
        let waits = self.goal != FeedGoal::Added;
        let seconds = self.progress.seconds();
        let summary = FeedSummary::new(&self.job, &self.ledger, waits, seconds);
        // With --follow stdout is for the tasks.
        if self.goal != FeedGoal::TasksEnded && self.printer.wants_json() {
            self.printer.json(&summary)?;
        }
        if self.printer.requested() != Some(OutputFormat::Quiet) {
            notice(&summary.sentence());
        }
        Ok(())
    }

    /// Sends what may be sent, then takes what comes first. `true` when the feed is complete.
    async fn step(&mut self) -> Result<bool, CommandError> {
        self.take_what_was_read();
        while let Some(batch) = self.ledger.next_batch() {
            self.client.send_text(batch);
            self.take_what_was_read();
        }
        if self.input.is_none() && self.ledger.is_answered() && self.is_complete().await? {
            return Ok(true);
        }
        let is_unflushed = self
            .follower
            .as_ref()
            .is_some_and(FeedFollower::is_unflushed);
        let wants_more = self.ledger.wants_more();
        tokio::select! {
            biased;
            _ = self.tick.tick() => self.on_tick().await?,
            text = self.client.receive() => {
                let text = text?;
                self.take_message(&text)?;
            }
            chunk = next_chunk(&mut self.input), if wants_more => self.take_chunk(chunk),
            fetched = next_fetched(&mut self.follower) => self.take_fetched(fetched)?,
            // With nothing else to do, the reader of stdout gets all that was printed.
            () = std::future::ready(()), if is_unflushed => {
                if let Some(follower) = &mut self.follower {
                    follower.flush()?;
                }
            }
        }
        Ok(false)
    }

    /// Takes what the input has ready, so that batches fill up while messages come without a pause.
    fn take_what_was_read(&mut self) {
        while self.ledger.wants_more() {
            match self.input.as_mut().map(mpsc::Receiver::try_recv) {
                Some(Ok(chunk)) => self.take_chunk(Some(chunk)),
                Some(Err(mpsc::error::TryRecvError::Disconnected)) => self.input = None,
                Some(Err(mpsc::error::TryRecvError::Empty)) | None => return,
            }
        }
    }

    fn take_chunk(&mut self, chunk: Option<InputChunk>) {
        match chunk {
            None => self.input = None,
            Some(Ok(lines)) => {
                for line in lines {
                    match line {
                        Ok(line) => self.ledger.push(line),
                        Err(refusal) => {
                            self.ledger.refused += 1;
                            self.print_refusals(&[refusal]);
                        }
                    }
                }
            }
            Some(Err(error)) => {
                // What was read before counts, and the summary comes as usual.
                self.print_refusals(&[Refusal::new(RefusalCode::Internal, error.to_string())]);
                self.ledger.refused += 1;
                self.input = None;
            }
        }
    }

    fn take_message(&mut self, text: &str) -> Result<(), CommandError> {
        match read_hot(text) {
            Some(HotMessage::Final(message)) => {
                self.last_end = Instant::now();
                self.ask_job |= message.job_done.is_some();
                if let Some(follower) = &mut self.follower {
                    if follower.shares_terminal() && !message.tasks.is_empty() {
                        self.progress.clear();
                    }
                    follower.take_final(&message, &mut self.ledger)?;
                }
                return Ok(());
            }
            Some(HotMessage::Watch(_)) => return Ok(()),
            None => {}
        }
        match FromMaster::decode(text) {
            Ok(FromMaster::Rejected(rejected)) => {
                let refusals = self.ledger.rejected(rejected);
                self.print_refusals(&refusals);
            }
            Ok(FromMaster::Added(added)) => {
                let outcome = self.ledger.added(added);
                self.tell_job(&outcome.jobs);
                if let Some(follower) = &mut self.follower {
                    for job in outcome.jobs {
                        follower.follow(&self.client, job);
                    }
                    follower.ask_for(&self.client, outcome.known);
                }
            }
            Ok(FromMaster::Partials(partials)) => {
                if let Some(follower) = &mut self.follower {
                    if follower.shares_terminal() {
                        self.progress.clear();
                    }
                    follower.take_partials(partials, &self.ledger)?;
                }
            }
            // A message of this feed was not understood. It is not known which, so nothing can be
            // repaired.
            Ok(FromMaster::Refused(refused)) if refused.reference.is_none() => {
                return Err(refused.error.into());
            }
            Ok(_) => {}
            Err(refusal) => {
                return Err(CommandError::Local(format!(
                    "the master said what cannot be read: {refusal}"
                )));
            }
        }
        Ok(())
    }

    /// Prints a task whose files are here, or cannot be.
    fn take_fetched(&mut self, fetched: FetchedTask) -> Result<(), CommandError> {
        self.last_end = Instant::now();
        let Some(follower) = &mut self.follower else {
            return Ok(());
        };
        if follower.shares_terminal() {
            self.progress.clear();
        }
        follower.print(&fetched.line)?;
        if let Err(error) = fetched.result {
            follower.unfetched += 1;
            self.progress.clear();
            self.printer.error(&error.into());
        }
        Ok(())
    }

    /// The input has ended and every line is answered: lets go of the job and sees whether there is
    /// more to wait for.
    async fn is_complete(&mut self) -> Result<bool, CommandError> {
        if self.ledger.held_lines() > 0 {
            let refusals = self.ledger.refuse_held();
            self.print_refusals(&refusals);
        }
        if !self.ledger.has_sent() {
            return Ok(true);
        }
        if !self.released {
            self.release();
        }
        let is_fetching = self
            .follower
            .as_ref()
            .is_some_and(|follower| !follower.has_fetched());
        if is_fetching {
            return Ok(false);
        }
        match self.goal {
            FeedGoal::JobDone => {
                if std::mem::take(&mut self.ask_job) {
                    self.job_is_done = self.is_job_done(self.job.clone()).await?;
                }
                Ok(self.job_is_done && self.ledger.open_tasks() == 0)
            }
            FeedGoal::Added | FeedGoal::TasksEnded if self.ledger.open_tasks() > 0 => Ok(false),
            FeedGoal::Added | FeedGoal::TasksEnded => {
                // The release has no answer. The answer to this question comes after it was taken.
                self.is_job_done(self.job.clone()).await?;
                if let Some(follower) = &mut self.follower {
                    follower.flush()?;
                }
                Ok(true)
            }
        }
    }

    fn release(&mut self) {
        self.client.send(&ToMaster::Release(JobRef {
            job: self.job.clone(),
        }));
        if self.goal == FeedGoal::JobDone
            && let Some(follower) = &mut self.follower
        {
            follower.follow(&self.client, self.job.clone());
        }
        self.released = true;
        self.ask_job = true;
    }

    /// Whether no session holds the job and no task of it is open. A job to which nothing was added
    /// is done.
    async fn is_job_done(&mut self, job: JobName) -> Result<bool, ClientError> {
        match self.client.ask_once(Query::Job { job }).await {
            Ok(answer) => Ok(!read_answer::<JobView>(&answer)?.open),
            Err(ClientError::Refused(refusal)) if refusal.code == RefusalCode::UnknownJob => {
                Ok(true)
            }
            Err(other) => Err(other),
        }
    }

    async fn on_tick(&mut self) -> Result<(), CommandError> {
        self.progress.draw(&self.ledger);
        if self.ledger.has_deferred() {
            self.tell_unavailable();
            self.ledger.retry_deferred();
        }
        if self.released && self.last_end.elapsed() >= STALLED_AFTER {
            self.look_after_stall().await?;
        }
        Ok(())
    }

    /// Tells people why the master takes nothing, once for as long as the reason stays: its figures
    /// may change meanwhile.
    fn tell_unavailable(&mut self) {
        let Some(why) = self.ledger.take_unavailable() else {
            return;
        };
        let is_new = self
            .last_unavailable
            .is_none_or(|at| at.elapsed() > STALLED_AFTER);
        if is_new {
            self.progress.clear();
            notice(&format!(
                "the master takes nothing for now ({why}); trying again …"
            ));
        }
        self.last_unavailable = Some(Instant::now());
    }

    /// Nothing was heard for a while: where all jobs are done and tasks of this feed are open all
    /// the same, the news of their ends was lost on the way, and is asked for again.
    async fn look_after_stall(&mut self) -> Result<(), CommandError> {
        self.last_end = Instant::now();
        self.ask_job = true;
        if self.ledger.open_tasks() == 0 {
            return Ok(());
        }
        let jobs = self.follower.as_ref().map(FeedFollower::jobs);
        for job in jobs.unwrap_or_default() {
            if !self.is_job_done(job).await? {
                return Ok(());
            }
        }
        if let Some(follower) = &mut self.follower {
            follower.start_over(&self.client);
        }
        Ok(())
    }

    /// Connects again, and repeats what the master must know: unanswered batches first, in order.
    async fn restore(&mut self, lost: &ClientError) -> Result<(), CommandError> {
        self.progress.clear();
        reconnect(&mut self.client, lost).await?;
        self.ledger.note_resend();
        for batch in self.ledger.unanswered() {
            self.client.send_text(batch);
        }
        if let Some(follower) = &self.follower {
            follower.restore(&self.client);
        }
        if self.released {
            self.release();
        }
        Ok(())
    }

    fn print_refusals(&mut self, refusals: &[Refusal]) {
        if !refusals.is_empty() {
            self.progress.clear();
        }
        for refusal in refusals {
            // Scripts get each refusal, and people the first ones.
            if self.printer.wants_json() || self.refusals_told < REFUSALS_TOLD_MAX {
                self.printer.refusal(refusal);
            }
            self.refusals_told += 1;
        }
    }

    /// Says how many refusals were not told.
    fn count_refusals_untold(&self) {
        let more = self.refusals_told.saturating_sub(REFUSALS_TOLD_MAX);
        if more > 0 && !self.printer.wants_json() {
            let lines = plural(more, "more line");
            notice(&format!("{lines} refused; `-o json` tells of each"));
        }
    }

    /// Tells people the name of a job that was made up, as soon as the job has a task.
    fn tell_job(&mut self, added_to: &[JobName]) {
        if self.job_is_untold && added_to.contains(&self.job) {
            self.job_is_untold = false;
            self.progress.clear();
            notice(&format!("job {}", self.job));
        }
    }
}

/// The task that was fetched next. Never ready while nothing is being fetched.
async fn next_fetched(follower: &mut Option<FeedFollower>) -> FetchedTask {
    let fetching = follower
        .as_mut()
        .and_then(|follower| follower.fetching.as_mut());
    match fetching {
        Some(fetching) => fetching.next().await,
        None => std::future::pending().await,
    }
}

/// What the input has next. Never ready once the input has ended.
async fn next_chunk(input: &mut Option<mpsc::Receiver<InputChunk>>) -> Option<InputChunk> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}
