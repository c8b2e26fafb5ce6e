use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use taskmaster_protocol::files::ListedFile;

struct World {
    folder: PathBuf,
    fetches: Arc<AtomicUsize>,
    blobs: Arc<Mutex<HashMap<Hash, Vec<u8>>>>,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl World {
    fn new() -> World {
        let folder = std::env::temp_dir().join(format!(
            "taskmaster-inputs-{}",
            uuid::Uuid::now_v7().simple()
        ));
        World {
            folder,
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

    fn open(&self, bytes_max: u64) -> Arc<Inputs> {
        let (blobs, fetches) = (self.blobs.clone(), self.fetches.clone());
        let fetch: FetchFile = Arc::new(move |hash, to| {
            fetches.fetch_add(1, Ordering::SeqCst);
            let bytes = blobs.lock().unwrap().get(&hash).cloned();
            Box::pin(async move {
                let bytes = bytes.ok_or("nobody has it")?;
                fs::write(&to, &bytes).map_err(|error| error.to_string())?;
                Ok(bytes.len() as u64)
            })
        });
        Arc::new(Inputs::open(&self.folder.join("inputs"), bytes_max, fetch).unwrap())
    }

    /// A task's folder with `placing` in it.
    fn place(&self, placing: &Placing, name: &str) -> PathBuf {
        let own = self.folder.join(name);
        fs::create_dir_all(&own).unwrap();
        // A thread of its own: it gives up rights for good.
        std::thread::scope(|scope| scope.spawn(|| placing.place(&own)).join().unwrap()).unwrap();
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
        inputs.links(),
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
    let (first, second) = tokio::join!(inputs.get(&wanted), inputs.get(&wanted));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(
        world.fetched(),
        1_002,
        "each file, the listing and the empty file, once"
    );
    let (one, two) = (world.place(&first, "one"), world.place(&second, "two"));
    for path in ["data/deep/7.txt", "empty"] {
        assert_eq!(inode(&one.join(path)), inode(&two.join(path)), "{path}");
    }
    assert_eq!(
        fs::read_to_string(one.join("data/deep/999.txt")).unwrap(),
        "deep/999.txt"
    );
    assert_eq!(fs::metadata(one.join("empty")).unwrap().len(), 0);
    drop(inputs.get(&wanted).await.unwrap());
    assert_eq!(world.fetched(), 0);
}

#[tokio::test]
async fn no_task_can_write_into_what_others_see() {
    let world = World::new();
    let inputs = world.open(1 << 30);
    let placing = inputs
        .get(&wanted(&[(
            "a",
            InputRef::File {
                sha256: world.blob(b"mine"),
            },
        )]))
        .await
        .unwrap();
    let own = world.place(&placing, "one");
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
        fs::read(world.place(&placing, "two").join("a")).unwrap(),
        b"mine"
    );
    let about = |path: &str| fs::metadata(own.join(path)).unwrap();
    assert!(!placing.is_unchanged("a", &own.join("a"), &about("a")));
    fs::write(own.join("a"), "mine").unwrap();
    assert!(
        placing.is_unchanged("a", &own.join("a"), &about("a")),
        "the same bytes written anew"
    );
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first_and_never_what_is_in_use() {
    let world = World::new();
    let file = |text: &str| InputRef::File {
        sha256: world.blob(text.as_bytes()),
    };
    let (a, b, c) = (
        file(&"a".repeat(400)),
        file(&"b".repeat(400)),
        file(&"c".repeat(400)),
    );
    let inputs = world.open(1_000);
    let here = |input: &InputRef| inputs.path(&input.blob()).exists();
    for input in [a, b, a] {
        drop(inputs.get(&wanted(&[("x", input)])).await.unwrap());
    }
    let held = inputs.get(&wanted(&[("x", c)])).await.unwrap();
    settle(|| !here(&b)).await;
    assert_eq!([a, b, c].map(|input| here(&input)), [true, false, true]);
    let all = inputs
        .get(&wanted(&[("a", a), ("b", b), ("c", c)]))
        .await
        .unwrap();
    assert_eq!(
        [a, b, c].map(|input| here(&input)),
        [true; 3],
        "all are needed now, whatever their size"
    );
    drop((all, held));
    settle(|| inputs.table().bytes <= 1_000).await;
    assert_eq!(world.fetched(), 4);
}

/// Files are let go of by a task that is told of it.
async fn settle(is: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is() {
        assert!(std::time::Instant::now() < end, "it does not come to pass");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_next_process_finds_what_is_sound_and_fetches_the_rest_anew() {
    let world = World::new();
    let (sound, spoilt) = (world.blob(b"sound"), world.blob(b"spoilt"));
    let both = wanted(&[
        ("a", InputRef::File { sha256: sound }),
        ("b", InputRef::File { sha256: spoilt }),
    ]);
    let first = world.open(1 << 20);
    drop(first.get(&both).await.unwrap());
    assert_eq!(world.fetched(), 2);
    let beside = world.open(1 << 20);
    assert_ne!(
        beside.path(&sound),
        first.path(&sound),
        "two processes have a folder each"
    );
    let ended = Arc::downgrade(&first);
    drop((first, beside));
    settle(|| ended.strong_count() == 0).await;
    let inputs = world.open(1 << 20);
    // As a power cut may leave it: of its length, with other bytes.
    let path = inputs.path(&spoilt);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "\0\0\0\0\0\0").unwrap();
    let placing = inputs.get(&both).await.unwrap();
    assert_eq!(world.fetched(), 1);
    assert_eq!(
        fs::read(world.place(&placing, "t").join("b")).unwrap(),
        b"spoilt"
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_told_and_not_remembered() {
    let world = World::new();
    let inputs = world.open(1 << 20);
    let none = Hash::of(b"later");
    let later = wanted(&[("a", InputRef::File { sha256: none })]);
    let why = inputs.get(&later).await.err().unwrap();
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
    let why = inputs.get(&odd).await.err().unwrap();
    assert!(
        why.contains("`d`") && why.contains("no listing of a folder"),
        "{why}"
    );
    world.blob(b"later");
    inputs.get(&later).await.unwrap();
}
