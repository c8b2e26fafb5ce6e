//! `feed`: adds many tasks while they are still being read, and waits for them where asked to.
//!
//! One loop: take what was read, send what may be sent, see what came. Everything that is decided
//! is decided in the ledger; here are the socket, the input and the clock.

mod following;
mod holding;
mod large;
mod ledger;
mod line;
mod local;
mod progress;
mod source;
mod splitter;

pub use ledger::{Ledger, News};
pub(crate) use line::Text;
pub use line::{IdKey, Keys, Line, new_id, with_id};
pub use splitter::{Piece, Splitter};

use crate::cli::{FeedOptions, Global};
use crate::client::Client;
use crate::fetch::{Fetched, Fetching};
use crate::inputs::{Inputs, base_of};
use crate::output::{Format, Output, chat};
use crate::trouble::{Trouble, exit};
use crate::wire::{Hot, hot};
use following::Following;
use progress::{Progress, Summary};
use source::Chunk;
use std::time::Duration;
use taskmaster_protocol::message::{JobRef, Query};
use taskmaster_protocol::shape::JobView;
use taskmaster_protocol::{FromMaster, JobName, Refusal, RefusalCode, ToMaster, limits};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How often the progress line is drawn, lines that were put off are tried, and a stalled wait is
/// looked after.
const TICK: Duration = Duration::from_millis(200);

/// If nothing has been heard of open tasks for so long, it is asked whether their jobs are done.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Bytes of a document beside its params: with all its other fields at their limits.
const BESIDE_PARAMS: usize = 4 << 20;

/// What a feed stays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// All lines are answered.
    Added,
    /// The job is done.
    JobDone,
    /// All tasks of this feed have ended.
    Ended,
}

/// Runs `feed`. The exit code.
pub async fn run(options: &FeedOptions, global: &Global) -> Result<u8, Trouble> {
    let input = source::open(options.file.as_deref())?;
    let until = match (options.wait, options.follow) {
        (_, true) => Until::Ended,
        (true, _) => Until::JobDone,
        _ => Until::Added,
    };
    if options.fetch.is_some() && until == Until::Added {
        return Err(Trouble::Usage(
            "--fetch brings files back as tasks end: give --follow or --wait, too".into(),
        ));
    }
    let target = global.target()?;
    let client = Client::connect(target.clone()).await?;
    let job = match &options.job {
        Some(job) => job.clone(),
        None => own_job()?,
    };
    let mut feeding = Feeding::new(client, job, until, global.output());
    let fetching = options
        .fetch
        .clone()
        .map(|folder| Fetching::new(target.clone(), folder));
    if let Some(following) = &mut feeding.following {
        following.fetching = fetching;
    }
    let files = (Inputs::new(target), base_of(options.file.as_deref()));
    let read = source::start(
        input,
        feeding.keys.clone(),
        limits::PARAMS_BYTES_MAX + BESIDE_PARAMS,
        files,
    );
    feeding.input = Some(large::start(read, feeding.client.target().clone()));
    feeding.run().await
}

/// A job for the lines that name none, told on stderr so that it can be asked about.
fn own_job() -> Result<JobName, Trouble> {
    let id = uuid::Uuid::now_v7().simple().to_string();
    // The last 12 digits are random.
    let name = format!("feed-{}", id.get(20..).unwrap_or(&id));
    chat(&format!("job {name}"));
    JobName::new(&name).map_err(|error| Trouble::Local(error.to_string()))
}

struct Feeding {
    client: Client,
    job: JobName,
    keys: Keys,
    until: Until,
    ledger: Ledger,
    /// Only where tasks are waited for.
    following: Option<Following>,
    /// `None` when it has ended.
    input: Option<mpsc::Receiver<Chunk>>,
    released: bool,
    /// Whether it must be asked if the job is done.
    ask_job: bool,
    job_is_done: bool,
    heard: Instant,
    tick: Interval,
    progress: Progress,
    /// When the master last said that it can take nothing.
    last_need: Option<Instant>,
    output: Output,
}

impl Feeding {
    fn new(client: Client, job: JobName, until: Until, output: Output) -> Feeding {
        let waits = until != Until::Added;
        let keys = Keys::default();
        let ledger = Ledger::new(job.clone(), keys.clone(), waits, client.welcome());
        let following = waits.then(|| Following::new(client.welcome().seq, until == Until::Ended));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Feeding {
            client,
            job,
            keys,
            until,
            ledger,
            following,
            input: None,
            released: false,
            ask_job: false,
            job_is_done: false,
            heard: Instant::now(),
            tick,
            progress: Progress::new(waits),
            last_need: None,
            output,
        }
    }

