//! Against a master that is played by the test: a WebSocket server that says what the script says.

use super::*;
use crate::prepare::TaskResults;
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;
use taskmaster_protocol::message::{
    Announce, Assignment, Attempt, CreditRequest, FromMaster, Hello, LiveOutput, Offer, Query,
    Question, ResultRef, Role, ToMaster, Welcome,
};
use taskmaster_protocol::{
    AttemptId, ErrorKind, Hash, JobName, Json, ModuleKind, ModuleName, PROTOCOL_VERSION,
    RefusalCode, TaskId,
};
use taskmaster_transport::Address;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

const WITHIN: Duration = Duration::from_secs(20);

const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

const SPIN: &str = r#"(module (func (export "_start") (loop $l (br $l))))"#;

const BYTES: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 64) "\ff\fe")
  (func (export "_start") (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 2))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

struct Master {
    listener: TcpListener,
    _folder: TempDir,
    blobs: HashMap<String, Vec<u8>>,
    runner: JoinHandle<Result<(), RunnerError>>,
    stop: Option<oneshot::Sender<()>>,
}

struct Peer(tokio_tungstenite::WebSocketStream<TcpStream>);

impl Peer {
    async fn say(&mut self, message: FromMaster) {
        self.0.send(Message::text(message.encode())).await.unwrap();
    }

