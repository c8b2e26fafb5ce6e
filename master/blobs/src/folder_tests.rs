//! Blobs that live in the folder.

use super::*;

#[test]
fn bytes_are_found_under_their_hash_also_after_a_new_start() {
    let scratch = tempfile::tempdir().unwrap();
    let hash = Blobs::open(scratch.path()).unwrap().put(b"abc").unwrap();
    assert_eq!(hash, Hash::of(b"abc"));
    let blobs = Blobs::open(scratch.path()).unwrap();
    assert!(blobs.exists(&hash) && !blobs.exists(&Hash::of(b"x")));
    assert_eq!(blobs.get(&hash).unwrap(), b"abc");
    assert_eq!(blobs.put(b"abc").unwrap(), hash);
}

#[test]
fn what_was_left_unfinished_is_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(scratch.path()).unwrap();
    let mut upload = blobs.begin().unwrap();
    upload.write(b"half").unwrap();
    std::mem::forget(upload);
    let files = || fs::read_dir(scratch.path().join("blobs")).unwrap().count();
    assert_eq!(files(), 1);
    drop(blobs.begin().unwrap());
    assert_eq!(files(), 1);
    Blobs::open(scratch.path()).unwrap();
    assert_eq!(files(), 0);
}

#[test]
fn an_upload_that_breaks_off_goes_on_where_it_was_also_after_a_crash() {
    let scratch = tempfile::tempdir().unwrap();
    let hash = Hash::of(b"whole blob");
    let blobs = Blobs::open(scratch.path()).unwrap();
    let mut upload = blobs.begin_at(hash, 0).unwrap();
    upload.write(b"whole ").unwrap();
    drop(upload);
    assert_eq!(blobs.partial_bytes(&hash), 6);
    for wrong in [3, 7] {
        assert!(
            matches!(blobs.begin_at(hash, wrong), Err(PutError::Offset(6))),
            "{wrong}"
        );
    }
    let mut upload = blobs.begin_at(hash, 6).unwrap();
    upload.write(b"bl").unwrap();
    std::mem::forget(upload);
    let blobs = Blobs::open(scratch.path()).unwrap();
    assert_eq!(blobs.partial_bytes(&hash), 8);
    let mut upload = blobs.begin_at(hash, 8).unwrap();
    upload.write(b"ob").unwrap();
    upload.finish(hash).unwrap();
    assert_eq!(
        (blobs.get(&hash).unwrap(), blobs.partial_bytes(&hash)),
        (b"whole blob".to_vec(), 0)
    );
    assert!(
        matches!(blobs.begin_at(hash, 5), Err(PutError::Offset(0))),
        "no part is left"
    );
}

#[test]
fn what_goes_on_with_other_bytes_is_not_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(scratch.path()).unwrap();
    let hash = Hash::of(b"ab");
    let mut upload = blobs.begin_at(hash, 0).unwrap();
    upload.write(b"x").unwrap();
    drop(upload);
    let mut upload = blobs.begin_at(hash, 1).unwrap();
    upload.write(b"b").unwrap();
    assert!(matches!(
        upload.finish(hash),
        Err(PutError::WrongHash { .. })
    ));
    assert_eq!(
        (blobs.exists(&hash), blobs.partial_bytes(&hash)),
        (false, 0)
    );
}

#[test]
fn what_is_needed_again_is_not_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(scratch.path()).unwrap();
    let young = blobs.put(b"young").unwrap();
    let old = blobs.put(b"old").unwrap();
    let renewed = blobs.put(b"re").unwrap();
    for hash in [old, renewed] {
        File::open(blobs.path(&hash))
            .unwrap()
            .set_modified(SystemTime::now() - 2 * GRACE)
            .unwrap();
    }
    let mut expected = vec![old, renewed];
    expected.sort_unstable();
    assert_eq!(blobs.expired().unwrap(), expected);
    assert!(blobs.renew(&renewed).unwrap() && !blobs.renew(&Hash::of(b"none")).unwrap());
    let removed = [young, old, renewed].map(|hash| blobs.remove(&[hash]).unwrap());
    assert_eq!(removed, [0, 1, 0]);
    assert_eq!(
        [young, old, renewed].map(|hash| blobs.exists(&hash)),
        [true, false, true]
    );
}

#[test]
fn a_wrong_hash_is_not_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(scratch.path()).unwrap();
    let named = Hash::of(b"other");
    let mut upload = blobs.begin().unwrap();
    upload.write(b"a").unwrap();
    upload.write(b"b").unwrap();
    assert!(
        matches!(upload.finish(named), Err(PutError::WrongHash { is, .. }) if is == Hash::of(b"ab"))
    );
    assert!(!blobs.exists(&named) && !blobs.exists(&Hash::of(b"ab")));
}
