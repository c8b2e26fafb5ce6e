//! What the listener, the requests and the session of one connection share: how far its peer has
//! come, and so how much may be read before anybody knows who the peer is.
//!
//! A peer is a stranger until it has shown the token or a role. What strangers take is bounded: by
//! connection in bytes, and in all by the number of strangers.

use super::socket_owner;
use futures_util::task::AtomicWaker;
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use taskmaster_protocol::limits;

/// Every fourth file that the process may open can be the connection of a stranger. The others are
/// for runners, clients and the disk.
const FILES_PER_STRANGER: usize = 4;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The head of a request is waited for.
    Head,
    /// A request is being answered.
    Request,
    /// The connection has become a WebSocket, and `hello` is waited for.
    Greeting,
    /// The connection is a session.
    Session,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The address of the other side.
    pub(super) peer: SocketAddr,
    /// The address of this side. `None` where the system does not tell.
    pub(super) local: Option<SocketAddr>,
    number: u64,
    phase: AtomicU8,
    /// Counts the requests, so that each head has a time of its own.
    requests: AtomicU32,
    is_evicted: AtomicBool,
    /// Wakes whoever reads from the connection of a stranger.
    reader: AtomicWaker,
    /// The user who runs the peer. It is asked for once.
    owner: OnceLock<Option<u32>>,
    strangers: Strangers,
}

impl Connection {
    /// The user id of the peer's process, if the process is on this machine and the system tells.
    pub(super) fn owner(&self) -> Option<u32> {
        let ask = || socket_owner::of_peer(self.peer, self.local?);
        *self.owner.get_or_init(ask)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            phase if phase == Phase::Head as u8 => Phase::Head,
            phase if phase == Phase::Request as u8 => Phase::Request,
            phase if phase == Phase::Greeting as u8 => Phase::Greeting,
            _ => Phase::Session,
        }
    }

    /// The number of the request that is answered or waited for.
    pub(super) fn request_number(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// The head of a request is here. The request lasts until the returned value is dropped.
    pub(super) fn begin_request(self: &Arc<Connection>) -> OpenRequest {
        self.phase.store(Phase::Request as u8, Relaxed);
        OpenRequest(self.clone())
    }

    /// The connection is a WebSocket from now on.
    pub(super) fn begin_greeting(&self) {
        self.phase.store(Phase::Greeting as u8, Relaxed);
    }

    /// The peer has a role.
    pub(super) fn begin_session(&self) {
        self.phase.store(Phase::Session as u8, Relaxed);
        self.leave_strangers();
    }

    /// The peer has shown that it may speak to this master, or has gone: it is no stranger any
    /// more.
    pub(super) fn leave_strangers(&self) {
        self.strangers.lock().open.remove(&self.number);
    }

    /// Whether the connection was closed in favour of newer ones. `waker` is woken when it is.
    pub(super) fn poll_evicted(&self, waker: &Waker) -> bool {
        self.reader.register(waker);
        self.is_evicted.load(SeqCst)
    }

    fn evict(&self) {
        self.is_evicted.store(true, SeqCst);
        self.reader.wake();
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Connection>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.requests.fetch_add(1, Relaxed);
        // A connection that has become a WebSocket has no further requests.
        let _ = self.0.phase.compare_exchange(
            Phase::Request as u8,
            Phase::Head as u8,
            Relaxed,
            Relaxed,
        );
    }
}

/// The connections of strangers. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Strangers(Arc<Mutex<OpenStrangers>>);

#[derive(Debug)]
struct OpenStrangers {
    /// By number, so the one that has waited longest is the first.
    open: BTreeMap<u64, Arc<Connection>>,
    next_number: u64,
    most: usize,
}

impl Default for Strangers {
    fn default() -> Strangers {
        let files = open_files_max().unwrap_or(usize::MAX);
        Strangers::new((files / FILES_PER_STRANGER).clamp(1, limits::STRANGERS_MAX))
    }
}

impl Strangers {
    fn new(most: usize) -> Strangers {
        Strangers(Arc::new(Mutex::new(OpenStrangers {
            open: BTreeMap::new(),
            next_number: 0,
            most,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, OpenStrangers> {
        // Nothing between lock and unlock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection in. Where strangers are too many, the one that has waited longest is
    /// closed: a peer that says at once who it is gets in, however many there are that say nothing.
    pub(super) fn enter(&self, peer: SocketAddr, local: Option<SocketAddr>) -> Arc<Connection> {
        let mut strangers = self.lock();
        let number = strangers.next_number;
        strangers.next_number += 1;
        let connection = Arc::new(Connection {
            peer,
            local,
            number,
            phase: AtomicU8::new(Phase::Head as u8),
            requests: AtomicU32::new(0),
            is_evicted: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            owner: OnceLock::new(),
            strangers: self.clone(),
        });
        strangers.open.insert(number, connection.clone());
        let evicted = if strangers.open.len() > strangers.most {
            strangers.open.pop_first()
        } else {
            None
        };
        drop(strangers);
        if let Some((_, oldest)) = evicted {
            oldest.evict();
        }
        connection
    }

    /// Closes the connection of the stranger that has waited longest. Returns whether there was
    /// one.
    pub(super) fn evict_oldest(&self) -> bool {
        let oldest = self.lock().open.pop_first();
        if let Some((_, oldest)) = &oldest {
            oldest.evict();
        }
        oldest.is_some()
    }
}

/// How many files this process may have open, if there is a limit.
fn open_files_max() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).current?;
    usize::try_from(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_strangers_the_one_that_has_waited_longest_goes_and_nobody_who_is_known() {
        let strangers = Strangers::new(2);
        let address = "127.0.0.1:1".parse().unwrap();
        let enter = || strangers.enter(address, None);
        let known = enter();
        let silent = enter();
        known.leave_strangers();
        let late = enter();
        let latest = enter();
        let is_evicted = |connection: &Connection| connection.poll_evicted(Waker::noop());
        assert!(is_evicted(&silent));
        assert!(!is_evicted(&known) && !is_evicted(&late) && !is_evicted(&latest));
        assert!(strangers.evict_oldest() && is_evicted(&late));
        assert!(strangers.evict_oldest() && is_evicted(&latest));
        assert!(!strangers.evict_oldest());
    }

    #[test]
    fn a_request_ends_when_it_is_answered_and_a_websocket_has_no_other() {
        let connection = Strangers::new(1).enter("127.0.0.1:1".parse().unwrap(), None);
        assert_eq!(connection.phase(), Phase::Head);
        let request = connection.begin_request();
        assert_eq!(connection.phase(), Phase::Request);
        drop(request);
        assert_eq!(connection.phase(), Phase::Head);
        assert_eq!(connection.request_number(), 1);
        let upgrade = connection.begin_request();
        connection.begin_greeting();
        drop(upgrade);
        assert_eq!(connection.phase(), Phase::Greeting);
        connection.begin_session();
        assert_eq!(connection.phase(), Phase::Session);
    }

    #[test]
    fn the_system_says_how_many_files_may_be_open() {
        assert!(open_files_max().is_none_or(|most| most > 0));
    }
}
