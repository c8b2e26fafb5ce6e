//! Connections between clients and the master. Each keeps the order of messages, as TCP does. It
//! delays, and stalls in one direction. When it is cut, messages on their way are lost and nothing
//! more arrives. Messages cross as text.

use crate::planted::Planted;
use crate::runners::Runner;
use crate::world::{Happening, MS, SECOND, World};
use std::collections::{BTreeMap, VecDeque};
use taskmaster_engine::inbox::{ConnectionId, Input};
use taskmaster_protocol::message::{Hello, Role, Welcome};
use taskmaster_protocol::{FromMaster, PROTOCOL_VERSION, ToMaster, limits};
use tokio::sync::mpsc::{self, UnboundedReceiver, error::TryRecvError};

/// How long after the last fault every dead connection has been noticed, in µs.
const NOTICED_US_MAX: u64 = 25 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Runner(usize),
    Feeder(usize),
    Watcher(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    Text(String),
    Ping,
    Pong,
    Close,
}

/// A connection. Its number is also that of the master's session. Of each pair, the first is the
/// direction to the client, and the second the direction to the master.
#[derive(Debug)]
pub struct Link {
    pub client: Client,
    /// The master's process at the other end.
    pub life: u32,
    pub cut: bool,
    /// Messages on their way.
    lanes: [VecDeque<Parcel>; 2],
    /// When the last message arrives.
    last_at: [u64; 2],
    /// Until when nothing arrives.
    pub stalled: [u64; 2],
    /// Whether nothing arrives any more, without anybody being told.
    dead: [bool; 2],
    /// Whether a runner has received its welcome.
    pub welcomed: bool,
    /// The seq of the last event that was sent to a watcher.
    pub watched: Option<u64>,
    /// What the engine sends; `None` after the master has let go of the connection.
    outgoing: Option<UnboundedReceiver<FromMaster>>,
}

/// Whether the runner at the end of a connection was welcomed over another one since.
pub fn is_given_up(links: &BTreeMap<u64, Link>, runners: &[Runner], no: u64) -> bool {
    let Some(Link {
        client: Client::Runner(index),
        ..
    }) = links.get(&no)
    else {
        return false;
    };
    let now = runners[*index].link.filter(|now| *now != no);
    now.is_some_and(|now| links.get(&now).is_some_and(|link| link.welcomed))
}

impl World {
    /// Sends something over a connection.
    pub fn post(&mut self, link: u64, up: bool, parcel: Parcel) {
        let latency = self.chance.within(50, self.swarm.latency);
        let now = self.now;
        let lane = usize::from(up);
        let Some(line) = self
            .links
            .get_mut(&link)
            .filter(|link| !link.cut && !link.dead[lane])
        else {
            return;
        };
        let at = (now + latency).max(line.last_at[lane]);
        line.last_at[lane] = at;
        line.lanes[lane].push_back(parcel);
        self.plan(at - now, Happening::Deliver { link, up });
    }

    pub fn deliver(&mut self, link: u64, up: bool) {
        let now = self.now;
        let Some(line) = self.links.get_mut(&link).filter(|link| !link.cut) else {
            return;
        };
        let lane = usize::from(up);
        if line.stalled[lane] > now {
            let after = line.stalled[lane] - now;
            return self.plan(after, Happening::Deliver { link, up });
        }
        let Some(parcel) = line.lanes[lane].pop_front() else {
            return;
        };
        let client = line.client;
        if let Parcel::Text(text) = &parcel {
            let arrow = if up { "▲" } else { "▼" };
            self.history
                .note(now, arrow, || format!("{client:?} by {link}: {text}"));
        }
        if up {
            return self.master_hears(link, parcel);
        }
        if parcel == Parcel::Close {
            return self.client_loses(link);
        }
        match client {
            Client::Runner(runner) => self.runner_hears(runner, link, parcel),
            Client::Feeder(feeder) => self.feeder_hears(feeder, link, parcel),
            Client::Watcher(watcher) => self.watcher_hears(watcher, link, parcel),
        }
    }

    /// A client dials. [`Happening::Dialled`] is the outcome.
    pub fn dial(&mut self, client: Client, process: u32) {
        let after = self.chance.within(100, self.swarm.latency + 200);
        self.plan(after, Happening::Dialled { client, process });
    }

