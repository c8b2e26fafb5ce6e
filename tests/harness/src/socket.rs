//! A WebSocket client of a few lines, which can also say what a proper one would not.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Socket(TcpStream);

/// What came.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Text(Value),
    /// The close code and its reason.
    Closed(u16, String),
    Ended,
}

/// A client's frame; the mask is all zero, so the bytes go as they are.
pub fn frame(opcode: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match bytes.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(bytes);
    frame
}

/// What opens a WebSocket; `headers` end with a line break each.
pub fn handshake(host: &str, headers: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

impl Socket {
    /// Connects and shakes hands, without a `hello`.
    pub fn connect(url: &str) -> Socket {
        Socket::with_headers(url, "").unwrap_or_else(|answer| panic!("{answer}"))
    }

    /// Connects with more headers; the answer where it is not an upgrade.
    pub fn with_headers(url: &str, headers: &str) -> Result<Socket, String> {
        let host = url.trim_start_matches("ws://");
        let mut stream = TcpStream::connect(host).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
            .write_all(handshake(host, headers).as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.starts_with("HTTP/1.1 101") {
            Ok(Socket(stream))
        } else {
            Err(answer)
        }
    }

    /// Connected, and known as a client.
    pub fn client(url: &str) -> Socket {
        let mut socket = Socket::connect(url);
        socket.text(r#"{"event":"hello","data":{"role":"client","protocol":1}}"#);
        match socket.hear() {
            Heard::Text(welcome) if welcome["event"] == "welcome" => socket,
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Connected, known as a runner of one slot, and ready for work.
    pub fn runner(url: &str, name: &str) -> Socket {
        let mut socket = Socket::connect(url);
        let hello = serde_json::json!({"event": "hello", "data": {"role": "runner", "protocol": 1,
            "session": name, "runner": {"name": name, "slots": 1}}});
        socket.text(&hello.to_string());
        assert!(matches!(socket.hear(), Heard::Text(welcome) if welcome["event"] == "welcome"));
        socket.text(r#"{"event":"task:request","data":{"credits":1,"held":[]}}"#);
        socket
    }

    /// The data of the next message of this event; others are passed over.
    #[track_caller]
    pub fn wait(&mut self, event: &str) -> Value {
        loop {
            match self.hear() {
                Heard::Text(text) if text["event"] == event => return text["data"].clone(),
                Heard::Text(_) => {}
                other => panic!("no {event} but {other:?}"),
            }
        }
    }

    pub fn text(&mut self, text: &str) {
        self.frame(1, text.as_bytes()).unwrap();
    }

    /// Sends one frame.
    pub fn frame(&mut self, opcode: u8, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&frame(opcode, bytes))
    }

    /// The head of a frame of `length` bytes, and its first ones.
    pub fn part(&mut self, opcode: u8, length: u64, bytes: &[u8]) {
        let mut head = vec![0x80 | opcode, 0x80 | 127];
        head.extend(length.to_be_bytes());
        head.extend([0; 4]);
        self.0
            .write_all(&head)
            .and_then(|()| self.0.write_all(bytes))
            .unwrap();
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// How long a write may take before it fails.
    pub fn patience(&mut self, time: Duration) {
        self.0.set_write_timeout(Some(time)).unwrap();
    }

    /// The next message, if something comes in this time.
    pub fn hear_within(&mut self, time: Duration) -> Option<Heard> {
        self.comes_within(time).then(|| self.hear())
    }

    /// Whether something comes in this time, be it the end.
    pub fn comes_within(&mut self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).unwrap();
        let came = self.0.peek(&mut [0]);
        self.0
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        !came.is_err_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        })
    }

    /// The next frame: its opcode and its bytes, as they came.
    pub fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let length = match head[1] & 127 {
            126 => u64::from(u16::from_be_bytes(self.bytes()?)),
            127 => u64::from_be_bytes(self.bytes()?),
            n => u64::from(n),
        };
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).ok()?;
        Some((head[0] & 15, body))
    }

    /// The next message that is no ping.
    pub fn hear(&mut self) -> Heard {
        loop {
            let Some((opcode, body)) = self.next_frame() else {
                return Heard::Ended;
            };
            match opcode {
                1 => return Heard::Text(serde_json::from_slice(&body).unwrap()),
                8 if body.len() >= 2 => {
                    let reason = String::from_utf8_lossy(&body[2..]).into_owned();
                    return Heard::Closed(u16::from_be_bytes([body[0], body[1]]), reason);
                }
                8 => return Heard::Closed(0, String::new()),
                _ => {}
            }
        }
    }

    /// The next message, which must be a refusal; its error.
    #[track_caller]
    pub fn refusal(&mut self) -> Value {
        match self.hear() {
            Heard::Text(text) if text["event"] == "refused" => text["data"]["error"].clone(),
            other => panic!("no refusal but {other:?}"),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}
