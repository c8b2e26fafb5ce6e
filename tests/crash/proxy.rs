//! A TCP proxy that is told to misbehave: to cut a connection in the middle of a frame, or to let
//! the bytes of one direction vanish without telling anybody, as a router does that forgets a
//! connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use taskmaster_harness::client::frame_size;
use taskmaster_harness::socket::{frame, handshake};

/// Bits of a connection's `lost`: bytes to the master vanish, bytes from it do.
const TO_MASTER: u8 = 1;
const FROM_MASTER: u8 = 2;

struct Connection {
    lost: AtomicU8,
    lost_since: Mutex<Option<Instant>>,
    over: AtomicBool,
    /// Directions that have not ended.
    open: AtomicU8,
    ends: [TcpStream; 2],
}

#[derive(Default)]
struct State {
    /// Cuts that were ordered and wait for a frame to be cut in.
    cuts: AtomicU64,
    cut: AtomicU64,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// How long the peers took to hang up on a connection that was half-open.
    noticed: Mutex<Vec<Duration>>,
}

/// Listens until the process ends.
#[derive(Clone)]
pub struct Proxy {
    pub url: String,
    state: Arc<State>,
}

impl Proxy {
    /// In front of the master at `url`.
    pub fn before(url: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            url: format!("ws://{}", listener.local_addr().unwrap()),
            state: Arc::new(State::default()),
        };
        let (state, target) = (
            proxy.state.clone(),
            url.trim_start_matches("ws://").to_owned(),
        );
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                // A master that is away is told by a closed connection, as without a proxy.
                let Ok(to) = TcpStream::connect(&target) else {
                    continue;
                };
                connect(&state, from, to);
            }
        });
        proxy
    }

    /// Cuts some connection in the middle of a frame, as soon as there is one.
    pub fn cut(&self) {
        self.state.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets what is sent vanish on every connection there is: to the master on one, from it on the
    /// next, both ways on the third; `turn` says which is first. New connections are well.
    pub fn lose(&self, turn: usize) {
        let connections = self.state.connections.lock().unwrap();
        let open = connections
            .iter()
            .filter(|c| !c.over.load(Ordering::Relaxed) && c.lost.load(Ordering::Relaxed) == 0);
        for (index, connection) in open.enumerate() {
            let directions = [TO_MASTER, FROM_MASTER, TO_MASTER | FROM_MASTER][(turn + index) % 3];
            *connection.lost_since.lock().unwrap() = Some(Instant::now());
            connection.lost.store(directions, Ordering::Relaxed);
        }
    }

    /// Connections that were cut in mid frame.
    pub fn cuts(&self) -> u64 {
        self.state.cut.load(Ordering::Relaxed)
    }

    /// How long each half-open connection lasted; and how many still do.
    pub fn noticed(&self) -> (Vec<Duration>, usize) {
        let connections = self.state.connections.lock().unwrap();
        let waiting = connections
            .iter()
            .filter(|c| c.lost.load(Ordering::Relaxed) != 0 && !c.over.load(Ordering::Relaxed));
        (self.state.noticed.lock().unwrap().clone(), waiting.count())
    }
}

fn connect(state: &Arc<State>, from: TcpStream, to: TcpStream) {
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    [&from, &to]
        .into_iter()
        .for_each(|stream| stream.set_nodelay(true).unwrap());
    let ends = [clone(&from), clone(&to)];
    let connection = Arc::new(Connection {
        lost: AtomicU8::new(0),
        lost_since: Mutex::default(),
        over: AtomicBool::new(false),
        open: AtomicU8::new(2),
        ends,
    });
    let mut connections = state.connections.lock().unwrap();
    connections.retain(|connection| !connection.over.load(Ordering::Relaxed));
    connections.push(connection.clone());
    drop(connections);
    for (mut source, mut target, direction) in [
        (clone(&from), clone(&to), TO_MASTER),
        (to, from, FROM_MASTER),
    ] {
        let (state, connection) = (state.clone(), connection.clone());
        std::thread::spawn(move || pump(&state, &connection, &mut source, &mut target, direction));
    }
}

