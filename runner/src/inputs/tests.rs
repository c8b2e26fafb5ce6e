use super::*;
use crate::fetch::FetchError;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use taskmaster_protocol::files::ListedFile;
use tempfile::TempDir;

struct World {
    folder: TempDir,
    fetches: Arc<AtomicUsize>,
    blobs: Arc<Mutex<HashMap<Hash, Vec<u8>>>>,
}

impl World {
    fn new() -> World {
        World {
            folder: tempfile::tempdir().unwrap(),
            fetches: Arc::default(),
            blobs: Arc::default(),
        }
    }

    fn blob(&self, bytes: &[u8]) -> Hash {
        self.blobs
            .lock()
            .unwrap()
            .insert(Hash::of(bytes), bytes.to_owned());
        Hash::of(bytes)
    }

    fn folder_of(&self, files: &[(&str, &str)]) -> InputRef {
        let listed = |(path, text): &(&str, &str)| {
            let file = ListedFile {
                sha256: self.blob(text.as_bytes()),
                bytes: text.len() as u64,
            };
            (FilePath::new(path).unwrap(), file)
        };
        let listing = Listing {
            files: files.iter().map(listed).collect(),
        };
        InputRef::Folder {
            folder: self.blob(&listing.encode()),
        }
    }

    fn open(&self, bytes_max: u64) -> TaskInputs {
        let blobs = self.blobs.clone();
        let fetches = self.fetches.clone();
        let fetch: FetchFile = Arc::new(move |hash, to| {
            fetches.fetch_add(1, Ordering::SeqCst);
            let bytes = blobs.lock().unwrap().get(&hash).cloned();
            Box::pin(async move {
                let bytes = bytes.ok_or(FetchError::Remote("nobody has it".into()))?;
                fs::write(&to, &bytes).unwrap();
                Ok(bytes.len() as u64)
            })
        });
        TaskInputs::open(&self.folder.path().join("inputs"), bytes_max, fetch).unwrap()
    }

    /// A task's folder with `placement` in it.
    fn place(&self, placement: &InputPlacement, name: &str) -> PathBuf {
        let own = self.folder.path().join(name);
        fs::create_dir_all(&own).unwrap();
        // A thread of its own, because it gives up a right for good.
        std::thread::scope(|scope| scope.spawn(|| placement.place_into(&own)).join().unwrap())
            .unwrap();
        own
    }

    fn fetched(&self) -> usize {
        self.fetches.swap(0, Ordering::SeqCst)
    }
}

fn wanted(inputs: &[(&str, InputRef)]) -> BTreeMap<FilePath, InputRef> {
    inputs
        .iter()
        .map(|(path, input)| (FilePath::new(path).unwrap(), *input))
        .collect()
}

#[cfg(unix)]
fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

#[tokio::test]
async fn a_shared_folder_is_fetched_once_and_never_copied() {
    let world = World::new();
    let names: Vec<String> = (0..1_000).map(|n| format!("deep/{n}.txt")).collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    let folder = world.folder_of(&files);
    let inputs = world.open(1 << 30);
    assert!(
        inputs.files.links(),
        "this file system links, and keeps what is read-only"
    );
    let wanted = wanted(&[
        ("data", folder),
        (
            "empty",
            InputRef::File {
                sha256: world.blob(b""),
            },
        ),
    ]);
    let (first, second) = tokio::join!(inputs.gather(&wanted), inputs.gather(&wanted));
    let first = first.unwrap();
    let second = second.unwrap();
    assert_eq!(
        world.fetched(),
        1_002,
        "each file, the listing and the empty file, once"
    );
    let one = world.place(&first, "one");
    let two = world.place(&second, "two");
    for path in ["data/deep/7.txt", "empty"] {
        assert_eq!(inode(&one.join(path)), inode(&two.join(path)), "{path}");
    }
    assert_eq!(
        fs::read_to_string(one.join("data/deep/999.txt")).unwrap(),
        "deep/999.txt"
    );
    assert_eq!(fs::metadata(one.join("empty")).unwrap().len(), 0);
    drop(inputs.gather(&wanted).await.unwrap());
    assert_eq!(world.fetched(), 0);
}

