//! `top`: runners, jobs, rates and events, live, in the terminal.

mod dashboard;
mod view;

use crate::cli::{GlobalOptions, TopOptions};
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::exit;
use dashboard::Dashboard;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::time::Duration;
use taskmaster_console::long_lived;
use taskmaster_protocol::message::Watch;
use taskmaster_protocol::{EventFilter, ToMaster};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// How often the master is asked, unless `--every` says otherwise.
const REFRESH_DEFAULT: Duration = Duration::from_millis(500);

/// The master is not asked more often than this, whatever `--every` says.
const REFRESH_MIN: Duration = Duration::from_millis(50);

/// How often the keyboard's thread looks whether it should end.
const KEYBOARD_CHECK: Duration = Duration::from_millis(100);

/// Runs `top` until q is pressed, and gives the exit code.
pub async fn run(options: &TopOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    if !std::io::stdout().is_terminal() {
        return Err(CommandError::Usage(
            "top needs a terminal; for scripts there is `taskmaster watch`".into(),
        ));
    }
    let client = Client::connect(global.target()?).await?;
    let every = options
        .every
        .map_or(REFRESH_DEFAULT, |span| span.duration())
        .max(REFRESH_MIN);
    let mut terminal = ratatui::try_init()?;
    let result = show(client, every, &mut terminal).await;
    ratatui::restore();
    result.map(|()| exit::OK)
}

async fn show(
    mut client: Client,
    every: Duration,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<(), CommandError> {
    let mut dashboard = Dashboard::default();
    let mut keyboard = keyboard();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    watch(&client);
    loop {
        tokio::select! {
            biased;
            key = keyboard.recv() => if key.is_none_or(quits) { return Ok(()) },
            _ = tick.tick() => {
                match dashboard.refresh(&mut client).await {
                    Err(ClientError::Lost(why)) => dashboard.problem = why,
                    other => other?,
                }
                terminal.draw(|frame| view::draw(frame, &dashboard))?;
            }
            text = client.receive() => match text {
                Ok(text) => dashboard.take(&text),
                Err(ClientError::Lost(why)) => {
                    dashboard.problem =
                        format!("the master is gone ({why}); connecting again …");
                    terminal.draw(|frame| view::draw(frame, &dashboard))?;
                    // Without a master q must quit, too.
                    tokio::select! {
                        () = quit_pressed(&mut keyboard) => return Ok(()),
                        connected = client.reconnect() => connected?,
                    }
                    dashboard.problem.clear();
                    watch(&client);
                }
                Err(other) => return Err(other.into()),
            },
        }
    }
}

fn watch(client: &Client) {
    let events = ["task", "module", "runner", "job"].map(str::to_owned);
    let filter = EventFilter {
        events: events.to_vec(),
        ..EventFilter::default()
    };
    client.send(&ToMaster::Watch(Watch {
        filter,
        since: None,
    }));
}

/// Reads the keyboard on a thread, because its reads block. The thread ends when the receiver is
/// gone.
fn keyboard() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let _ = long_lived::spawn("keyboard", move || {
        while !sender.is_closed() {
            match event::poll(KEYBOARD_CHECK) {
                Ok(false) => {}
                Ok(true) => match event::read() {
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
    let is_control_c =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    key.kind == KeyEventKind::Press && (is_control_c || is_quit)
}

async fn quit_pressed(keyboard: &mut mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = keyboard.recv().await {
        if quits(event) {
            return;
        }
    }
}
