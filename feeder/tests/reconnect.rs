//! A client against a master that hangs up: the session goes on, batches come again as they were,
//! and nothing counts twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics, in its fakes too"
)]

use futures_util::{SinkExt, StreamExt};
use std::sync::{Arc, Mutex};
use taskmaster_feeder::cli::FeedOptions;
use taskmaster_feeder::{ClientCommand, GlobalOptions, exit};
use taskmaster_protocol::message::{
    Added, Answer, Query, Rejected, Rejection, TasksEnded, Welcome,
};
use taskmaster_protocol::shape::{JobView, TaskState, TaskView};
use taskmaster_protocol::{
    FromMaster, JobName, Json, ModuleName, Refusal, RefusalCode, TaskId, ToMaster, Wall,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// What the fake master saw: one list per connection, the texts as they came.
type Seen = Arc<Mutex<Vec<Vec<String>>>>;

/// What the fake master does with a message. `None`: it hangs up.
type Behaviour = fn(connection: usize, message: &ToMaster) -> Option<Vec<FromMaster>>;

/// Starts a master with that behaviour and gives its address.
async fn master(behaviour: Behaviour) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let told = seen.clone();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            told.lock().unwrap().push(Vec::new());
            serve(stream, connection, behaviour, &told).await;
        }
    });
    (url, seen)
}

