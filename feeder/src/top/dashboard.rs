//! What `top` shows.

use crate::client::{Client, ClientError};
use crate::watch::event_line;
use crate::wire::{HotMessage, read_hot};
use std::collections::VecDeque;
use std::time::Instant;
use taskmaster_protocol::EventView;
use taskmaster_protocol::message::{Query, Status};
use taskmaster_protocol::shape::{JobView, RunnerView};

/// Events and rates that are kept: more than any terminal has lines or columns to show.
const KEPT_MAX: usize = 200;

/// The shortest time over which a rate is taken, seconds.
const RATE_SECONDS_MIN: f64 = 1e-3;

/// What `top` shows.
#[derive(Default)]
pub(super) struct Dashboard {
    /// The master at a glance.
    pub(super) status: Option<Status>,
    /// All runners.
    pub(super) runners: Vec<RunnerView>,
    /// All jobs, open ones first.
    pub(super) jobs: Vec<JobView>,
    /// Tasks that ended per second, since the refresh before.
    pub(super) rate: f64,
    /// The last rates, newest last.
    pub(super) rates: VecDeque<u64>,
    /// The last events as lines, newest last.
    pub(super) events: VecDeque<String>,
    /// What is wrong with the connection; empty where it is well.
    pub(super) problem: String,
    /// The refresh before, from which the rate is taken.
    pub(super) last_refresh: Option<Refresh>,
}

/// When the master was asked, and how many tasks had ended by then.
pub(super) struct Refresh {
    at: Instant,
    ended: u64,
}

impl Dashboard {
    /// Asks the master for everything but the events.
    pub(super) async fn refresh(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let status: Status = client.ask(Query::Status).await?;
        self.runners = client.ask(Query::Runners).await?;
        self.jobs = client.ask(Query::Jobs).await?;
        let refresh = Refresh {
            at: Instant::now(),
            ended: ended_tasks(&status),
        };
        if let Some(before) = &self.last_refresh {
            let seconds = refresh.at.duration_since(before.at).as_secs_f64();
            let ended = refresh.ended.saturating_sub(before.ended);
            self.rate = ended as f64 / seconds.max(RATE_SECONDS_MIN);
            self.rates.push_back(self.rate as u64);
            if self.rates.len() > KEPT_MAX {
                self.rates.pop_front();
            }
        }
        self.last_refresh = Some(refresh);
        self.status = Some(status);
        Ok(())
    }

    /// Takes events; passes over every other message.
    pub(super) fn take(&mut self, text: &str) {
        let Some(HotMessage::Watch(events)) = read_hot(text) else {
            return;
        };
        // At full load tens of thousands come in a second: what will not be seen is not read.
        let skip = events.len().saturating_sub(KEPT_MAX);
        for event in events.into_iter().skip(skip) {
            if let Ok(event) = serde_json::from_str::<EventView>(event.get()) {
                self.events.push_back(event_line(&event));
            }
        }
        let more = self.events.len().saturating_sub(KEPT_MAX);
        self.events.drain(..more);
    }
}

fn ended_tasks(status: &Status) -> u64 {
    ["done", "failed", "cancelled", "skipped"]
        .iter()
        .filter_map(|state| status.tasks.get(*state))
        .sum()
}
