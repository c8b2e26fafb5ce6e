//! Blobs and modules over HTTP.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_kept_under_their_true_hash_only() {
    let world = World::new(None).await;
    let remote = Remote::new(world.address.clone(), None);
    let bytes = bytes::Bytes::from(vec![7; 3 << 20]);
    let hash = Hash::of(&bytes);
    assert!(
        remote
            .get(&hash)
            .await
            .unwrap_err()
            .to_string()
            .contains("404")
    );
    remote.put(&hash, bytes.clone()).await.unwrap();
    remote.put(&hash, bytes.clone()).await.unwrap();
    assert_eq!(remote.get(&hash).await.unwrap(), bytes);
    let wrong = remote
        .put(&Hash::of(b"other"), bytes)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("400") && wrong.contains(&hash.to_string()),
        "{wrong}"
    );
    assert!(!world.blobs.exists(&Hash::of(b"other")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_ends_is_closed_and_a_slow_upload_is_not() {
    let world = World::new(None).await;
    let host = world.address.authority();
    let mut mute = tokio::net::TcpStream::connect(&host).await.unwrap();
    let mut slow = tokio::net::TcpStream::connect(&host).await.unwrap();
    let mut upload = tokio::net::TcpStream::connect(&host).await.unwrap();
    // Whoever was answered once has no more time for the next head.
    let mut again = tokio::net::TcpStream::connect(&host).await.unwrap();
    let first = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\nGET / HTTP/1.1\r\n");
    again.write_all(first.as_bytes()).await.unwrap();
    let mut ok = [0; 15];
    again.read_exact(&mut ok).await.unwrap();
    assert_eq!(&ok, b"HTTP/1.1 200 OK");
    let bytes = vec![7; 200_000];
    let head = format!(
        "PUT /blobs/{} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 200000\r\n\r\n",
        Hash::of(&bytes)
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.write_all(&bytes[..100_000]).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let began = std::time::Instant::now();
    let ended = async |stream: &mut tokio::net::TcpStream| {
        let read =
            tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0; 1_000])).await;
        !matches!(read.expect("it is still open"), Ok(1..))
    };
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = slow.write_all(b"X: y\r\n").await;
    }
    assert!(ended(&mut mute).await && ended(&mut slow).await);
    while !ended(&mut again).await {}
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
    upload.write_all(&bytes[100_000..]).await.unwrap();
    let mut answer = [0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_will_name_is_not_taken_on_a_full_disk() {
    let world = World::new(None).await;
    let remote = Remote::new(world.address.clone(), None);
    let early = bytes::Bytes::from_static(b"early");
    let late = bytes::Bytes::from_static(b"late");
    assert!(!remote.has(&Hash::of(&early)).await.unwrap());
    remote
        .upload(&Hash::of(&early), early.clone())
        .await
        .unwrap();
    assert!(remote.has(&Hash::of(&early)).await.unwrap());
    world.handle.room.record_write(Some("no room".into()));
    remote
        .upload(&Hash::of(&early), early)
        .await
        .expect("it is there");
    let refused = remote
        .upload(&Hash::of(&late), late.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("503") && refused.contains("no room"),
        "{refused}"
    );
    remote
        .put(&Hash::of(&late), late)
        .await
        .expect("a result is taken as long as it can be written");
    let host = world.address.authority();
    let other = format!(
        "PUT /blobs/{} HTTP/1.1\nHost: {host}\nConnection: close\n",
        Hash::of(b"")
    );
    let answer = world
        .http(&format!("{}\n", other.replace(" HTTP", "?for=fun HTTP")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("`fun`"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_is_pushed_into_the_folder_if_it_would_load() {
    let world = World::new(None).await;
    let remote = Remote::new(world.address.clone(), None);
    for (file, bytes, words) in [
        ("x.wat", "garbage", "line 1"),
        ("x.txt", SOUND, ".wasm or .wat"),
        ("..wasm", SOUND, "begin with"),
        ("-.wasm", SOUND, "begin with"),
    ] {
        let error = remote
            .put_module(file, bytes.into())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("400") && error.contains(words),
            "{file}: {error}"
        );
    }
    let put = tokio::spawn(async move {
        remote
            .put_module("x.wat", SOUND.into())
            .await
            .map_err(|e| e.to_string())
    });
    let Input::Module { name, known, .. } = world.input() else {
        panic!()
    };
    assert_eq!(name.as_str(), "x");
    drop(known);
    let check: taskmaster_protocol::shape::ModuleCheck =
        serde_json::from_slice(&put.await.unwrap().unwrap()).unwrap();
    assert!(check.ok);
    assert_eq!(
        std::fs::read_to_string(world.scratch.path().join("tasks").join("x.wat")).unwrap(),
        SOUND
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_told_by_the_state_of_health() {
    let world = World::new(None).await;
    assert!(world.get("/health", "").await.starts_with("HTTP/1.1 200"));
    let damage = taskmaster_store::kv::StoreError::Corrupt {
        path: "the view".into(),
        why: "a block of `e`: its checksum does not match".into(),
    };
    world.handle.room.damage().record(&damage);
    let told = world.get("/health", "").await;
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("its checksum does not match"),
        "{told}"
    );
    // A backup of it would only look like one.
    let refused = Remote::new(world.address.clone(), None).backup().await;
    assert!(refused.is_err_and(|error| error.to_string().contains("checksum")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_sent_and_no_path_of_the_master_is_written() {
    let world = World::new(None).await;
    world.blobs.put(&vec![3; 32 << 20]).unwrap();
    let remote = Remote::new(world.address.clone(), None);
    let mut body = remote.backup().await.unwrap();
    // Another one is refused meanwhile, because the reader of this one is slow.
    let mut sent = body.next().await.unwrap().unwrap().to_vec();
    assert!(remote.backup().await.is_err());
    while let Some(chunk) = body.next().await.unwrap() {
        sent.extend_from_slice(&chunk);
    }
    let to = world.scratch.path().join("copy");
    let summary = crate::upkeep::backup::stream::receive(&mut sent.as_slice(), &to).unwrap();
    assert_eq!(summary.blobs, 1);
    let there = world.scratch.path().join("there");
    let host = world.address.authority();
    let body = format!("{{\"to\":\"{}\"}}", there.display());
    let post = format!(
        "POST /api/backup HTTP/1.1\nHost: {host}\nConnection: close\nContent-Length: {}\n\n{body}",
        body.len()
    );
    assert!(world.http(&post).await.starts_with("HTTP/1.1 405"));
    assert!(!there.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_over_http_is_one_array_that_is_asked_for_page_by_page() {
    let world = World::new(None).await;
    let host = world.address.authority();
    let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
    let head = format!("GET /api/jobs HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let job: JobView = serde_json::from_str(JOB).unwrap();
    let two = vec![job.clone(), job.clone()];
    let pages = [
        (vec![], Some("a")),
        (two, Some("b")),
        (vec![], Some("c")),
        (vec![job], None),
    ];
    let mut asked = Vec::new();
    for (rows, next) in pages {
        let Input::Ask { query, reply } = world.input() else {
            panic!()
        };
        asked.push(query);
        reply.send(Reply::Answer(jobs(rows, next))).unwrap();
    }
    let all = message::Query::JOBS;
    let at = |name: &str| all.clone().at(Some(name.to_owned()));
    assert_eq!(asked, [all.clone(), at("a"), at("b"), at("c")]);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, format!("[{JOB},{JOB},{JOB}]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_said_all_and_shuts_down_that_half_is_answered_all_the_same() {
    let world = World::new(None).await;
    let host = world.address.authority();
    let half_closed = async |request: String| {
        let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    };
    let mut asking = half_closed(format!("GET /api/jobs HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let Input::Ask { reply, .. } = world.input() else {
        panic!()
    };
    // The answer takes its time, and meanwhile nothing more can come from the peer.
    tokio::time::sleep(Duration::from_millis(100)).await;
    reply.send(Reply::Answer(jobs(Vec::new(), None))).unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("[]"), "{answer}");

    let bytes = vec![7; 100_000];
    let head = format!(
        "PUT /blobs/{} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
        Hash::of(&bytes),
        bytes.len()
    );
    let mut putting = tokio::net::TcpStream::connect(&host).await.unwrap();
    putting.write_all(head.as_bytes()).await.unwrap();
    putting.write_all(&bytes).await.unwrap();
    putting.shutdown().await.unwrap();
    let mut answer = String::new();
    putting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(world.blobs.exists(&Hash::of(&bytes)));
}
