//! Measures a whole runner against a master that only sends and acknowledges, over a local socket:
//! `cargo run --release -p taskmaster-runner --example link`. Both share the machine's processors.

#![expect(
    clippy::print_stdout,
    reason = "an example that prints what it measures"
)]

use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use taskmaster_protocol::message::{Assignment, Attempt, Offer, Welcome};
use taskmaster_protocol::{
    AttemptId, FromMaster, Hash, JobName, Json, ModuleName, PROTOCOL_VERSION, TaskId, ToMaster,
};
use taskmaster_runner::{RunnerConfig, serve};
use taskmaster_transport::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

const TASKS: u32 = 200_000;
const WINDOW: u32 = 2_048;
const MODULE: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = Address::parse(&listener.local_addr()?.to_string())?;
    let cache = std::env::temp_dir().join(format!("taskmaster-link-{}", std::process::id()));
    let offer = Offer {
        name: "bench".into(),
        slots: 2,
        ..Offer::default()
    };
    let config = RunnerConfig {
        urls: vec![url],
        token: None,
        offer,
        grants: Default::default(),
        cache: cache.clone(),
        inputs_bytes: 1 << 20,
        compile_memory_mb: taskmaster_runner::compile::MEMORY_MB_DEFAULT,
        grace: Duration::from_secs(1),
    };
    let runner = tokio::spawn(serve(config, std::future::pending()));
    let (stream, _) = listener.accept().await?;
    let mut socket = accept_async(stream).await?;
    socket.next().await;
    let welcome = Welcome {
        protocol: PROTOCOL_VERSION,
        epoch: 1,
        seq: 0,
        message_bytes_max: 1 << 20,
        batch_tasks_max: 1,
        leader: None,
    };
    say(&mut socket, FromMaster::Welcome(welcome)).await?;
    say(&mut socket, FromMaster::Send(vec![task(0)?])).await?;
    let (mut module, _) = listener.accept().await?;
    give_module(&mut module).await?;
    let began = Instant::now();
    feed(&mut socket).await?;
    println!(
        "{:.0} tasks/s through one link, 2 slots",
        f64::from(TASKS) / began.elapsed().as_secs_f64()
    );
    runner.abort();
    std::fs::remove_dir_all(&cache)?;
    Ok(())
}

/// Keeps the runner's window full until every task is done.
async fn feed(socket: &mut WebSocketStream<TcpStream>) -> Result<(), Failure> {
    let mut sent = 0;
    let mut done = 0;
    while done < TASKS {
        let more = TASKS.min(done + WINDOW);
        if more - sent >= WINDOW / 8 || more == TASKS && sent < more {
            let tasks = (sent + 1..=more)
                .map(task)
                .collect::<Result<Vec<_>, Failure>>()?;
            for batch in tasks.chunks(256) {
                say(socket, FromMaster::Send(batch.to_vec())).await?;
            }
            sent = more;
        }
        let Some(Ok(message)) = socket.next().await else {
            return Err("the runner is gone".into());
        };
        let Message::Text(text) = message else {
            continue;
        };
        if let ToMaster::Done(ended) = ToMaster::decode(&text)? {
            done += u32::try_from(ended.len())?;
            let ack = ended.into_iter().map(|done| Attempt {
                id: done.id,
                attempt: done.attempt,
            });
            say(socket, FromMaster::Ack(ack.collect())).await?;
        }
    }
    Ok(())
}

async fn say(socket: &mut WebSocketStream<TcpStream>, message: FromMaster) -> Result<(), Failure> {
    Ok(socket.send(Message::text(message.encode())).await?)
}

fn task(n: u32) -> Result<Assignment, Failure> {
    Ok(Assignment {
        id: TaskId::new(&format!("019f7e2a-0000-7000-8000-{n:012}"))?,
        attempt: AttemptId { epoch: 1, n: 1 },
        module: ModuleName::new("noop")?,
        version: Hash::of(MODULE.as_bytes()),
        job: JobName::new("bench")?,
        params: Some(Json::parse(&format!("{{\"n\":{n}}}"))?),
        results: BTreeMap::new(),
        job_results: BTreeMap::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        inputs: BTreeMap::new(),
        outputs: None,
        timeout_ms: 60_000,
        memory_mb: 64,
        slots: 1,
        capabilities: None,
        is_cached: false,
    })
}

async fn give_module(stream: &mut TcpStream) -> Result<(), Failure> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{MODULE}",
        MODULE.len()
    );
    Ok(stream.write_all(head.as_bytes()).await?)
}
