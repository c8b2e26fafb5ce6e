//! Peers of whom nothing is known, or who do not read: what they cost is bounded.

use super::*;
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// Who takes nothing for so long takes nothing more.
const STALL: Duration = Duration::from_millis(300);

/// A frame of a client, with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    bytes.extend(payload);
    bytes
}

/// Upgrades a connection to a WebSocket, and says nothing over it.
async fn upgrade(world: &World) -> TcpStream {
    let host = world.address.authority();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    stream
}

/// Writes `piece` again and again until nothing more is taken, and says how many bytes were.
async fn flood(stream: &mut TcpStream, piece: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match timeout(STALL, stream.write_all(piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_has_said_too_much_after_some_kilobytes() {
    let world = World::new(Some("secret")).await;
    let pings = frame(9, &[7; 100]).repeat(100);
    // Half a message in parts, and a message that is announced as very long.
    let part = {
        let mut part = frame(0, &[b' '; 100]);
        part[0] = 0;
        part.repeat(100)
    };
    let mut begin = frame(1, b"{");
    begin[0] = 1;
    let mut long = vec![0x81, 0xff];
    long.extend((30_u64 << 20).to_be_bytes());
    long.extend([0; 4]);
    for (beginning, piece) in [
        (Vec::new(), pings.clone()),
        (begin, part),
        (long, vec![b' '; 10_000]),
    ] {
        let mut stream = upgrade(&world).await;
        stream.write_all(&beginning).await.unwrap();
        let sent = flood(&mut stream, &piece, 64 << 20).await;
        // The system's buffers take some megabytes that nobody reads.
        assert!(sent < 32 << 20, "{sent} bytes were taken");
    }
    let host = world.address.authority();
    let mut head = TcpStream::connect(&host).await.unwrap();
    let sent = flood(&mut head, &b"X-Header: 1\r\n".repeat(1_000), 64 << 20).await;
    assert!(sent < 32 << 20, "{sent} bytes of a head were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_is_too_long_is_refused_with_a_sentence() {
    let world = World::new(None).await;
    let stream = TcpStream::connect(world.address.authority()).await.unwrap();
    let url = format!("{}/", world.address);
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    let sending = tokio::spawn(async move {
        let _ = sink.send(Frame::text("x".repeat(8 << 20))).await;
    });
    let heard = timeout(SOON, stream.next()).await.unwrap();
    let Some(Ok(Frame::Text(text))) = heard else {
        panic!("{heard:?}");
    };
    let FromMaster::Refused(refused) = FromMaster::decode(&text).unwrap() else {
        panic!("{text}");
    };
    assert_eq!(refused.error.code, RefusalCode::TooLarge);
    assert!(refused.error.message.contains("65536"), "{text}");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_the_answers_to_its_pings_is_not_read() {
    let world = World::new(None).await;
    let mut stream = upgrade(&world).await;
    let hello = ToMaster::Hello(hello(Role::Client)).encode();
    stream.write_all(&frame(1, hello.as_bytes())).await.unwrap();
    let _outbox = world.outbox();
    let pings = frame(9, &[7; 100]).repeat(1_000);
    let sent = flood(&mut stream, &pings, 256 << 20).await;
    assert!(sent < 64 << 20, "{sent} bytes of pings were taken");
    // Read again, it goes on.
    let mut answers = vec![0; 1 << 20];
    timeout(SOON, stream.read_exact(&mut answers))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_whose_answers_nobody_reads_are_not_read() {
    let world = World::new(Some("secret")).await;
    let host = world.address.authority();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let requests = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").repeat(500);
    let sent = flood(&mut stream, requests.as_bytes(), 256 << 20).await;
    assert!(sent < 64 << 20, "{sent} bytes of requests were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_module_is_on_the_disk_until_it_is_whole_and_leaves_nothing_there() {
    let world = World::new(None).await;
    let host = world.address.authority();
    let mut upload = TcpStream::connect(&host).await.unwrap();
    let head =
        format!("PUT /modules/m.wasm HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000000\r\n\r\n");
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.write_all(&vec![0; 8_000_000]).await.unwrap();
    let tasks = world.scratch.path().join("tasks");
    let bytes_there = || -> u64 {
        let entries = std::fs::read_dir(&tasks).unwrap().flatten();
        entries.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    let until = async |wanted: u64| {
        let reached = async {
            while bytes_there() != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let there = timeout(Duration::from_secs(20), reached).await;
        there.unwrap_or_else(|_| panic!("{} bytes are there", bytes_there()));
    };
    until(8_000_000).await;
    drop(upload);
    until(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_long_names_is_short_and_long_lists_are_refused_by_their_ref() {
    let world = World::new(None).await;
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    let long = "x".repeat(8 << 20);
    let watch = format!(r#"{{"event":"watch","data":{{"filter":{{"events":["{long}"]}}}}}}"#);
    let began = std::time::Instant::now();
    say(&mut socket, &watch).await;
    let (_, refusal_of_watch) = refusal(&mut socket).await;
    assert!(refusal_of_watch.message.len() < 500, "{refusal_of_watch}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let ids = |count: usize| vec!["t"; count].join("\",\"");
    for (event, count) in [
        ("task:cancel", limits::IDS_MAX + 1),
        ("task:retry", limits::IDS_MAX + 1),
        ("query", limits::RESULTS_MAX + 1),
    ] {
        let ids = ids(count);
        let text = if event == "query" {
            format!(r#"{{"event":"query","data":{{"ref":9,"what":"results","ids":["{ids}"]}}}}"#)
        } else {
            format!(r#"{{"event":"{event}","data":{{"ref":9,"ids":["{ids}"]}}}}"#)
        };
        say(&mut socket, &text).await;
        let (reference, refusal) = refusal(&mut socket).await;
        assert_eq!((reference, refusal.code), (Some(9), RefusalCode::TooLarge));
        assert!(refusal.message.contains(&count.to_string()), "{refusal}");
    }
}
