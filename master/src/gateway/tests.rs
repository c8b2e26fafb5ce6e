//! Real sockets on this side, a fake engine on the other.

mod files;
mod http;
mod strangers;

use super::*;
use crate::modules::FolderConfig;
use crate::modules::scratch::{fake_engine, log_job_done};
use futures_util::{SinkExt, StreamExt};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_engine::components::Components;
use taskmaster_engine::inbox::{Input, Reply};
use taskmaster_protocol::message::{self, Added, Hello, Offer, Role};
use taskmaster_protocol::shape::JobView;
use taskmaster_protocol::{
    EventKind, EventView, FromMaster, Hash, Json, Refusal, RefusalCode, TaskId, ToMaster, Wall,
    limits,
};
use taskmaster_transport::{Address, BlobClient as Remote, DialError, Socket, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as Frame;

const SOUND: &str = r#"(module (func (export "_start")))"#;

struct World {
    scratch: tempfile::TempDir,
    address: Address,
    handle: MasterHandle,
    inputs: Mutex<Receiver<Input>>,
    blobs: Blobs,
    stop: flag::Sender<bool>,
}

impl World {
    async fn new(token: Option<&str>) -> World {
        let scratch = tempfile::tempdir().unwrap();
        let (handle, inputs) = fake_engine();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let folder = crate::modules::start(FolderConfig {
            path: &scratch.path().join("tasks"),
            blobs: blobs.clone(),
            handle: handle.clone(),
            known: Vec::new(),
            require_approved: false,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let (stop, stopping) = flag::channel(false);
        let config = GatewayConfig {
            handle: handle.clone(),
            folder,
            interfaces: Interfaces::new(Components::default(), blobs.clone()),
            token: token.map(str::to_owned),
            stop: stopping,
        };
        tokio::spawn(serve(listener, config));
        World {
            scratch,
            address,
            handle,
            inputs: Mutex::new(inputs),
            blobs,
            stop,
        }
    }

    async fn client(&self) -> Socket {
        dial(&self.address, hello(Role::Client)).await.unwrap().0
    }

    /// The next thing that the engine is told within a time; room that was kept for a batch is
    /// given back.
    fn input_within(&self, time: Duration) -> Option<Input> {
        let inputs = self.inputs.lock().unwrap();
        let next = || inputs.recv_timeout(time).ok();
        tokio::task::block_in_place(|| {
            std::iter::from_fn(next).find(|input| !matches!(input, Input::Permit(_)))
        })
    }

    fn input(&self) -> Input {
        self.input_within(Duration::from_secs(20))
            .expect("something is told within 20 s")
    }

    fn outbox(&self) -> taskmaster_engine::inbox::Outbox {
        match self.input() {
            Input::Connected { outbox, .. } => outbox,
            other => panic!("{other:?}"),
        }
    }

    /// A whole HTTP exchange, as text.
    async fn http(&self, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.address.authority())
            .await
            .unwrap();
        stream
            .write_all(request.replace('\n', "\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        let host = self.address.authority();
        self.http(&format!(
            "GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n{headers}\n"
        ))
        .await
    }
}

fn hello(role: Role) -> Hello {
    let runner = (role == Role::Runner).then(|| Offer {
        name: "r".into(),
        slots: 1,
        ..Offer::default()
    });
    Hello {
        role,
        protocol: taskmaster_protocol::PROTOCOL_VERSION,
        token: None,
        session: None,
        runner,
    }
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Frame::text(text)).await.unwrap();
}

/// The next message that is no ping.
async fn hear(socket: &mut Socket) -> FromMaster {
    loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next())
            .await
            .expect("nothing in 20 s")
            .unwrap()
            .unwrap()
        {
            Frame::Text(text) => return FromMaster::decode(&text).unwrap(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn refusal(socket: &mut Socket) -> (Option<u64>, Refusal) {
    match hear(socket).await {
        FromMaster::Refused(refused) => (refused.reference, refused.error),
        other => panic!("{other:?}"),
    }
}

fn added(batch: u64) -> FromMaster {
    FromMaster::Added(Added {
        batch,
        ids: Vec::new(),
        known: Vec::new(),
        ended: Vec::new(),
    })
}

fn live(kind: EventKind) -> EventView {
    EventView {
        seq: None,
        time: Wall(0),
        event: kind,
        task: None,
        module: None,
        job: None,
        runner: None,
        data: Json::null(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_with_hello_and_ends_once() {
    let world = World::new(None).await;
    let (mut socket, welcome) = dial(&world.address, hello(Role::Client)).await.unwrap();
    assert_eq!(
        (welcome.epoch, welcome.protocol),
        (7, taskmaster_protocol::PROTOCOL_VERSION)
    );
    let outbox = world.outbox();
    outbox.send(added(1)).unwrap();
    assert_eq!(hear(&mut socket).await, added(1));
    socket.close(None).await.unwrap();
    assert!(matches!(world.input(), Input::Disconnected { .. }));
    drop(socket);
    let mut another = world.client().await;
    let _outbox = world.outbox();
    another
        .send(Frame::text(r#"{"event":"job:release","data":{"job":"j"}}"#))
        .await
        .unwrap();
    assert!(
        matches!(
            world.input(),
            Input::Message {
                message: ToMaster::Release(_),
                ..
            }
        ),
        "ended twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_no_right_hello_is_refused_with_the_reason() {
    let world = World::new(None).await;
    let old = Hello {
        protocol: 99,
        ..hello(Role::Client)
    };
    let nothing = Hello {
        runner: None,
        ..hello(Role::Runner)
    };
    let spoken = format!("speaks {}", taskmaster_protocol::PROTOCOL_VERSION);
    for (hello, code, words) in [
        (
            old,
            RefusalCode::ProtocolVersion,
            &["version 99", &spoken, "upgrade the master"][..],
        ),
        (nothing, RefusalCode::MissingField, &["`runner`"]),
    ] {
        let Err(DialError::Refused { refusal, .. }) = dial(&world.address, hello).await else {
            panic!()
        };
        assert_eq!(refusal.code, code);
        assert!(
            words.iter().all(|word| refusal.message.contains(word)),
            "{refusal}"
        );
    }
    for (first, code) in [
        (
            Frame::text(r#"{"event":"query","data":{"ref":1,"what":"jobs"}}"#),
            RefusalCode::NotAllowed,
        ),
        (Frame::text("hello"), RefusalCode::MalformedJson),
        (Frame::binary(vec![1]), RefusalCode::MalformedJson),
    ] {
        let url = format!("{}/", world.address);
        let stream = tokio::net::TcpStream::connect(world.address.authority())
            .await
            .unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        socket.send(first).await.unwrap();
        assert_eq!(refusal(&mut socket).await.1.code, code);
        assert!(matches!(socket.next().await, Some(Ok(Frame::Close(_)))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_wanted_in_hello_and_over_http() {
    let world = World::new(Some("secret")).await;
    for token in [None, Some("wrong".to_owned())] {
        let hello = Hello {
            token,
            ..hello(Role::Client)
        };
        let Err(DialError::Refused { refusal, .. }) = dial(&world.address, hello).await else {
            panic!()
        };
        assert_eq!(refusal.code, RefusalCode::Unauthorized);
    }
    dial(
        &world.address,
        Hello {
            token: Some("secret".into()),
            ..hello(Role::Client)
        },
    )
    .await
    .unwrap();
    assert!(world.get("/api/jobs", "").await.starts_with("HTTP/1.1 401"));
    assert!(
        world
            .get("/blobs/x", "Authorization: Bearer wrong\n")
            .await
            .starts_with("HTTP/1.1 401")
    );
    assert!(
        world
            .get("/blobs/x", "Authorization: Bearer secret\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(world.get("/health", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_are_kept_out() {
    let world = World::new(None).await;
    assert!(
        world
            .get("/", "Origin: http://evil.example\n")
            .await
            .starts_with("HTTP/1.1 403")
    );
    let upgrade = concat!(
        "Origin: http://evil.example\nConnection: Upgrade\nUpgrade: websocket\n",
        "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n",
    );
    let host = world.address.authority();
    let answer = world
        .http(&format!(
            "GET / HTTP/1.1\nHost: {host}\n{upgrade}Connection: close\n\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(
        world
            .get("/", &format!("Origin: http://{host}\n"))
            .await
            .contains("This is a Taskmaster master")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_is_answered_and_the_session_goes_on() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    for (text, reference, code, words) in [
        ("{", None, RefusalCode::MalformedJson, "not JSON"),
        (
            r#"{"event":"task:ad","data":{}}"#,
            None,
            RefusalCode::UnknownEvent,
            "`task:add`",
        ),
        (
            r#"{"event":"query","data":{"ref":5,"what":"nothing"}}"#,
            Some(5),
            RefusalCode::InvalidValue,
            "nothing",
        ),
        (
            r#"{"event":"task:done","data":[]}"#,
            None,
            RefusalCode::NotAllowed,
            "for a runner to say",
        ),
        (
            r#"{"event":"task:follow","data":{}}"#,
            None,
            RefusalCode::MissingField,
            "neither",
        ),
        (
            r#"{"event":"watch","data":{"filter":{"events":["task:dnoe"]}}}"#,
            None,
            RefusalCode::InvalidValue,
            "`task:done`",
        ),
        (
            r#"{"event":"hello","data":{"role":"client","protocol":1}}"#,
            None,
            RefusalCode::NotAllowed,
            "already",
        ),
    ] {
        say(&mut socket, text).await;
        let (is, refusal) = refusal(&mut socket).await;
        assert_eq!((is, refusal.code), (reference, code), "{text}: {refusal}");
        assert!(refusal.message.contains(words), "{text}: {refusal}");
    }
    socket.send(Frame::binary(vec![1, 2, 3])).await.unwrap();
    assert!(refusal(&mut socket).await.1.message.contains("binary"));
    let (mut runner, _) = dial(&world.address, hello(Role::Runner)).await.unwrap();
    let _outbox = world.outbox();
    say(
        &mut runner,
        r#"{"event":"task:add","data":{"batch":1,"tasks":[]}}"#,
    )
    .await;
    assert_eq!(refusal(&mut runner).await.1.code, RefusalCode::NotAllowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_ends_the_session_with_1009() {
    let world = World::new(None).await;
    let socket = world.client().await;
    let _outbox = world.outbox();
    let (mut sink, mut stream) = socket.split();
    let large = "x".repeat(limits::MESSAGE_BYTES_MAX + 1);
    let sending = tokio::spawn(async move {
        let _ = sink.send(Frame::text(large)).await;
    });
    let frame = loop {
        match stream.next().await {
            Some(Ok(Frame::Close(frame))) => break frame.unwrap(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(frame.code), 1009, "{frame:?}");
    assert!(frame.reason.contains("at most 33554432 bytes"));
    sending.abort();
    assert!(matches!(world.input(), Input::Disconnected { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_are_parsed_and_their_modules_found_at_once() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    // Written the moment before it is used: nobody has told the engine yet.
    std::fs::write(world.scratch.path().join("tasks").join("echo.wat"), SOUND).unwrap();
    say(
        &mut socket,
        r#"{"event":"task:add","data":{"batch":3,"job":"j","hold":true,"tasks":[
            {"module":"echo","params":1},{"module":"eco"},{"module":"echo","prams":1}]}}"#,
    )
    .await;
    let tasks = loop {
        match world.input() {
            Input::Module { known, .. } => drop(known),
            Input::Add {
                batch, hold, tasks, ..
            } => {
                assert_eq!((batch, hold), (3, true));
                break tasks;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(tasks[0].is_ok());
    assert!(
        tasks[1].is_ok(),
        "whether the module or the task is known is the engine's to say"
    );
    assert_eq!(
        tasks[2].as_ref().unwrap_err().code,
        RefusalCode::UnknownField
    );
    let many = vec![r#"{"module":"echo"}"#; limits::BATCH_TASKS_MAX + 1].join(",");
    say(
        &mut socket,
        &format!(r#"{{"event":"task:add","data":{{"batch":4,"tasks":[{many}]}}}}"#),
    )
    .await;
    assert_eq!(refusal(&mut socket).await.1.code, RefusalCode::TooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_told_together_with_the_tasks_that_it_adds() {
    let world = World::new(None).await;
    let (mut runner, _) = dial(&world.address, hello(Role::Runner)).await.unwrap();
    let _outbox = world.outbox();
    let json = |text: &str| Json::parse(text).unwrap();
    let done = |id: &str| message::Done {
        id: TaskId::new(id).unwrap(),
        attempt: (1, 1).into(),
        result: message::ResultRef::Json(Json::null()),
        outputs: Default::default(),
        started_us: 0,
        stats: Default::default(),
        cache_s: None,
        log: Default::default(),
        adds: Vec::new(),
        then: None,
    };
    let adds = message::Done {
        adds: vec![
            json(r#"{"module":"m"}"#),
            json(r#"{"module":"m","prioty":1}"#),
        ],
        then: Some(json(r#"{"module":"m","priority":3}"#)),
        ..done("a")
    };
    say(&mut runner, &ToMaster::Done(vec![adds, done("b")]).encode()).await;
    let reports = loop {
        match world.input() {
            Input::Module { known, .. } => drop(known),
            Input::Reports { reports, .. } => break reports,
            other => panic!("{other:?}"),
        }
    };
    let ids: Vec<&str> = reports
        .iter()
        .map(|report| report.done.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let follow_ups = reports[0].follow_ups.as_ref().unwrap();
    let added: Vec<bool> = follow_ups.adds.iter().map(|add| add.task.is_ok()).collect();
    assert_eq!(added, [true, false]);
    assert!(follow_ups.then.as_ref().unwrap().has_priority);
    assert!(reports[1].follow_ups.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feeder_that_outruns_the_master_is_not_read() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let outbox = world.outbox();
    let most = limits::BATCHES_IN_FLIGHT_MAX as u64;
    for batch in 1..=most + 2 {
        say(
            &mut socket,
            &format!(r#"{{"event":"task:add","data":{{"batch":{batch},"tasks":[]}}}}"#),
        )
        .await;
    }
    for wanted in 1..=most {
        assert!(matches!(world.input(), Input::Add { batch, .. } if batch == wanted));
    }
    let quiet = world.input_within(Duration::from_millis(300));
    assert!(quiet.is_none(), "read on: {quiet:?}");
    for batch in 1..=2 {
        outbox.send(added(batch)).unwrap();
        assert_eq!(hear(&mut socket).await, added(batch));
        assert!(matches!(world.input(), Input::Add { batch: next, .. } if next == most + batch));
    }
}

fn jobs(rows: Vec<JobView>, next: Option<&str>) -> QueryAnswer {
    QueryAnswer::Jobs(message::Page {
        rows,
        next: next.map(str::to_owned),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_by_their_ref() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    say(
        &mut socket,
        r#"{"event":"query","data":{"ref":9,"what":"jobs"}}"#,
    )
    .await;
    let Input::Ask { reply, .. } = world.input() else {
        panic!()
    };
    let job: JobView = serde_json::from_str(JOB).unwrap();
    reply.send(Reply::Answer(jobs(vec![job], None))).unwrap();
    let FromMaster::Answer(answer) = hear(&mut socket).await else {
        panic!()
    };
    assert_eq!(
        (answer.reference, answer.data.get()),
        (9, format!(r#"{{"rows":[{JOB}],"next":null}}"#).as_str())
    );
    say(
        &mut socket,
        r#"{"event":"query","data":{"ref":10,"what":"job","job":"j"}}"#,
    )
    .await;
    let Input::Ask { reply, .. } = world.input() else {
        panic!()
    };
    reply
        .send(Reply::Refused(Refusal::new(
            RefusalCode::UnknownJob,
            "no job `j`",
        )))
        .unwrap();
    assert_eq!(refusal(&mut socket).await.0, Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_what_was_and_what_is() {
    let world = World::new(None).await;
    for run in 1..=3 {
        log_job_done(&world.handle, "j", run);
    }
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    say(
        &mut socket,
        r#"{"event":"watch","data":{"since":1,"filter":{"events":["job","task:log"]}}}"#,
    )
    .await;
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        let FromMaster::Events(events) = hear(&mut socket).await else {
            panic!()
        };
        seqs.extend(events.iter().map(|event| event.seq));
    }
    assert_eq!(seqs, [Some(2), Some(3)]);
    world.handle.events.show(live(EventKind::TaskProgress));
    world.handle.events.show(live(EventKind::TaskLog));
    let FromMaster::Events(events) = hear(&mut socket).await else {
        panic!()
    };
    assert_eq!(events, [live(EventKind::TaskLog)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_who_only_listens_is_pinged_while_events_never_stop() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    say(&mut socket, r#"{"event":"watch","data":{}}"#).await;
    let events = world.handle.events.clone();
    let speaking = tokio::spawn(async move {
        loop {
            events.show(live(EventKind::TaskReady));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let began = std::time::Instant::now();
    let mut heard = 0;
    while !matches!(socket.next().await.unwrap().unwrap(), Frame::Ping(_)) {
        heard += 1;
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no ping among {heard} messages"
        );
    }
    assert!(heard > 3, "{heard} messages are no stream");
    speaking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_job_hears_of_its_end_and_of_no_other() {
    let world = World::new(None).await;
    log_job_done(&world.handle, "mine", 1);
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    say(
        &mut socket,
        r#"{"event":"task:follow","data":{"job":"mine","since":0}}"#,
    )
    .await;
    let FromMaster::Final(told) = hear(&mut socket).await else {
        panic!()
    };
    assert_eq!((told.seq, told.job_done), (Some(1), Some(1)));
    log_job_done(&world.handle, "other", 1);
    log_job_done(&world.handle, "mine", 2);
    let FromMaster::Final(told) = hear(&mut socket).await else {
        panic!()
    };
    assert_eq!((told.seq, told.job_done), (Some(3), Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_ids_hears_of_what_has_ended_and_of_what_nobody_knows() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    say(
        &mut socket,
        r#"{"event":"task:follow","data":{"ids":["ended","ghost"]}}"#,
    )
    .await;
    for _ in 0..2 {
        let Input::Ask {
            query: message::Query::Task { id },
            reply,
        } = world.input()
        else {
            panic!()
        };
        reply
            .send(match id.as_str() {
                "ended" => Reply::Answer(QueryAnswer::Task(serde_json::from_str(ENDED).unwrap())),
                _ => Reply::Refused(Refusal::new(RefusalCode::UnknownTask, "no task `ghost`")),
            })
            .unwrap();
    }
    let mut finals = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..2 {
        match hear(&mut socket).await {
            FromMaster::Final(told) => finals.extend(told.tasks),
            FromMaster::Refused(told) => refused.extend(told.error.ids),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (finals[0].id.as_str(), refused[0].as_str()),
        ("ended", "ghost")
    );
}

/// A job as the engine answers with it and clients see it.
const JOB: &str = r#"{"job":"j","run":1,"open":true,"paused":false,"total":2,"blocked":0,"delayed":0,"ready":2,"assigned":0,"done":0,"failed":0,"cancelled":0,"skipped":0}"#;

const ENDED: &str = r#"{"id":"ended","module":"m","version":null,"state":"done","job":"j","priority":0,"attempt":1,
    "runner":null,"created":"2026-01-01T00:00:00.000000Z","started":null,"finished":"2026-01-01T00:00:00.000000Z",
    "result":1,"result_blob":null,"error":null,"outputs":{},"stats":null}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_closes_every_session() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    world.stop.send(true).unwrap();
    let Some(Ok(Frame::Close(Some(frame)))) = socket.next().await else {
        panic!()
    };
    assert_eq!(u16::from(frame.code), 1001);
    assert!(matches!(world.input(), Input::Disconnected { .. }));
}
