//! A client with several masters, of which only the last one answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics, in its fakes too"
)]

use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use taskmaster_feeder::cli::TasksCommand;
use taskmaster_feeder::{ClientCommand, GlobalOptions, exit};
use taskmaster_protocol::message::{Answer, Welcome};
use taskmaster_protocol::{FromMaster, Hash, Json, TaskId, ToMaster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// The only file of the only task.
const FILE: &[u8] = b"what the task gave back";

/// An address at which nothing listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("ws://{}", listener.local_addr().unwrap())
}

/// Starts a master that knows one task and has its file.
async fn master() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    url
}

async fn serve(mut stream: TcpStream) {
    let blob = b"GET /blobs/";
    let mut start = [0; 11];
    while stream.peek(&mut start).await.unwrap() < start.len() {
        tokio::task::yield_now().await;
    }
    if start == *blob {
        let request_bytes = stream.read(&mut [0; 4_096]).await.unwrap();
        assert!(request_bytes > 0);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", FILE.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(FILE).await.unwrap();
        return;
    }
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        let answer = match ToMaster::decode(&text).unwrap() {
            ToMaster::Ask(ask) => FromMaster::Answer(Answer {
                reference: ask.reference,
                data: task(),
            }),
            _ => FromMaster::Welcome(Welcome {
                protocol: 1,
                epoch: 1,
                seq: 0,
                message_bytes_max: 1 << 20,
                batch_tasks_max: 1,
                leader: None,
            }),
        };
        socket.send(Message::text(answer.encode())).await.unwrap();
    }
}

fn task() -> Json {
    let file = Hash::of(FILE);
    let text = format!(
        r#"{{
            "id": "t", "module": "m", "version": null, "state": "done", "job": "j",
            "priority": 0, "attempt": 1, "runner": null,
            "created": "2026-01-31T12:00:00Z", "started": null, "finished": null,
            "result": null, "result_blob": null, "error": null,
            "outputs": {{"a.txt": "{file}"}}, "stats": null
        }}"#
    );
    Json::parse(&text).unwrap()
}

#[tokio::test]
async fn files_are_fetched_from_the_master_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let global = GlobalOptions {
        url: Some(format!("{},{}", dead().await, master().await)),
        ..GlobalOptions::default()
    };
    let command = ClientCommand::Tasks(TasksCommand::Files {
        id: TaskId::new("t").unwrap(),
        fetch: Some(folder.path().to_owned()),
    });
    let code = tokio::time::timeout(
        Duration::from_secs(20),
        taskmaster_feeder::run(command, &global),
    )
    .await
    .expect("the file is fetched");
    assert_eq!(code, exit::OK);
    let fetched = std::fs::read(folder.path().join("t/a.txt")).unwrap();
    assert_eq!(fetched, FILE);
}