    pub fn dialled(&mut self, client: Client, process: u32) {
        if !self.still_dials(client, process) {
            return;
        }
        if let Client::Runner(index) = client
            && self.runners[index].away_until > self.now
            && !self.healed
        {
            return self.not_connected(client);
        }
        let Some((life, epoch, seq)) = self
            .master
            .as_ref()
            .filter(|m| m.listens)
            .map(|m| (m.life, m.epoch, m.events.latest()))
        else {
            return self.not_connected(client);
        };
        self.last_link += 1;
        let no = self.last_link;
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let link = Link {
            client,
            life,
            cut: false,
            lanes: Default::default(),
            last_at: [0, 0],
            stalled: [0, 0],
            dead: [false; 2],
            welcomed: false,
            watched: None,
            outgoing: Some(outgoing),
        };
        self.links.insert(no, link);
        self.open_links.push(no);
        self.note("connects", || format!("{client:?} by {no}"));
        let (role, session, runner) = match client {
            Client::Runner(index) => {
                let Runner { process, offer, .. } = &self.runners[index];
                let session = format!("{}-{process}", offer.name);
                (Role::Runner, Some(session), Some(offer.clone()))
            }
            Client::Feeder(index) => (Role::Client, Some(self.feeders[index].name.clone()), None),
            Client::Watcher(_) => (Role::Client, None, None),
        };
        let hello = Hello {
            role,
            protocol: PROTOCOL_VERSION,
            token: None,
            session,
            runner,
        };
        self.tell_master(Input::Connected {
            connection: ConnectionId(no),
            hello,
            outbox,
        });
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
            epoch,
            seq,
            message_bytes_max: limits::MESSAGE_BYTES_MAX as u64,
            batch_tasks_max: limits::BATCH_TASKS_MAX as u64,
            leader: None,
        };
        self.post(
            no,
            false,
            Parcel::Text(FromMaster::Welcome(welcome).encode()),
        );
        match client {
            Client::Runner(index) => self.runners[index].link = Some(no),
            Client::Feeder(index) => self.feeders[index].link = Some(no),
            Client::Watcher(index) => self.watchers[index].link = Some(no),
        }
    }

    fn still_dials(&self, client: Client, process: u32) -> bool {
        match client {
            Client::Runner(index) => {
                self.runners[index].process == process && self.runners[index].session.is_some()
            }
            Client::Feeder(index) => self.feeders[index].link.is_none(),
            Client::Watcher(index) => self.watchers[index].link.is_none(),
        }
    }

    fn not_connected(&mut self, client: Client) {
        match client {
            Client::Runner(index) => self.runner_loses_link(index),
            Client::Feeder(_) | Client::Watcher(_) => self.dial_later(client),
        }
    }

    /// Sends what the engine has said since the last time.
    pub fn flush(&mut self) {
        self.feed_watchers();
        let links = &self.links;
        self.open_links
            .retain(|no| links.get(no).is_some_and(|link| link.outgoing.is_some()));
        for at in 0..self.open_links.len() {
            let no = self.open_links[at];
            while let Some(outgoing) = self
                .links
                .get_mut(&no)
                .and_then(|link| link.outgoing.as_mut())
            {
                match outgoing.try_recv() {
                    Ok(message) => {
                        self.oracle.master_says(no, &message);
                        self.post(no, false, Parcel::Text(message.encode()));
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => self.master_closes(no),
                }
            }
        }
    }

    /// The engine has let go of a connection. The gateway closes it after the messages before.
    fn master_closes(&mut self, no: u64) {
        let life = self.master.as_ref().map(|master| master.life);
        let lives = self
            .links
            .get(&no)
            .is_some_and(|link| Some(link.life) == life && !link.cut);
        let wrong = lives && self.healed && self.now > self.oracle.healed_at + NOTICED_US_MAX;
        self.oracle.claim(!wrong, || {
            format!("the master hangs up on connection {no}, which is well")
        });
        if let Some(link) = self.links.get_mut(&no) {
            link.outgoing = None;
        }
        self.note("master closes", || no.to_string());
        self.tell_master(Input::Disconnected {
            connection: ConnectionId(no),
        });
        self.post(no, false, Parcel::Close);
    }

    /// Cuts a connection. What was on its way is lost, and each end notices at a time of its own.
    pub fn cut(&mut self, no: u64) {
        let Some(link) = self.links.get_mut(&no).filter(|link| !link.cut) else {
            return;
        };
        link.cut = true;
        link.lanes = Default::default();
        let client = link.client;
        link.watched = None;
        self.note("cut", || no.to_string());
        if let Client::Runner(index) = client
            && self.chance.permille(300)
        {
            self.runners[index].away_until = self.now + self.chance.within(SECOND, 4 * SECOND);
        }
        for by_master in [true, false] {
            let silent = self.chance.permille(self.swarm.silent);
            let most = if silent {
                limits::SILENT_MS_MAX * MS
            } else {
                50 * MS
            };
            let after = self.chance.within(0, most);
            self.plan(
                after,
                Happening::Noticed {
                    link: no,
                    by_master,
                },
            );
        }
    }

    /// Nothing arrives in one direction for some time.
    pub fn stall(&mut self, no: u64) {
        let up = self.chance.below(2) as usize;
        let until = self.now + self.chance.spread(MS, 3 * SECOND);
        self.note("stall", || format!("{no} {up} until {until}"));
        if let Some(link) = self.links.get_mut(&no) {
            link.stalled[up] = until;
        }
    }

    /// One end notices that a connection is gone.
    pub fn noticed(&mut self, no: u64, by_master: bool) {
        if !by_master {
            return self.client_loses(no);
        }
        let here = self.master.as_ref().map(|master| master.life);
        if self.planted == Some(Planted::VoidLease)
            && matches!(self.links.get(&no), Some(l) if matches!(l.client, Client::Runner(_)))
        {
            self.tell_master(Input::Heard {
                connection: ConnectionId(no),
            });
            return self.plan(
                SECOND,
                Happening::Noticed {
                    link: no,
                    by_master,
                },
            );
        }
        let Some(link) = self.links.get_mut(&no) else {
            return;
        };
        if Some(link.life) == here && link.outgoing.take().is_some() {
            self.tell_master(Input::Disconnected {
                connection: ConnectionId(no),
            });
        }
    }

    /// The client knows that its connection is gone.
    pub fn client_loses(&mut self, no: u64) {
        let Some(client) = self.links.get(&no).map(|link| link.client) else {
            return;
        };
        match client {
            Client::Runner(index) if self.runners[index].link == Some(no) => {
                self.runner_loses_link(index)
            }
            Client::Feeder(index) if self.feeders[index].link == Some(no) => {
                self.feeders[index].link = None;
                self.feeders[index].up = false;
                self.dial_later(client);
            }
            Client::Watcher(index) if self.watchers[index].link == Some(no) => {
                self.watchers[index].link = None;
                self.dial_later(client);
            }
            // The client has another connection by now.
            Client::Runner(_) | Client::Feeder(_) | Client::Watcher(_) => {}
        }
    }

    /// The client gives its connection up and dials anew. What is on its way to the master arrives,
    /// maybe after what the client sends again over the next connection.
    pub fn abandon(&mut self, no: u64) {
        self.note("abandon", || no.to_string());
        self.client_loses(no);
        let after = self.chance.within(0, limits::SILENT_MS_MAX * MS);
        self.plan(
            after,
            Happening::Noticed {
                link: no,
                by_master: true,
            },
        );
    }

    /// From now on nothing arrives in one direction. Runners notice by their pings, and the master by
    /// the lease. Other clients are told.
    pub fn cut_one_way(&mut self, no: u64) {
        let up = self.chance.below(2) as usize;
        self.note("one way", || format!("{no} {up}"));
        let Some(link) = self.links.get_mut(&no) else {
            return;
        };
        link.dead[up] = true;
        link.lanes[up].clear();
        match link.client {
            // A runner gives up waiting for its welcome.
            Client::Runner(_) if !link.welcomed => {
                self.plan(
                    limits::HELLO_MS_MAX * MS,
                    Happening::Noticed {
                        link: no,
                        by_master: false,
                    },
                );
            }
            Client::Runner(_) => {}
            Client::Feeder(_) | Client::Watcher(_) => {
                for by_master in [true, false] {
                    let after = self.chance.within(0, limits::SILENT_MS_MAX * MS);
                    self.plan(
                        after,
                        Happening::Noticed {
                            link: no,
                            by_master,
                        },
                    );
                }
            }
        }
    }

    /// Until when the runner at the end of a connection is stopped.
    pub fn runner_asleep_until(&self, no: u64) -> Option<u64> {
        match self.links.get(&no)?.client {
            Client::Runner(index) => Some(self.runners[index].asleep_until),
            Client::Feeder(_) | Client::Watcher(_) => None,
        }
    }

    fn dial_later(&mut self, client: Client) {
        let after = self.chance.within(20 * MS, 500 * MS);
        self.plan(after, Happening::Dialled { client, process: 0 });
    }

    /// A client hangs up. The master notices at once, or late.
    pub fn hang_up(&mut self, no: u64) {
        if let Some(client) = self.links.get(&no).map(|link| link.client) {
            self.cut(no);
            match client {
                Client::Runner(index) => self.runners[index].link = None,
                Client::Feeder(index) => self.feeders[index].link = None,
                Client::Watcher(index) => self.watchers[index].link = None,
            }
        }
    }

    /// A message of a client has reached the gateway.
    fn master_hears(&mut self, no: u64, parcel: Parcel) {
        let client = match self.links.get(&no) {
            Some(link) if link.outgoing.is_some() => link.client,
            _ => return,
        };
        match parcel {
            Parcel::Ping => {
                if let Client::Runner(_) = client {
                    self.tell_master(Input::Heard {
                        connection: ConnectionId(no),
                    });
                }
                self.post(no, false, Parcel::Pong);
            }
            Parcel::Text(text) => match ToMaster::decode(&text) {
                Ok(message) => self.gateway(no, client, message),
                Err(refusal) => {
                    self.oracle.broken = Some(format!("{text} cannot be read: {refusal}"))
                }
            },
            Parcel::Pong | Parcel::Close => {}
        }
    }
}
