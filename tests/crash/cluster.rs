//! The processes: one master on a port that it keeps, several runners, and what is done to them.

use crate::proxy::Proxy;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::chance::Chance;
use taskmaster_harness::wat::{SLEEP, echo, flaky};
use taskmaster_harness::{Folder, PATIENCE, Process};

/// A runner's place: the process in it dies, the place stays.
struct Place {
    name: String,
    process: Process,
    lives: u32,
    by_proxy: bool,
    /// It is stopped until then.
    paused: Option<Instant>,
}

pub struct Cluster {
    pub folder: Folder,
    pub url: String,
    more: &'static [&'static str],
    pub proxy: Proxy,
    pub master: Process,
    places: Vec<Place>,
    /// Of the master: how many there were.
    pub starts: u32,
}

/// A port that the system gives to nobody by itself: with one of its own range, a client that dials
/// while the master is away is now and then connected to itself, and keeps the master from its
/// port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let port =
            10_000 + ((std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn launch(folder: &Folder, url: &str, more: &[&str]) -> Process {
    let listen = url.trim_start_matches("ws://");
    let args = [
        "master", "--listen", listen, "--data", "data", "--tasks", "tasks",
    ];
    Process::start(folder, &[&args, more].concat(), &[])
}

impl Cluster {
    /// A master and this many runners; the last of them behind the proxy.
    pub fn new(runners: usize) -> Cluster {
        Cluster::with(runners, &[])
    }

    /// The same, with more arguments of the master.
    pub fn with(runners: usize, more: &'static [&'static str]) -> Cluster {
        let folder = Folder::new();
        fs::create_dir(folder.join("tasks")).unwrap();
        for (name, text) in [
            ("echo.wat", echo()),
            ("flaky.wat", flaky()),
            ("sleep.wat", SLEEP.to_owned()),
        ] {
            folder.write(&format!("tasks/{name}"), text);
        }
        let url = format!("ws://127.0.0.1:{}", free_port());
        let (master, proxy) = (launch(&folder, &url, more), Proxy::before(&url));
        let mut cluster = Cluster {
            folder,
            url,
            more,
            proxy,
            master,
            places: Vec::new(),
            starts: 1,
        };
        for index in 0..runners {
            let (name, by_proxy) = (format!("r{index}-0"), index + 1 == runners);
            let process = cluster.launch_runner(&name, by_proxy);
            cluster.places.push(Place {
                name,
                process,
                lives: 1,
                by_proxy,
                paused: None,
            });
        }
        cluster
    }

    fn launch_runner(&self, name: &str, by_proxy: bool) -> Process {
        let url = if by_proxy { &self.proxy.url } else { &self.url };
        let args = [
            "runner",
            "--name",
            name,
            "--slots",
            "4",
            "--cache",
            "runner-cache",
        ];
        Process::start(&self.folder, &args, &[("TASKMASTER_URL", url)])
    }

    pub fn kill_master(&mut self) {
        self.check_master();
        self.master.kill();
    }

    pub fn start_master(&mut self) {
        self.master = launch(&self.folder, &self.url, self.more);
        self.starts += 1;
    }

    /// A master ends when it is killed, and never by itself.
    pub fn check_master(&mut self) {
        assert!(
            !self.master.has_ended(),
            "start {} of the master has ended by itself: {}",
            self.starts,
            self.master.said()
        );
    }

    /// A runner that is not paused.
    pub fn some_runner(&self, chance: &mut Chance) -> usize {
        let awake: Vec<usize> = (0..self.places.len())
            .filter(|place| self.places[*place].paused.is_none())
            .collect();
        *chance.of(&awake).unwrap()
    }

    pub fn kill_runner(&mut self, place: usize) -> String {
        let place = &mut self.places[place];
        assert!(
            !place.process.has_ended(),
            "{} has ended by itself: {}",
            place.name,
            place.process.said()
        );
        place.process.kill();
        place.name.clone()
    }

    /// In the place of one that is dead: mostly as somebody new, at times under the old name.
    pub fn start_runner(&mut self, place: usize, chance: &mut Chance) {
        let lives = self.places[place].lives;
        if !chance.permille(250) {
            self.places[place].name = format!("r{place}-{lives}");
        }
        let process = self.launch_runner(&self.places[place].name, self.places[place].by_proxy);
        let place = &mut self.places[place];
        (place.process, place.lives) = (process, lives + 1);
    }

    pub fn pause_runner(&mut self, place: usize, time: Duration) -> String {
        let place = &mut self.places[place];
        place.process.signal("STOP");
        place.paused = Some(Instant::now() + time);
        place.name.clone()
    }

    pub fn has_paused(&self) -> bool {
        self.places.iter().any(|place| place.paused.is_some())
    }

    /// Wakes runners whose pause is over.
    pub fn wake_runners(&mut self) {
        for place in &mut self.places {
            if place.paused.is_some_and(|until| until <= Instant::now()) {
                place.process.signal("CONT");
                place.paused = None;
            }
        }
    }

    /// Waits until the master says that it is ready, whatever came before.
    pub fn wait_ready(&mut self) {
        let began = Instant::now();
        while !self.master.said().contains("listening on ws://") {
            self.check_master();
            assert!(
                began.elapsed() < PATIENCE,
                "the master does not get ready: {}",
                self.master.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the master says of a job.
    pub fn job(&self, name: &str) -> Value {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("ws://")).unwrap();
        write!(
            stream,
            "GET /api/jobs/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}
