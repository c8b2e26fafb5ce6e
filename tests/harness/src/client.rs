//! A client that expects to be cut off: every call may fail, and nothing of it is shared with the
//! product's own.

use crate::socket::{frame, handshake};
use serde_json::{Value, json};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a peer that should answer may take: a master that is stopped still has its connections
/// taken by the kernel.
const ANSWER: Duration = Duration::from_secs(5);

/// A master that says nothing for this long, not even `ping`, is gone.
const SILENT: Duration = Duration::from_millis(9_500);

pub struct Client {
    stream: TcpStream,
    /// What came and is no whole frame yet.
    came: Vec<u8>,
    heard: Instant,
    /// What the master said of itself.
    pub welcome: Value,
}

impl Client {
    /// Connects, and says hello; `session` is the same across the reconnects of one client.
    pub fn dial(url: &str, session: Option<&str>) -> Result<Client, Error> {
        let host = url.trim_start_matches("ws://");
        let address: SocketAddr = host
            .parse()
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SILENT))?;
        stream.write_all(handshake(host, "").as_bytes())?;
        let mut client = Client {
            stream,
            came: Vec::new(),
            heard: Instant::now(),
            welcome: Value::Null,
        };
        let end = client.wait(|came| {
            came.windows(4)
                .position(|four| four == b"\r\n\r\n")
                .map(|at| at + 4)
        })?;
        let answer: Vec<u8> = client.came.drain(..end).collect();
        if !answer.starts_with(b"HTTP/1.1 101") {
            return Err(Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        client.say(
            "hello",
            json!({"role": "client", "protocol": 1, "session": session}),
        )?;
        let deadline = Instant::now() + ANSWER;
        while client.welcome.is_null() {
            match client.hear(ANSWER)? {
                Some(mut message) if message["event"] == "welcome" => {
                    client.welcome = message["data"].take()
                }
                Some(other) => return Err(Error::other(other.to_string())),
                None if Instant::now() > deadline => return Err(ErrorKind::TimedOut.into()),
                None => {}
            }
        }
        Ok(client)
    }

    fn wait(&mut self, whole: impl Fn(&[u8]) -> Option<usize>) -> Result<usize, Error> {
        let deadline = Instant::now() + ANSWER;
        loop {
            if let Some(end) = whole(&self.came) {
                return Ok(end);
            }
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            self.receive(ANSWER)?;
        }
    }

    pub fn say(&mut self, event: &str, data: Value) -> Result<(), Error> {
        let text = json!({"event": event, "data": data}).to_string();
        self.stream.write_all(&frame(1, text.as_bytes()))
    }

    /// The next message; `None` where none comes in this time. After an error the connection is of
    /// no more use.
    pub fn hear(&mut self, wait: Duration) -> Result<Option<Value>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            while let Some((opcode, body)) = self.next_frame() {
                match opcode {
                    1 => {
                        return serde_json::from_slice(&body)
                            .map(Some)
                            .map_err(Error::other);
                    }
                    8 => {
                        return Err(Error::other(format!(
                            "closed: {}",
                            String::from_utf8_lossy(&body)
                        )));
                    }
                    9 => self.stream.write_all(&frame(10, &body))?,
                    _ => {}
                }
            }
            if self.heard.elapsed() > SILENT {
                return Err(ErrorKind::TimedOut.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.receive(left)?;
        }
    }

    fn receive(&mut self, wait: Duration) -> Result<(), Error> {
        self.stream
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut part = [0; 65_536];
        match self.stream.read(&mut part) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.came.extend_from_slice(&part[..length]);
                self.heard = Instant::now();
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, body) = frame_size(&self.came)?;
        let whole = self.came.get(..head + body)?;
        let found = (whole[0] & 15, whole[head..].to_vec());
        self.came.drain(..head + body);
        Some(found)
    }
}

/// Bytes of the head and of the body of the frame that `bytes` begin with, masked or not; `None`:
/// too few are there.
pub fn frame_size(bytes: &[u8]) -> Option<(usize, usize)> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    match second & 0x7f {
        126 => Some((
            4 + mask,
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        )),
        127 => Some((
            10 + mask,
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
        )),
        length => Some((2 + mask, usize::from(length))),
    }
}