    async fn hear(&mut self) -> ToMaster {
        loop {
            let message = tokio::time::timeout(WITHIN, self.0.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            if let Message::Text(text) = message {
                return ToMaster::decode(&text).unwrap();
            }
        }
    }

    async fn request(&mut self) -> CreditRequest {
        let ToMaster::Request(request) = self.hear().await else {
            panic!("no request")
        };
        request
    }
}

impl Master {
    async fn start(slots: u32) -> Master {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let offer = Offer {
            name: "r".into(),
            slots,
            ..Offer::default()
        };
        let config = RunnerConfig {
            urls: vec![url],
            token: None,
            offer,
            grants: Default::default(),
            cache: folder.path().to_owned(),
            inputs_bytes: 1 << 30,
            compile_memory_mb: crate::compile::MEMORY_MB_DEFAULT,
            grace: Duration::from_millis(300),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let runner = tokio::spawn(serve(config, async { drop(stopped.await) }));
        let blobs = [ECHO, SPIN, BYTES].map(|text| {
            (
                Hash::of(text.as_bytes()).to_string(),
                text.as_bytes().to_vec(),
            )
        });
        Master {
            listener,
            _folder: folder,
            blobs: blobs.into(),
            runner,
            stop: Some(stop),
        }
    }

    /// Answers requests for blobs until a WebSocket comes, and greets that.
    async fn greet(&mut self) -> Peer {
        loop {
            let Some(stream) = self.answer().await else {
                continue;
            };
            let mut peer = Peer(tokio_tungstenite::accept_async(stream).await.unwrap());
            assert!(matches!(
                peer.hear().await,
                ToMaster::Hello(Hello {
                    role: Role::Runner,
                    runner: Some(_),
                    ..
                })
            ));
            let welcome = Welcome {
                protocol: PROTOCOL_VERSION,
                epoch: 1,
                seq: 0,
                message_bytes_max: 1 << 20,
                batch_tasks_max: 1,
                leader: None,
            };
            peer.say(FromMaster::Welcome(welcome)).await;
            return peer;
        }
    }

    /// Answers one request for a blob; a WebSocket comes back as it is.
    async fn answer(&mut self) -> Option<TcpStream> {
        let (mut stream, _) = tokio::time::timeout(WITHIN, self.listener.accept())
            .await
            .unwrap()
            .unwrap();
        let mut start = [0; 11];
        while stream.peek(&mut start).await.unwrap() < start.len() {}
        if !start.starts_with(b"GET /blobs/") && !start.starts_with(b"PUT /blobs/") {
            return Some(stream);
        }
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let text = String::from_utf8(request).unwrap().to_ascii_lowercase();
        let hash = text[11..75].to_owned();
        let length = text
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.unwrap();
        if text.starts_with("put") {
            self.blobs.insert(hash.clone(), body);
        }
        let blob = self.blobs.get(&hash).cloned().unwrap_or_default();
        let status = if self.blobs.contains_key(&hash) {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
            blob.len()
        );
        stream
            .write_all(&[head.as_bytes(), &blob].concat())
            .await
            .unwrap();
        None
    }

    async fn end(mut self) -> Result<(), RunnerError> {
        drop(self.stop.take());
        tokio::time::timeout(WITHIN, &mut self.runner)
            .await
            .unwrap()
            .unwrap()
    }
}

fn name(id: &str) -> Attempt {
    Attempt {
        id: TaskId::new(id).unwrap(),
        attempt: AttemptId { epoch: 1, n: 1 },
    }
}

fn send(id: &str, module: &str, params: &str) -> Assignment {
    let Attempt { id, attempt } = name(id);
    Assignment {
        id,
        attempt,
        module: ModuleName::new("m").unwrap(),
        version: Hash::of(module.as_bytes()),
        job: JobName::new("j").unwrap(),
        params: Json::parse(params).ok(),
        results: BTreeMap::new(),
        job_results: BTreeMap::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        inputs: BTreeMap::new(),
        outputs: None,
        timeout_ms: 10_000,
        memory_mb: 16,
        slots: 1,
        capabilities: None,
        is_cached: false,
    }
}

async fn results(peer: &mut Peer, count: usize) -> BTreeMap<String, ResultRef> {
    let mut results = BTreeMap::new();
    while results.len() < count {
        match peer.hear().await {
            ToMaster::Done(done) => results.extend(
                done.into_iter()
                    .map(|done| (done.id.to_string(), done.result)),
            ),
            ToMaster::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_done_acknowledged() {
    let mut master = Master::start(2).await;
    let mut peer = master.greet().await;
    assert_eq!(peer.request().await.held, Some(vec![]));
    let mut with_result = send("c", ECHO, r#"[{"$result":"x"},{"$result":"y"}]"#);
    with_result.results.insert(
        TaskId::new("x").unwrap(),
        ResultRef::Json(Json::parse("1.50").unwrap()),
    );
    peer.say(FromMaster::Send(vec![
        send("a", ECHO, "{\"n\":1}"),
        send("b", ECHO, "\"text\""),
        with_result,
    ]))
    .await;
    assert!(master.answer().await.is_none(), "one fetch for all");
    // The result that did not come along is asked for.
    let mut found = BTreeMap::new();
    while found.len() < 3 {
        match peer.hear().await {
            ToMaster::Done(done) => found.extend(
                done.into_iter()
                    .map(|done| (done.id.to_string(), done.result)),
            ),
            ToMaster::Ask(Question {
                reference,
                query: Query::Results { ids },
            }) => {
                let answer: TaskResults = ids
                    .into_iter()
                    .map(|id| (id, ResultRef::Json(Json::parse("\"y\"").unwrap())))
                    .collect();
                let answer = taskmaster_protocol::message::Answer {
                    reference,
                    data: Json::of(&answer),
                };
                peer.say(FromMaster::Answer(answer)).await;
            }
            ToMaster::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let expected = [("a", "{\"n\":1}"), ("b", "\"text\""), ("c", "[1.50,\"y\"]")];
    let expected =
        expected.map(|(id, text)| (id.to_owned(), ResultRef::Json(Json::parse(text).unwrap())));
    assert_eq!(found, expected.into());
    peer.say(FromMaster::Ack(vec![name("a"), name("b"), name("c")]))
        .await;
    master.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_put_before_the_result_is_told() {
    let mut master = Master::start(1).await;
    let mut peer = master.greet().await;
    peer.request().await;
    peer.say(FromMaster::Send(vec![send("a", BYTES, "")])).await;
    assert!(master.answer().await.is_none(), "the module");
    assert!(master.answer().await.is_none(), "the result");
    let hash = Hash::of(&[0xff, 0xfe]);
    assert_eq!(
        results(&mut peer, 1).await,
        [("a".to_owned(), ResultRef::Blob(hash))].into()
    );
    assert_eq!(master.blobs.get(&hash.to_string()), Some(&vec![0xff, 0xfe]));
    peer.say(FromMaster::Ack(vec![name("a")])).await;
    master.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_tells_what_is_held_and_delivers() {
    let mut master = Master::start(1).await;
    let mut peer = master.greet().await;
    peer.request().await;
    peer.say(FromMaster::Send(vec![
        send("a", ECHO, "1"),
        send("b", SPIN, ""),
        send("c", ECHO, "3"),
    ]))
    .await;
    master.answer().await;
    // The one that spins may get the slot first; wait until the other's result is known to be made,
    // or not.
    master.answer().await;
    drop(peer);
    let mut peer = master.greet().await;
    let held = peer.request().await.held.unwrap();
    assert_eq!(held.len(), 3, "{held:?}");
    peer.say(FromMaster::Cancel(vec![name("b")])).await;
    let mut done = 0;
    let mut cancelled = 0;
    while done < 2 || cancelled < 1 {
        match peer.hear().await {
            ToMaster::Done(more) => done += more.len(),
            ToMaster::Failed(failed) => {
                cancelled += failed
                    .iter()
                    .filter(|f| f.error.kind == ErrorKind::Cancelled)
                    .count()
            }
            ToMaster::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    peer.say(FromMaster::Ack(vec![name("a"), name("b"), name("c")]))
        .await;
    master.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recall_returns_what_has_not_begun_and_cancel_stops_the_rest() {
    let mut master = Master::start(1).await;
    let mut peer = master.greet().await;
    peer.request().await;
    peer.say(FromMaster::Send(vec![send("a", SPIN, "")])).await;
    master.answer().await;
    while !matches!(peer.hear().await, ToMaster::Started(_)) {}
    peer.say(FromMaster::Send(vec![send("b", SPIN, "")])).await;
    peer.say(FromMaster::Recall(vec![name("a"), name("b")]))
        .await;
    let ToMaster::Returned(returned) = peer.hear().await else {
        panic!()
    };
    assert_eq!(returned, [name("b")]);
    let began = Instant::now();
    peer.say(FromMaster::Cancel(vec![name("a")])).await;
    let ToMaster::Failed(failed) = peer.hear().await else {
        panic!()
    };
    assert_eq!(failed[0].error.kind, ErrorKind::Cancelled);
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
    peer.say(FromMaster::Ack(vec![name("a")])).await;
    master.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_runner_gives_back_what_outlasts_its_grace() {
    let mut master = Master::start(1).await;
    let mut peer = master.greet().await;
    peer.request().await;
    peer.say(FromMaster::Send(vec![send("a", SPIN, "")])).await;
    master.answer().await;
    while !matches!(peer.hear().await, ToMaster::Started(_)) {}
    drop(master.stop.take());
    assert!(peer.request().await.draining);
    let mut returned = Vec::new();
    while returned.is_empty() {
        if let ToMaster::Returned(more) = peer.hear().await {
            returned = more;
        }
    }
    assert_eq!(returned, [name("a")]);
    master.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_module_is_compiled_and_a_missing_one_named() {
    let mut master = Master::start(1).await;
    let mut peer = master.greet().await;
    peer.request().await;
    let announce = |text: &str| {
        let name = ModuleName::new("m").unwrap();
        FromMaster::Announce(vec![Announce {
            name,
            version: Hash::of(text.as_bytes()),
            kind: ModuleKind::Command,
            bytes: text.len() as u64,
        }])
    };
    peer.say(announce(ECHO)).await;
    master.answer().await;
    let ToMaster::Compiled(compiled) = peer.hear().await else {
        panic!()
    };
    assert!(compiled[0].error.is_none() && compiled[0].compile_us > 0);
    peer.say(announce("gone")).await;
    master.answer().await;
    let ToMaster::Compiled(compiled) = peer.hear().await else {
        panic!()
    };
    assert!(
        compiled[0].error.as_ref().unwrap().contains("404"),
        "{:?}",
        compiled[0]
    );
    master.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_runner_ends_with_the_reason() {
    let mut master = Master::start(1).await;
    let stream = master.answer().await.unwrap();
    let mut peer = Peer(tokio_tungstenite::accept_async(stream).await.unwrap());
    peer.hear().await;
    let error = taskmaster_protocol::Refusal::new(RefusalCode::Unauthorized, "the token is wrong");
    peer.say(FromMaster::Refused(taskmaster_protocol::message::Refused {
        reference: None,
        error,
    }))
    .await;
    let error = (&mut master.runner).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the token is wrong"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_says_is_heard_while_it_runs() {
    const TALK: &str = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 64) "hello\n::progress 0.5\n")
      (func (export "_start") (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 21))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (loop $l (br $l))))"#;
    let mut master = Master::start(1).await;
    master
        .blobs
        .insert(Hash::of(TALK.as_bytes()).to_string(), TALK.into());
    let mut peer = master.greet().await;
    peer.request().await;
    peer.say(FromMaster::Send(vec![send("a", TALK, "")])).await;
    master.answer().await;
    let mut log: Vec<LiveOutput> = Vec::new();
    let mut progress: Vec<LiveOutput> = Vec::new();
    while log.is_empty() || progress.is_empty() {
        match peer.hear().await {
            ToMaster::Log(more) => log.extend(more),
            ToMaster::Progress(more) => progress.extend(more),
            ToMaster::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log[0].data.get(), r#"{"text":"hello\n"}"#);
    assert_eq!(progress[0].data.get(), r#"{"fraction":0.5}"#);
    master.end().await.unwrap();
}
