//! What `top` shows.

use crate::client::{Client, ClientError, read_answer};
use crate::watch::event_line;
use crate::wire::{HotMessage, read_hot};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::time::Instant;
use taskmaster_protocol::message::{Page, Query, Status};
use taskmaster_protocol::shape::{JobView, RunnerView};
use taskmaster_protocol::{EventView, limits};

/// Events and rates that are kept: more than any terminal has lines or columns to show.
const KEPT_MAX: usize = 200;

/// The shortest time over which a rate is taken, seconds.
const RATE_SECONDS_MIN: f64 = 1e-3;

/// What `top` shows.
#[derive(Default)]
pub(super) struct Dashboard {
    /// The master at a glance.
    pub(super) status: Option<Status>,
    /// The first runners, more than any terminal shows.
    pub(super) runners: Vec<RunnerView>,
    /// The first jobs, more than any terminal shows, open ones before others.
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
    /// Asks the master for everything but the events. A broken connection is an error, not made
    /// again here: on a new one the events must be asked for, too.
    pub(super) async fn refresh(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let status: Status = read_answer(&client.ask_once(Query::Status).await?)?;
        self.runners = first_page(client, Query::RUNNERS).await?;
        self.jobs = first_page(client, jobs(true)).await?;
        if self.jobs.len() < limits::PAGE_ROWS_MAX {
            self.jobs.extend(first_page(client, jobs(false)).await?);
        }
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

/// The jobs that are open, or that are done.
fn jobs(are_open: bool) -> Query {
    Query::Jobs {
        open: Some(are_open),
        after: None,
    }
}

async fn first_page<T: DeserializeOwned>(
    client: &mut Client,
    query: Query,
) -> Result<Vec<T>, ClientError> {
    let page: Page<T> = read_answer(&client.ask_once(query).await?)?;
    Ok(page.rows)
}

fn ended_tasks(status: &Status) -> u64 {
    ["done", "failed", "cancelled", "skipped"]
        .iter()
        .filter_map(|state| status.tasks.get(*state))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Target;
    use futures_util::{SinkExt, StreamExt};
    use std::time::Duration;
    use taskmaster_protocol::FromMaster;
    use taskmaster_protocol::message::Welcome;
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::Message;

    /// A master that hangs up at the first question. On a second connection it answers nothing.
    async fn master() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                socket.next().await.unwrap().unwrap();
                let welcome = FromMaster::Welcome(Welcome {
                    protocol: 1,
                    epoch: 1,
                    seq: 0,
                    message_bytes_max: 1 << 20,
                    batch_tasks_max: 1,
                    leader: None,
                });
                socket.send(Message::text(welcome.encode())).await.unwrap();
                socket.next().await;
                if connection > 0 {
                    std::future::pending::<()>().await;
                }
            }
        });
        Target::parse(&url, None).unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_breaks_in_a_refresh_is_told_so_that_events_are_asked_for_again() {
        let mut client = Client::connect(master().await).await.unwrap();
        let mut dashboard = Dashboard::default();
        let refresh = dashboard.refresh(&mut client);
        let refreshed = tokio::time::timeout(Duration::from_secs(5), refresh)
            .await
            .expect("it does not connect again");
        assert!(matches!(refreshed, Err(ClientError::Lost(_))));
        // What waits for events hears of it, too.
        assert!(matches!(client.receive().await, Err(ClientError::Lost(_))));
    }
}