/// Carries bytes one way until the connection ends.
fn pump(
    state: &State,
    connection: &Connection,
    source: &mut TcpStream,
    target: &mut TcpStream,
    direction: u8,
) {
    let mut frames = Frames::default();
    let mut part = [0; 65_536];
    while let Ok(length @ 1..) = source.read(&mut part) {
        let bytes = &part[..length];
        if connection.lost.load(Ordering::Relaxed) & direction != 0 {
            continue;
        }
        let wanted = |cuts: u64| cuts.checked_sub(1);
        if let Some(inside) = frames.pass(bytes)
            && state
                .cuts
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, wanted)
                .is_ok()
        {
            // What was sent before the cut arrives: it is the frame that is broken, not more.
            let _ = target.write_all(&bytes[..inside]);
            state.cut.fetch_add(1, Ordering::Relaxed);
            return connection.end(state);
        }
        if target.write_all(bytes).is_err() {
            break;
        }
    }
    // Where this direction is lost, so is the word that it has ended: the other side has to find
    // out by itself.
    let last = connection.open.fetch_sub(1, Ordering::Relaxed) == 1;
    if last || connection.lost.load(Ordering::Relaxed) & direction == 0 {
        connection.end(state);
    }
}

impl Connection {
    fn end(&self, state: &State) {
        if self.over.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(since) = *self.lost_since.lock().unwrap() {
            state.noticed.lock().unwrap().push(since.elapsed());
        }
        self.ends
            .iter()
            .for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

/// Knows where in a frame a stream of bytes is.
#[derive(Default)]
struct Frames {
    /// The HTTP before the frames has passed.
    open: bool,
    /// It was no upgrade: blobs travel as plain HTTP.
    plain: bool,
    /// The beginning of a frame whose size is not known yet, or the end of the HTTP.
    head: Vec<u8>,
    /// Bytes of the present frame that are still to come.
    left: usize,
}

impl Frames {
    /// Lets bytes pass; a place in them that is inside a frame, if there is one.
    fn pass(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let (whole, mut inside) = (bytes.len(), None);
        if self.plain {
            return None;
        }
        while let Some((first, rest)) = bytes.split_first() {
            if self.open && self.left > 0 {
                let step = self.left.min(bytes.len());
                // The frame goes on behind this place, whatever follows.
                inside = inside.or((step > 1).then(|| whole - bytes.len() + step / 2));
                self.left -= step;
                bytes = &bytes[step..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            if !self.open {
                self.open = self.head.ends_with(b"\r\n\r\n");
                if self.open {
                    let text = String::from_utf8_lossy(&self.head).to_lowercase();
                    self.plain = !text.contains("upgrade: websocket");
                    self.head.clear();
                }
            } else if let Some((head, body)) = frame_size(&self.head) {
                self.left = (head + body).saturating_sub(self.head.len());
                self.head.clear();
            }
        }
        inside
    }
}

#[test]
fn a_place_inside_a_frame_is_found() {
    let mut stream = handshake("x", "").into_bytes();
    let http = stream.len();
    let (small, large) = (frame(1, b"0123456789"), frame(1, &[b'x'; 70_000]));
    stream.extend(small.iter().chain(&large).chain(&small));
    // However the stream is cut into parts, the place is never between two frames.
    let borders = [
        http,
        http + small.len(),
        http + small.len() + large.len(),
        stream.len(),
    ];
    for size in [1, 7, 100, 65_536, stream.len()] {
        let (mut frames, mut at) = (Frames::default(), 0);
        for part in stream.chunks(size) {
            if let Some(inside) = frames.pass(part) {
                assert!(
                    at + inside > http && !borders.contains(&(at + inside)),
                    "{size}: {}",
                    at + inside
                );
            }
            at += part.len();
        }
        assert!(frames.open && frames.left == 0 && frames.head.is_empty());
    }
}