    async fn run(mut self) -> Result<u8, Trouble> {
        loop {
            match self.turn().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(lost @ Trouble::Lost(_)) => self.restore(&lost).await?,
                Err(other) => {
                    self.progress.clear();
                    return Err(other);
                }
            }
        }
        self.progress.clear();
        let summary = Summary::new(
            self.job.as_str(),
            &self.ledger,
            self.until != Until::Added,
            self.progress.seconds(),
        );
        if self.until != Until::Ended && self.output.wants_json() {
            self.output.json(&summary)?;
        }
        if self.output.explicit() != Some(Format::Quiet) {
            summary.say();
        }
        let unfetched = self
            .following
            .as_ref()
            .is_some_and(|following| following.unfetched > 0);
        Ok(if self.ledger.refused > 0 || unfetched {
            exit::ERROR
        } else {
            self.ledger.endings.exit_code()
        })
    }

    /// One round: send, then take what comes first. `true`: the feed is through.
    async fn turn(&mut self) -> Result<bool, Trouble> {
        self.take_what_was_read()?;
        while let Some(batch) = self.ledger.next_batch() {
            self.client.say_text(batch);
            self.take_what_was_read()?;
        }
        if self.input.is_none() && self.ledger.is_settled() && self.is_through().await? {
            return Ok(true);
        }
        let unflushed = self.following.as_ref().is_some_and(Following::is_unflushed);
        let wants_more = self.ledger.wants_more();
        tokio::select! {
            biased;
            _ = self.tick.tick() => self.look_round().await?,
            text = self.client.hear() => {
                let text = text?;
                self.take_message(&text)?;
            }
            chunk = next(&mut self.input), if wants_more => self.take_chunk(chunk)?,
            fetched = fetched(&mut self.following) => self.take_fetched(fetched)?,
            // Nothing to do at the moment: who reads our output shall have all of it.
            () = std::future::ready(()), if unflushed => {
                if let Some(following) = &mut self.following {
                    following.flush()?;
                }
            }
        }
        Ok(false)
    }

    /// Takes what the reader has ready, so that batches fill up while messages come without a
    /// pause.
    fn take_what_was_read(&mut self) -> Result<(), Trouble> {
        while self.ledger.wants_more() {
            match self.input.as_mut().map(mpsc::Receiver::try_recv) {
                Some(Ok(chunk)) => self.take_chunk(Some(chunk))?,
                Some(Err(mpsc::error::TryRecvError::Disconnected)) => self.input = None,
                Some(Err(mpsc::error::TryRecvError::Empty)) | None => return Ok(()),
            }
        }
        Ok(())
    }

    fn take_chunk(&mut self, chunk: Option<Chunk>) -> Result<(), Trouble> {
        let Some(chunk) = chunk else {
            self.input = None;
            return Ok(());
        };
        let lines = match chunk {
            Ok(lines) => lines,
            Err(trouble) => {
                // What was read before counts; the summary comes as usual.
                self.complain_of(&[Refusal::new(RefusalCode::Internal, trouble.to_string())]);
                self.ledger.refused += 1;
                self.input = None;
                return Ok(());
            }
        };
        for line in lines {
            match line {
                Ok(line) => self.ledger.offer(line),
                Err(refusal) => {
                    self.ledger.refused += 1;
                    self.complain_of(&[refusal]);
                }
            }
        }
        Ok(())
    }

    fn take_message(&mut self, text: &str) -> Result<(), Trouble> {
        match hot(text) {
            Some(Hot::Finals(finals)) => {
                self.heard = Instant::now();
                self.ask_job |= finals.job_done.is_some();
                if let Some(following) = &mut self.following {
                    following.finals(&finals, &mut self.ledger)?;
                }
                return Ok(());
            }
            Some(Hot::Events(_)) => return Ok(()),
            None => {}
        }
        match FromMaster::decode(text) {
            Ok(FromMaster::Rejected(rejected)) => {
                let refusals = self.ledger.rejected(rejected);
                self.complain_of(&refusals);
            }
            Ok(FromMaster::Added(added)) => {
                let news = self.ledger.added(added);
                if let Some(following) = &mut self.following {
                    news.jobs
                        .into_iter()
                        .for_each(|job| following.follow(&self.client, job));
                    following.ask_for(&self.client, news.ended);
                }
            }
            // Something that we said was not understood: it is not known what, so nothing can be
            // repaired.
            Ok(FromMaster::Refused(refused)) if refused.reference.is_none() => {
                return Err(refused.error.into());
            }
            Ok(_) => {}
            Err(refusal) => {
                return Err(Trouble::Local(format!(
                    "the master said what cannot be read: {refusal}"
                )));
            }
        }
        Ok(())
    }

    /// The files of a task are here, or cannot be.
    fn take_fetched(&mut self, fetched: Fetched) -> Result<(), Trouble> {
        self.heard = Instant::now();
        let Some(following) = &mut self.following else {
            return Ok(());
        };
        following.print(&fetched.line)?;
        if let Err(trouble) = fetched.result {
            following.unfetched += 1;
            self.progress.clear();
            self.output.complain(&trouble);
        }
        Ok(())
    }

    /// The input has ended and every line is answered: gives the job free and sees whether there is
    /// more to wait for.
    async fn is_through(&mut self) -> Result<bool, Trouble> {
        if self.ledger.held() > 0 {
            let refusals = self.ledger.refuse_held();
            self.complain_of(&refusals);
        }
        if !self.ledger.has_sent() {
            return Ok(true);
        }
        if !self.released {
            self.release();
        }
        if self
            .following
            .as_ref()
            .is_some_and(|following| !following.has_fetched())
        {
            return Ok(false);
        }
        match self.until {
            Until::JobDone => {
                if std::mem::take(&mut self.ask_job) {
                    self.job_is_done = self.is_job_done(self.job.clone()).await?;
                }
                Ok(self.job_is_done && self.ledger.open() == 0)
            }
            _ if self.ledger.open() > 0 => Ok(false),
            // The answer shows that the release, which has none, has been taken.
            _ => {
                self.is_job_done(self.job.clone()).await?;
                if let Some(following) = &mut self.following {
                    following.flush()?;
                }
                Ok(true)
            }
        }
    }

    fn release(&mut self) {
        self.client.say(&ToMaster::Release(JobRef {
            job: self.job.clone(),
        }));
        if self.until == Until::JobDone
            && let Some(following) = &mut self.following
        {
            following.follow(&self.client, self.job.clone());
        }
        self.released = true;
        self.ask_job = true;
    }

    /// Whether nobody holds the job and no task of it is open. A job that nothing was added to is
    /// done.
    async fn is_job_done(&mut self, job: JobName) -> Result<bool, Trouble> {
        let ask = |reference| {
            ToMaster::Ask(taskmaster_protocol::message::Question {
                reference,
                query: Query::Job { job: job.clone() },
            })
        };
        match self.client.request_once(ask).await {
            Ok(answer) => answer
                .read::<JobView>()
                .map(|job| !job.open)
                .map_err(|error| {
                    Trouble::Local(format!("the master's answer cannot be read: {error}"))
                }),
            Err(Trouble::Refused(refusal)) if refusal.code == RefusalCode::UnknownJob => Ok(true),
            Err(trouble) => Err(trouble),
        }
    }

    /// Says why nothing goes on; once for as long as the reason stays, however its figures change.
    fn say_need(&mut self) {
        let Some(why) = self.ledger.need() else {
            return;
        };
        if self.last_need.is_none_or(|at| at.elapsed() > STALLED_AFTER) {
            self.progress.clear();
            chat(&format!(
                "the master takes nothing for now ({why}); trying again …"
            ));
        }
        self.last_need = Some(Instant::now());
    }

    /// Every now and then: progress, lines put off, and a wait that hears nothing.
    async fn look_round(&mut self) -> Result<(), Trouble> {
        self.progress.draw(&self.ledger);
        if self.ledger.is_put_off() {
            self.say_need();
            self.ledger.try_again();
        }
        if !self.released || self.heard.elapsed() < STALLED_AFTER {
            return Ok(());
        }
        self.heard = Instant::now();
        self.ask_job = true;
        let jobs = self
            .following
            .as_ref()
            .map(Following::jobs)
            .unwrap_or_default();
        if self.ledger.open() == 0 {
            return Ok(());
        }
        for job in jobs {
            if !self.is_job_done(job).await? {
                return Ok(());
            }
        }
        // All jobs are done and we miss tasks: a notice was lost on the way.
        if let Some(following) = &mut self.following {
            following.start_over(&self.client);
        }
        Ok(())
    }

    /// Connects again and says again what the master must know: unanswered batches first, in order.
    async fn restore(&mut self, lost: &Trouble) -> Result<(), Trouble> {
        self.progress.clear();
        self.client.reconnect(lost).await?;
        self.ledger
            .unanswered()
            .for_each(|batch| self.client.say_text(batch));
        if let Some(following) = &self.following {
            following.restore(&self.client);
        }
        if self.released {
            self.release();
        }
        Ok(())
    }

    fn complain_of(&mut self, refusals: &[Refusal]) {
        if !refusals.is_empty() {
            self.progress.clear();
        }
        refusals
            .iter()
            .for_each(|refusal| self.output.complain_of(refusal));
    }
}

/// What was fetched next; never, where nothing is.
async fn fetched(following: &mut Option<Following>) -> Fetched {
    match following
        .as_mut()
        .and_then(|following| following.fetching.as_mut())
    {
        Some(fetching) => fetching.next().await,
        None => std::future::pending().await,
    }
}

/// What the reader has next; never, once the input has ended.
async fn next(input: &mut Option<mpsc::Receiver<Chunk>>) -> Option<Chunk> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}
