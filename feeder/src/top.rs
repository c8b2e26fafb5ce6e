//! `top`: runners, jobs, rates and events, live, in the terminal.

mod view;

use crate::cli::{Global, TopOptions};
use crate::client::Client;
use crate::trouble::{Trouble, exit};
use crate::watch::for_people;
use crate::wire::{Hot, hot};
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use taskmaster_protocol::message::{Query, Status, Watch};
use taskmaster_protocol::shape::{JobView, RunnerView};
use taskmaster_protocol::{EventFilter, EventView, ToMaster};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Events that are kept; more than any terminal has lines.
const EVENTS_KEPT: usize = 200;

/// How often the keyboard's thread looks whether it should end.
const KEYS_EVERY: Duration = Duration::from_millis(100);

/// What is shown.
#[derive(Default)]
pub struct Picture {
    /// The master at a glance.
    pub status: Option<Status>,
    /// Its runners.
    pub runners: Vec<RunnerView>,
    /// Its jobs, open ones first.
    pub jobs: Vec<JobView>,
    /// Tasks ended per second, since the last look.
    pub rate: f64,
    /// The last rates, newest last.
    pub rates: VecDeque<u64>,
    /// The last events, newest last.
    pub events: VecDeque<String>,
    /// What is wrong, where something is.
    pub note: String,
    /// The tasks that had ended at the last look, and when that was.
    last: Option<(u64, Instant)>,
}

/// Runs `top`, until q is pressed. The exit code.
pub async fn run(options: &TopOptions, global: &Global) -> Result<u8, Trouble> {
    if !std::io::stdout().is_terminal() {
        return Err(Trouble::Usage(
            "top needs a terminal; for scripts there is `taskmaster watch`".into(),
        ));
    }
    let client = Client::connect(global.target()?).await?;
    let every = options
        .every
        .map_or(Duration::from_millis(500), |span| span.duration())
        .max(Duration::from_millis(50));
    let mut terminal = ratatui::try_init()?;
    let result = show(client, every, &mut terminal).await;
    ratatui::restore();
    result.map(|()| exit::OK)
}

async fn show(
    mut client: Client,
    every: Duration,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<(), Trouble> {
    let mut picture = Picture::default();
    let mut keys = keys();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    watch(&client);
    loop {
        tokio::select! {
            biased;
            key = keys.recv() => if key.is_none_or(quits) { return Ok(()) },
            _ = tick.tick() => {
                match look(&mut client, &mut picture).await {
                    Err(Trouble::Lost(why)) => picture.note = why,
                    other => other?,
                }
                terminal.draw(|frame| view::draw(frame, &picture))?;
            }
            text = client.hear() => match text {
                Ok(text) => take(&text, &mut picture),
                Err(Trouble::Lost(why)) => {
                    picture.note = format!("the master is gone ({why}); connecting again …");
                    terminal.draw(|frame| view::draw(frame, &picture))?;
                    // Also without a master q must quit.
                    tokio::select! {
                        () = quit_pressed(&mut keys) => return Ok(()),
                        connected = client.reconnect_silently() => connected?,
                    }
                    picture.note.clear();
                    watch(&client);
                }
                Err(other) => return Err(other),
            },
        }
    }
}

fn watch(client: &Client) {
    let filter = EventFilter {
        events: ["task", "module", "runner", "job"]
            .map(str::to_owned)
            .to_vec(),
        ..EventFilter::default()
    };
    client.say(&ToMaster::Watch(Watch {
        filter,
        since: None,
    }));
}

async fn look(client: &mut Client, picture: &mut Picture) -> Result<(), Trouble> {
    let status: Status = client.ask(Query::Status).await?;
    picture.runners = client.ask(Query::Runners).await?;
    picture.jobs = client.ask(Query::Jobs).await?;
    let ended: u64 = ["done", "failed", "cancelled", "skipped"]
        .iter()
        .filter_map(|state| status.tasks.get(*state))
        .sum();
    let now = Instant::now();
    if let Some((before, at)) = picture.last {
        let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
        picture.rate = ended.saturating_sub(before) as f64 / seconds;
        picture.rates.push_back(picture.rate as u64);
        if picture.rates.len() > EVENTS_KEPT {
            picture.rates.pop_front();
        }
    }
    picture.last = Some((ended, now));
    picture.status = Some(status);
    Ok(())
}

fn take(text: &str, picture: &mut Picture) {
    let Some(Hot::Events(events)) = hot(text) else {
        return;
    };
    // Only those that can be seen are read: at full load there are tens of thousands a second.
    let skip = events.len().saturating_sub(EVENTS_KEPT);
    for event in events.into_iter().skip(skip) {
        if let Ok(event) = serde_json::from_str::<EventView>(event.get()) {
            picture.events.push_back(for_people(&event));
        }
    }
    let more = picture.events.len().saturating_sub(EVENTS_KEPT);
    picture.events.drain(..more);
}

/// Reads the keyboard on a thread: its reads block. The thread ends when nobody listens.
fn keys() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match ratatui::crossterm::event::poll(KEYS_EVERY) {
                Ok(false) => {}
                Ok(true) => match ratatui::crossterm::event::read() {
                    Ok(event) => {
                        if sender.send(event).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                Err(_) => return,
            }
        }
    });
    receiver
}

fn quits(event: Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

async fn quit_pressed(keys: &mut mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = keys.recv().await {
        if quits(event) {
            return;
        }
    }
}