#[tokio::test]
async fn no_task_can_write_into_what_others_see() {
    let world = World::new();
    let inputs = world.open(1 << 30);
    let placement = inputs
        .gather(&wanted(&[(
            "a",
            InputRef::File {
                sha256: world.blob(b"mine"),
            },
        )]))
        .await
        .unwrap();
    let own = world.place(&placement, "one");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(guard::give_up_override());
            for open in [
                fs::OpenOptions::new().write(true),
                fs::OpenOptions::new().append(true),
            ] {
                assert_eq!(
                    open.open(own.join("a")).unwrap_err().kind(),
                    io::ErrorKind::PermissionDenied
                );
            }
            assert!(fs::write(own.join("a"), "theirs").is_err());
            fs::remove_file(own.join("a")).unwrap();
            fs::write(own.join("a"), "theirs").unwrap();
        });
    });
    assert_eq!(
        fs::read(world.place(&placement, "two").join("a")).unwrap(),
        b"mine"
    );
    let about = |path: &str| fs::metadata(own.join(path)).unwrap();
    assert!(!placement.is_unchanged("a", &own.join("a"), &about("a")));
    fs::write(own.join("a"), "mine").unwrap();
    assert!(
        placement.is_unchanged("a", &own.join("a"), &about("a")),
        "the same bytes written anew"
    );
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first_and_never_what_is_in_use() {
    let world = World::new();
    let file = |text: &str| InputRef::File {
        sha256: world.blob(text.as_bytes()),
    };
    let a = file(&"a".repeat(400));
    let b = file(&"b".repeat(400));
    let c = file(&"c".repeat(400));
    let inputs = world.open(1_000);
    let here = |input: &InputRef| inputs.files.path(&input.blob()).exists();
    for input in [a, b, a] {
        drop(inputs.gather(&wanted(&[("x", input)])).await.unwrap());
    }
    let held = inputs.gather(&wanted(&[("x", c)])).await.unwrap();
    until(|| !here(&b)).await;
    assert_eq!([a, b, c].map(|input| here(&input)), [true, false, true]);
    let all = inputs
        .gather(&wanted(&[("a", a), ("b", b), ("c", c)]))
        .await
        .unwrap();
    assert_eq!(
        [a, b, c].map(|input| here(&input)),
        [true; 3],
        "all are needed now, whatever their size"
    );
    drop((all, held));
    until(|| inputs.files.index().bytes <= 1_000).await;
    assert_eq!(world.fetched(), 4);
}

/// A load is let go of by its own tokio task, so a test has to wait for that.
async fn until(is: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is() {
        assert!(std::time::Instant::now() < end, "it does not come to pass");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_load_that_comes_late_forgets_no_pins() {
    let world = World::new();
    let mine = world.blob(&[b'a'; 400]);
    let inputs = world.open(500);
    let wanted_file = wanted(&[("a", InputRef::File { sha256: mine })]);
    let held = inputs.gather(&wanted_file).await.unwrap();
    // As by a task that looked before the file was there, and began its load after.
    drop(inputs.files.load(mine).await.unwrap());
    let other = world.blob(&[b'b'; 400]);
    let wanted_file = wanted(&[("b", InputRef::File { sha256: other })]);
    drop(inputs.gather(&wanted_file).await.unwrap());
    assert!(
        inputs.files.path(&mine).exists(),
        "a task still needs the file"
    );
    drop(held);
}

#[tokio::test]
async fn the_next_process_finds_what_is_sound_and_fetches_the_rest_anew() {
    let world = World::new();
    let sound = world.blob(b"sound");
    let spoilt = world.blob(b"spoilt");
    let both = wanted(&[
        ("a", InputRef::File { sha256: sound }),
        ("b", InputRef::File { sha256: spoilt }),
    ]);
    let first = world.open(1 << 20);
    drop(first.gather(&both).await.unwrap());
    assert_eq!(world.fetched(), 2);
    let beside = world.open(1 << 20);
    assert_ne!(
        beside.files.path(&sound),
        first.files.path(&sound),
        "two processes have a folder each"
    );
    let ended = Arc::downgrade(&first.files);
    drop((first, beside));
    until(|| ended.strong_count() == 0).await;
    let inputs = world.open(1 << 20);
    // As a power cut may leave it: of its length, with other bytes.
    let path = inputs.files.path(&spoilt);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "\0\0\0\0\0\0").unwrap();
    let placement = inputs.gather(&both).await.unwrap();
    assert_eq!(world.fetched(), 1);
    assert_eq!(
        fs::read(world.place(&placement, "t").join("b")).unwrap(),
        b"spoilt"
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_told_and_not_remembered() {
    let world = World::new();
    let inputs = world.open(1 << 20);
    let none = Hash::of(b"later");
    let later = wanted(&[("a", InputRef::File { sha256: none })]);
    let why = inputs.gather(&later).await.err().unwrap().to_string();
    assert!(
        why.contains("nobody has it") && why.contains(&none.to_string()),
        "{why}"
    );
    let odd = wanted(&[(
        "d",
        InputRef::Folder {
            folder: world.blob(b"no listing"),
        },
    )]);
    let why = inputs.gather(&odd).await.err().unwrap().to_string();
    assert!(
        why.contains("`d`") && why.contains("no listing of a folder"),
        "{why}"
    );
    world.blob(b"later");
    inputs.gather(&later).await.unwrap();
}
