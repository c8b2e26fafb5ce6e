//! Files as blobs: uploads that break off, files that change, tasks that name what is not there.

use super::*;
use taskmaster_protocol::files::{FilePath, ListedFile, Listing};
use taskmaster_transport::BlobError;
use taskmaster_transport::files::{Download, UploadPurpose, hash_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_and_fetches_go_on_where_they_broke_off() {
    let world = World::new(None).await;
    let remote = Remote::new(world.address.clone(), None);
    let path = world.scratch.path().join("large");
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let (hash, length) = hash_file(&path).unwrap();
    let mut stream = tokio::net::TcpStream::connect(world.address.authority())
        .await
        .unwrap();
    let host = world.address.authority();
    let head = format!(
        "PUT /blobs/{hash}?for=task HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes[..3_000_000]).await.unwrap();
    drop(stream);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.blobs.part_of(&hash) == 0 {
        assert!(tokio::time::Instant::now() < end, "no part of it was kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept = world.blobs.part_of(&hash);
    let answer = world
        .http(&format!(
            "HEAD /blobs/{hash} HTTP/1.1\nHost: {host}\nConnection: close\n\n"
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 404")
            && answer.contains(&format!("upload-offset: {kept}\r\n")),
        "{answer}"
    );
    let wrong = format!(
        "PUT /blobs/{hash} HTTP/1.1\nHost: {host}\nUpload-Offset: 7\nContent-Length: 0\nConnection: close\n\n"
    );
    let answer = world.http(&wrong).await;
    assert!(
        answer.starts_with("HTTP/1.1 409")
            && answer.contains(&format!("upload-offset: {kept}\r\n")),
        "{answer}"
    );
    remote
        .put_file(&hash, &path, UploadPurpose::Task)
        .await
        .unwrap();
    assert_eq!(
        (
            world.blobs.part_of(&hash),
            world.blobs.get(&hash).unwrap() == bytes
        ),
        (0, true)
    );
    let mut download = Download::begin(hash, &world.scratch.path().join("back")).unwrap();
    remote.get_file(&mut download).await.unwrap();
    assert_eq!(download.finish(), length);
    assert!(std::fs::read(world.scratch.path().join("back")).unwrap() == bytes);
    let rest = world
        .get(&format!("/blobs/{hash}"), "Range: bytes=4999990-\n")
        .await;
    assert!(
        rest.starts_with("HTTP/1.1 206") && rest.contains("content-length: 10\r\n"),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_while_it_is_put_is_not_taken() {
    let world = World::new(None).await;
    let remote = Remote::new(world.address.clone(), None);
    let path = world.scratch.path().join("changes");
    for length in [10, 3_000_000] {
        std::fs::write(&path, vec![1; length]).unwrap();
        let (hash, _) = hash_file(&path).unwrap();
        std::fs::write(&path, vec![2; length]).unwrap();
        let refused = remote.put_file(&hash, &path, UploadPurpose::Task).await;
        assert!(
            matches!(refused, Err(BlobError::WrongHash(_))),
            "{refused:?}"
        );
        assert!(!world.blobs.exists(&hash) && world.blobs.part_of(&hash) == 0);
        let (hash, _) = hash_file(&path).unwrap();
        remote
            .put_file(&hash, &path, UploadPurpose::Task)
            .await
            .unwrap();
        assert!(world.blobs.exists(&hash));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_told_and_a_task_that_names_it_is_refused() {
    let world = World::new(None).await;
    let remote = Remote::new(world.address.clone(), None);
    let here = world.blobs.put(b"here").unwrap();
    let none = Hash::of(b"none");
    assert_eq!(remote.missing(&[here, none]).await.unwrap(), [none]);
    let listed = |sha256| {
        (
            FilePath::new("in").unwrap(),
            ListedFile { sha256, bytes: 4 },
        )
    };
    let folder = |sha256| {
        world
            .blobs
            .put(
                &Listing {
                    files: [listed(sha256)].into(),
                }
                .encode(),
            )
            .unwrap()
    };
    let (whole, lacking) = (folder(here), folder(none));
    let mut socket = world.client().await;
    let _outbox = world.outbox();
    let task = |input: String| format!(r#"{{"module":"m","inputs":{{"a/b":{input}}}}}"#);
    let tasks = [
        task(format!(r#"{{"sha256":"{here}"}}"#)),
        task(format!(r#"{{"sha256":"{none}"}}"#)),
        task(format!(r#"{{"folder":"{whole}"}}"#)),
        task(format!(r#"{{"folder":"{lacking}"}}"#)),
        task(format!(r#"{{"folder":"{here}"}}"#)),
    ];
    say(
        &mut socket,
        &format!(
            r#"{{"event":"task:add","data":{{"batch":1,"tasks":[{}]}}}}"#,
            tasks.join(",")
        ),
    )
    .await;
    let tasks = loop {
        if let Input::Add { tasks, .. } = world.input() {
            break tasks;
        }
    };
    let refused: Vec<Option<&Refusal>> = tasks.iter().map(|task| task.as_ref().err()).collect();
    for (index, words) in [
        (1, none.to_string()),
        (3, "the folder's file `in`".into()),
        (4, "no listing".into()),
    ] {
        let refusal = refused[index].unwrap();
        assert_eq!(
            (refusal.code, refusal.field.as_deref()),
            (RefusalCode::UnknownBlob, Some("inputs.a/b"))
        );
        assert!(refusal.message.contains(&words), "{refusal}");
    }
    assert!(refused[0].is_none() && refused[2].is_none());
}