async fn serve(stream: TcpStream, connection: usize, behaviour: Behaviour, seen: &Seen) {
    let mut socket: WebSocketStream<TcpStream> =
        tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        seen.lock().unwrap()[connection].push(text.to_string());
        let answers = match ToMaster::decode(&text).unwrap() {
            ToMaster::Hello(_) => Some(vec![FromMaster::Welcome(welcome())]),
            message => behaviour(connection, &message),
        };
        let Some(answers) = answers else { return };
        // By then the client has sent everything, so what it was told before is not lost when the
        // connection breaks.
        let is_last = connection == 0
            && answers
                .iter()
                .any(|answer| matches!(answer, FromMaster::Answer(_)));
        for answer in answers {
            if socket.send(Message::text(answer.encode())).await.is_err() {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}

fn welcome() -> Welcome {
    Welcome {
        protocol: 1,
        epoch: 1,
        seq: 7,
        message_bytes_max: 1 << 20,
        batch_tasks_max: 2,
        leader: None,
    }
}

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn ids_of(tasks: &[Json]) -> Vec<TaskId> {
    tasks
        .iter()
        .map(|task| {
            id(task.read::<serde_json::Value>().unwrap()["id"]
                .as_str()
                .unwrap())
        })
        .collect()
}

fn ended(name: &str, state: TaskState) -> TaskView {
    TaskView {
        id: id(name),
        module: ModuleName::new("echo").unwrap(),
        version: None,
        state,
        job: JobName::new("j").unwrap(),
        priority: 0,
        attempt: 1,
        runner: None,
        created: Wall(0),
        started: None,
        finished: Some(Wall(1)),
        result: Some(Json::null()),
        result_blob: None,
        error: None,
        outputs: Default::default(),
        stats: None,
        cached: None,
        note: None,
        partial: None,
    }
}

fn job(open: bool) -> Json {
    Json::of(&JobView {
        job: JobName::new("j").unwrap(),
        run: 1,
        open,
        paused: false,
        total: 0,
        blocked: 0,
        delayed: 0,
        ready: 0,
        assigned: 0,
        done: 0,
        failed: 0,
        cancelled: 0,
        skipped: 0,
    })
}

/// Runs `feed` on these lines and gives its exit code.
async fn feed(url: &str, lines: &str, wait: bool) -> u8 {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let options = FeedOptions {
        file: Some(file.path().to_owned()),
        job: JobName::new("j").ok(),
        wait,
        follow: false,
        partials: false,
        fetch: None,
    };
    let global = GlobalOptions {
        url: Some(url.to_owned()),
        ..GlobalOptions::default()
    };
    let run = taskmaster_feeder::run(ClientCommand::Feed(options), &global);
    tokio::time::timeout(std::time::Duration::from_secs(20), run)
        .await
        .expect("the feed ends")
}

fn with_event(seen: &Seen, connection: usize, event: &str) -> Vec<String> {
    let start = format!("{{\"event\":\"{event}\"");
    seen.lock().unwrap()[connection]
        .iter()
        .filter(|text| text.starts_with(&start))
        .cloned()
        .collect()
}

fn take(message: &ToMaster) -> Vec<FromMaster> {
    match message {
        ToMaster::Add(add) => {
            vec![FromMaster::Added(Added {
                batch: add.batch,
                ids: ids_of(&add.tasks),
                known: Vec::new(),
                ended: Vec::new(),
            })]
        }
        ToMaster::Ask(ask) if matches!(ask.query, Query::Job { .. }) => {
            vec![FromMaster::Answer(Answer {
                reference: ask.reference,
                data: job(false),
            })]
        }
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn unanswered_batches_come_again_as_they_were_in_the_same_session() {
    let (url, seen) = master(|connection, message| match message {
        // The second batch is never answered on the first connection.
        ToMaster::Add(add) if connection == 0 && add.batch == 2 => None,
        message => Some(take(message)),
    })
    .await;
    let lines: String = (0..4)
        .map(|i| format!("{{\"module\":\"echo\",\"params\":{i}}}\n"))
        .collect();
    assert_eq!(feed(&url, &lines, false).await, exit::OK);
    let first = with_event(&seen, 0, "task:add");
    let second = with_event(&seen, 1, "task:add");
    assert_eq!(first.len(), 2);
    assert_eq!(second.len(), 1);
    assert_eq!(first[1], second[0], "byte for byte, ids included");
    assert_eq!(
        with_event(&seen, 0, "hello"),
        with_event(&seen, 1, "hello"),
        "the same session"
    );
    assert_eq!(with_event(&seen, 1, "job:release").len(), 1);
}

#[tokio::test]
async fn a_wait_follows_on_from_where_it_was_and_counts_each_task_once() {
    let (url, seen) = master(|connection, message| match message {
        ToMaster::Follow(follow) if connection == 0 => {
            assert_eq!(follow.since, Some(7), "the seq of the first welcome");
            Some(vec![FromMaster::Final(TasksEnded {
                seq: Some(9),
                tasks: vec![ended("a", TaskState::Done)],
                job_done: None,
            })])
        }
        ToMaster::Follow(follow) => {
            assert_eq!(follow.since, Some(9), "what was told is known");
            let tasks = vec![
                ended("a", TaskState::Done),
                ended("b", TaskState::Cancelled),
            ];
            Some(vec![FromMaster::Final(TasksEnded {
                seq: Some(10),
                tasks,
                job_done: Some(1),
            })])
        }
        message => Some(take(message)),
    })
    .await;
    let lines = "{\"id\":\"a\",\"module\":\"echo\"}\n{\"id\":\"b\",\"module\":\"echo\"}\n";
    assert_eq!(feed(&url, lines, true).await, exit::CANCELLED);
    assert_eq!(
        with_event(&seen, 1, "task:add").len(),
        0,
        "everything was answered"
    );
}

#[tokio::test]
async fn a_forward_reference_waits_and_a_refusal_names_its_line() {
    let (url, seen) = master(|_, message| {
        let ToMaster::Add(add) = message else {
            return Some(take(message));
        };
        let refuse = |index, code, ids: &[&str]| {
            let error = Refusal::new(code, "no").about(ids.iter().map(|name| id(name)).collect());
            FromMaster::Rejected(Rejected {
                batch: add.batch,
                tasks: vec![Rejection { index, error }],
            })
        };
        let mut answers = match add.batch {
            1 => vec![refuse(0, RefusalCode::UnknownDependency, &["late"])],
            _ => Vec::new(),
        };
        answers.extend(take(message));
        Some(answers)
    })
    .await;
    let lines = concat!(
        "{\"id\":\"early\",\"module\":\"echo\",\"dependencies\":[\"late\"]}\n",
        "{\"module\":\"echo\"}\n",
        "{\"id\":\"late\",\"module\":\"echo\"}\n",
    );
    assert_eq!(feed(&url, lines, false).await, exit::OK);
    let batches = with_event(&seen, 0, "task:add");
    assert_eq!(batches.len(), 3, "{batches:?}");
    assert!(batches[2].contains("early"), "{batches:?}");
    assert!(!batches[2].contains("\"id\":\"late\""), "{batches:?}");
    assert_eq!(feed(&url, "{\"module\":\n", false).await, exit::ERROR);
}

#[tokio::test]
async fn a_refused_hello_is_told_and_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.next().await.unwrap().unwrap();
        let error = Refusal::new(RefusalCode::Unauthorized, "the token is wrong");
        let refused = FromMaster::Refused(taskmaster_protocol::message::Refused {
            reference: None,
            error,
        });
        socket.send(Message::text(refused.encode())).await.unwrap();
    });
    assert_eq!(feed(&url, "", false).await, exit::ERROR);
}
