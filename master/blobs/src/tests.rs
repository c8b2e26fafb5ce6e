//! Blobs that live in a bucket: an object store in memory, which can be switched off.

use super::*;
use crate::memory::{SwitchableStore, blobs_in_memory};
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use std::sync::atomic::Ordering;
use std::time::Instant;

fn world() -> (tempfile::TempDir, Arc<SwitchableStore>, Blobs) {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(SwitchableStore::default());
    let blobs = blobs_in_memory(scratch.path(), &store, 1 << 30).unwrap();
    (scratch, store, blobs)
}

fn lose_folder(blobs: &Blobs) {
    for file in cache::blob_files(&blobs.root).unwrap() {
        fs::remove_file(file.path).unwrap();
    }
}

#[test]
fn what_was_kept_is_had_when_the_folder_is_lost() {
    let (_scratch, store, blobs) = world();
    let large = vec![3; (8 << 20) + 17];
    let hashes = [
        blobs.put(b"").unwrap(),
        blobs.put(b"abc").unwrap(),
        blobs.put(&large).unwrap(),
    ];
    lose_folder(&blobs);
    let all = [hashes.as_slice(), &[Hash::of(b"none")]].concat();
    assert_eq!(blobs.renew_all(&all).unwrap(), [true, true, true, false]);
    assert_eq!(blobs.get(&hashes[0]).unwrap(), b"");
    assert_eq!(blobs.get(&hashes[1]).unwrap(), b"abc");
    assert!(blobs.get(&hashes[2]).unwrap() == large);
    assert_eq!(
        blobs.get(&Hash::of(b"none")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    store.switch_off();
    assert_eq!(
        blobs.get(&hashes[1]).unwrap(),
        b"abc",
        "what is here needs nobody"
    );
    assert!(blobs.renew(&hashes[1]).unwrap());
}

#[test]
fn nothing_is_kept_while_the_store_is_unavailable_and_an_upload_goes_on_when_it_is_back() {
    let (_scratch, store, blobs) = world();
    store.switch_off();
    let refused = blobs.put(b"abc").unwrap_err();
    assert!(
        is_unavailable(&refused)
            && refused
                .to_string()
                .contains("s3://in/memory cannot be used now: Connection refused")
    );
    let asked = store.requests.load(Ordering::Relaxed);
    assert!(is_unavailable(&blobs.renew(&Hash::of(b"abc")).unwrap_err()));
    assert_eq!(
        store.requests.load(Ordering::Relaxed),
        asked,
        "it is not asked again at once"
    );
    assert!(cache::blob_files(&blobs.root).unwrap().is_empty());
    let hash = Hash::of(b"whole");
    let mut upload = blobs.begin_at(hash, 0).unwrap();
    upload.write(b"whole").unwrap();
    assert!(matches!(upload.finish(hash), Err(PutError::Io(error)) if is_unavailable(&error)));
    assert_eq!(blobs.partial_bytes(&hash), 5, "all of it has come");
    store.switch_on();
    let began = Instant::now();
    while let Err(error) = blobs.begin_at(hash, 5).unwrap().finish(hash) {
        assert!(
            matches!(&error, PutError::Io(io) if is_unavailable(io))
                && began.elapsed() < Duration::from_secs(60),
            "{error}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    lose_folder(&blobs);
    assert_eq!(blobs.get(&hash).unwrap(), b"whole");
}

#[test]
fn other_bytes_than_the_name_says_are_not_taken_from_a_store() {
    let (_scratch, store, blobs) = world();
    let hash = Hash::of(b"right");
    let key = Key::from(format!("some/place/{}/{hash}", &hash.to_string()[..2]));
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(store.inner.put(&key, "wrong".into()))
        .unwrap();
    assert_eq!(
        blobs.get(&hash).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    assert_eq!(
        fs::read_dir(&*blobs.root).unwrap().count(),
        0,
        "nothing of it stays"
    );
}

#[test]
fn only_what_nobody_has_asked_for_is_removed() {
    let (scratch, store, blobs) = world();
    let hashes = [b"a", b"b", b"c"].map(|bytes| blobs.put(bytes).unwrap());
    assert_eq!(blobs.expired().unwrap(), []);
    assert_eq!(blobs.remove(&hashes).unwrap(), 0);
    let soon = Duration::from_millis(300);
    let blobs = blobs.with_grace(soon);
    std::thread::sleep(soon);
    lose_folder(&blobs);
    let mut sorted = hashes;
    sorted.sort_unstable();
    assert_eq!(blobs.expired().unwrap(), sorted);
    let blobs = blobs.with_grace(GRACE / 2);
    assert!(blobs.renew(&hashes[0]).unwrap());
    let held = blobs.bucket.as_ref().unwrap().locks.lock(hashes[1]);
    let blobs = blobs_in_memory(scratch.path(), &store, 1 << 30)
        .unwrap()
        .with_grace(Duration::ZERO);
    drop(held);
    assert_eq!(
        blobs.remove(&hashes[..2]).unwrap(),
        2,
        "without a grace nothing is young"
    );
    let fresh = blobs_in_memory(scratch.path(), &store, 1 << 30).unwrap();
    assert_eq!(
        fresh.expired().unwrap(),
        [],
        "nobody knows what was asked for before this start"
    );
    assert_eq!(fresh.remove(&hashes).unwrap(), 0);
    assert_eq!(fresh.renew_all(&hashes).unwrap(), [false, false, true]);
}

#[test]
fn a_blob_that_somebody_works_with_is_not_removed_and_is_waited_for_while_it_is() {
    let (_scratch, _store, blobs) = world();
    let hash = blobs.put(b"a").unwrap();
    let blobs = blobs.with_grace(Duration::ZERO);
    let bucket = blobs.bucket.clone().unwrap();
    let held = bucket.locks.lock(hash);
    assert_eq!(blobs.remove(&[hash]).unwrap(), 0);
    drop(held);
    let removing = bucket.locks.lock(hash);
    lose_folder(&blobs);
    let asking = std::thread::spawn({
        let blobs = blobs.clone();
        move || blobs.renew(&hash).unwrap()
    });
    bucket.store.remove(&[hash]).unwrap();
    drop(removing);
    assert!(!asking.join().unwrap(), "it was told when it was gone");
    assert_eq!(blobs.put(b"a").unwrap(), hash);
    lose_folder(&blobs);
    assert_eq!(blobs.get(&hash).unwrap(), b"a");
}

#[test]
fn the_folder_holds_no_more_than_it_may_and_lets_go_of_what_was_not_read_for_longest() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(SwitchableStore::default());
    let blobs = blobs_in_memory(scratch.path(), &store, 1_000).unwrap();
    let [a, b] = [1, 2].map(|byte| blobs.put(&[byte; 400]).unwrap());
    for (hash, ago) in [(a, 200), (b, 300)] {
        let file = File::open(blobs.path(&hash)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(ago))
            .unwrap();
    }
    drop(blobs.file(&b).unwrap());
    let c = blobs.put(&[3; 400]).unwrap();
    assert_eq!(
        [a, b, c].map(|hash| blobs.path(&hash).exists()),
        [false, true, true]
    );
    assert_eq!(blobs.get(&a).unwrap(), [1; 400]);
    let larger = blobs.put(&[4; 5_000]).unwrap();
    assert_eq!(
        blobs.get(&larger).unwrap().len(),
        5_000,
        "one that is larger than all may be is had, too"
    );
    assert_eq!(cache::blob_files(&blobs.root).unwrap().len(), 1);
    assert_eq!(blobs.renew_all(&[a, b, c, larger]).unwrap(), [true; 4]);
}

#[test]
fn all_blobs_are_listed_and_read_wherever_they_live() {
    let (_scratch, store, blobs) = world();
    let far = blobs.put(b"far").unwrap();
    let near = Hash::of(b"near");
    lose_folder(&blobs);
    blobs.put(b"near").unwrap();
    let mut wanted = vec![far, near];
    wanted.sort();
    let mut all = blobs.all().unwrap();
    all.sort();
    assert_eq!(all, wanted);
    assert_eq!(
        (blobs.get(&far).unwrap(), blobs.get(&near).unwrap()),
        (b"far".to_vec(), b"near".to_vec())
    );
    store.switch_off();
    assert!(
        blobs.all().is_err(),
        "the bucket knows of them, and not the folder"
    );
}
