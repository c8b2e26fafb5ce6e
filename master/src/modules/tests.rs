//! Real files in a real folder; the tests wait for what the engine is told, never for the clock.

use super::scratch::fake_engine;
use super::*;
use std::fs;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use taskmaster_engine::inbox::{Input, ModuleFile};
use taskmaster_protocol::Hash;

/// A sound module that differs by `n`.
fn sound(n: u32) -> String {
    format!(r#"(module (global i32 (i32.const {n})) (func (export "_start")))"#)
}

fn version(n: u32) -> Hash {
    Hash::of(sound(n).as_bytes())
}

fn name(text: &str) -> ModuleName {
    ModuleName::new(text).unwrap()
}

struct World {
    scratch: tempfile::TempDir,
    blobs: Blobs,
    folder: ModuleFolder,
    inputs: Receiver<Input>,
    /// The lists of approved modules that were told on the way.
    approved: std::cell::RefCell<Vec<BTreeSet<Hash>>>,
}

impl World {
    fn new() -> World {
        World::with(|_| {}, &[])
    }

    fn with(before: impl Fn(&Path), known: &[&str]) -> World {
        let scratch = tempfile::tempdir().unwrap();
        let tasks = scratch.path().join("tasks");
        fs::create_dir_all(&tasks).unwrap();
        before(&tasks);
        let blobs = Blobs::open(scratch.path()).unwrap();
        let (handle, inputs) = fake_engine();
        let folder = start(FolderConfig {
            path: &tasks,
            blobs: blobs.clone(),
            handle,
            known: known.iter().map(|n| name(n)).collect(),
            require_approved: true,
        })
        .unwrap();
        World {
            scratch,
            blobs,
            folder,
            inputs,
            approved: Default::default(),
        }
    }

    fn file(&self, file: &str) -> PathBuf {
        self.scratch.path().join("tasks").join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.file(file), text).unwrap();
    }

    /// The next thing that the engine is told: `x sound 1a2b…`, `x unsound …`, `x gone`.
    fn told(&self) -> (String, ModuleFile) {
        match self
            .inputs
            .recv_timeout(Duration::from_secs(20))
            .expect("nothing was told in 20 s")
        {
            Input::Module { name, seen, known } => {
                if let Some(known) = known {
                    let _ = known.send(());
                }
                (name.to_string(), seen)
            }
            Input::Approved(list) => {
                // A file that was changed just before is read again, and told again.
                if self.approved.borrow().last() != Some(&list) {
                    self.approved.borrow_mut().push(list);
                }
                self.told()
            }
            other => panic!("{other:?}"),
        }
    }

    fn told_sound(&self, module: &str, n: u32) {
        let (name, seen) = self.told();
        assert!(
            matches!(&seen, ModuleFile::Sound { version: v, .. } if *v == version(n)),
            "{name} {seen:?}"
        );
        assert_eq!(name, module);
        assert_eq!(
            self.blobs.get(&version(n)).unwrap(),
            sound(n).as_bytes(),
            "told before its bytes were kept"
        );
    }

    fn told_unsound(&self, module: &str, words: &str) {
        let (name, seen) = self.told();
        assert!(
            matches!(&seen, ModuleFile::Unsound { error } if error.contains(words)),
            "{name} {seen:?}"
        );
        assert_eq!(name, module);
    }

    fn told_gone(&self, module: &str) {
        assert_eq!(self.told(), (module.to_owned(), ModuleFile::Gone));
    }

    /// Nothing was told up to here: the next thing is a module dropped now.
    fn told_nothing_else(&self) {
        self.write("fence.wat", &sound(4_711));
        self.told_sound("fence", 4_711);
    }
}

#[test]
fn the_folder_may_be_a_link_and_what_it_leads_to_now_counts() {
    let scratch = tempfile::tempdir().unwrap();
    let release = |n: u32| scratch.path().join(format!("release-{n}"));
    for n in [1, 2] {
        fs::create_dir(release(n)).unwrap();
        fs::write(release(n).join("x.wat"), sound(n)).unwrap();
    }
    let world = World::with(
        |tasks| {
            fs::remove_dir(tasks).unwrap();
            std::os::unix::fs::symlink(release(1), tasks).unwrap();
        },
        &[],
    );
    world.told_sound("x", 1);
    let next = world.scratch.path().join("next");
    std::os::unix::fs::symlink(release(2), &next).unwrap();
    fs::rename(&next, world.scratch.path().join("tasks")).unwrap();
    world.told_sound("x", 2);
    fs::remove_dir_all(release(1)).unwrap();
    fs::write(release(2).join("y.wat"), sound(3)).unwrap();
    world.told_sound("y", 3);
    assert_eq!(world.folder.trouble(), None);
    fs::remove_dir_all(release(2)).unwrap();
    let began = Instant::now();
    while world.folder.trouble().is_none() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no trouble is told"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_dropped_module_is_live_within_half_a_second_and_a_replaced_one_too() {
    let world = World::new();
    let start = Instant::now();
    world.write("x.wat", &sound(1));
    world.told_sound("x", 1);
    // The gateway asks the folder, which knows it just after the engine was told.
    while !world.folder.knows(&name("x")) {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    world.write("x.wat", &sound(2));
    world.told_sound("x", 2);
    let other = world.file("other.tmp");
    fs::write(&other, sound(3)).unwrap();
    fs::rename(&other, world.file("x.wat")).unwrap();
    world.told_sound("x", 3);
    world.told_nothing_else();
}

#[test]
fn what_a_manifest_asks_for_is_told_with_its_module_and_again_when_it_changes() {
    let world = World::new();
    let wants = || match world.told() {
        (name, ModuleFile::Sound { wants, .. }) if name == "x" => {
            wants.map(|wants| wants.to_string())
        }
        other => panic!("{other:?}"),
    };
    world.write("x.toml", "[capabilities]\nsecrets = ['KEY']");
    world.write("x.wat", &sound(1));
    assert_eq!(wants().as_deref(), Some("secret KEY"));
    world.write("x.toml", "[capabilities]\nsecrets = ['KEY'");
    std::thread::sleep(Duration::from_millis(600));
    // It is broken, and not only half written: nothing else is known of it than before.
    world.write("x.toml", "[capabilities]\nfolders = ['data']");
    assert_eq!(wants().as_deref(), Some("folder data"));
    fs::remove_file(world.file("x.toml")).unwrap();
    assert_eq!(wants().as_deref(), Some("nothing"));
    assert_eq!(
        *world.approved.borrow(),
        [BTreeSet::new()],
        "no list is an empty one, told before anything else"
    );
    fs::write(
        world.file("approved.sha256"),
        format!("{}  x.wat\n", version(1)),
    )
    .unwrap();
    let told = world.inputs.recv_timeout(Duration::from_secs(20));
    assert!(
        matches!(&told, Ok(Input::Approved(list)) if *list == [version(1)].into()),
        "{told:?}"
    );
    world.write("x.wat", &sound(2));
    world.told_sound("x", 2);
    world.told_nothing_else();
    assert_eq!(
        world.approved.borrow().len(),
        1,
        "what has not changed is not told again"
    );
}

#[test]
fn a_file_written_in_two_halves_is_never_rejected() {
    let world = World::new();
    let text = sound(1);
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(world.file("x.wat")).unwrap();
    use std::io::Write;
    file.write_all(first.as_bytes()).unwrap();
    file.sync_all().unwrap();
    // Closed half written, as a copy does that is cut off and taken up again.
    drop(file);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(world.file("x.wat"))
        .unwrap();
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    world.told_sound("x", 1);
    world.told_nothing_else();
}

#[test]
fn garbage_after_a_good_version_is_told_and_the_good_one_stays_known() {
    let world = World::new();
    world.write("x.wat", &sound(1));
    world.told_sound("x", 1);
    world.write("x.wat", "(module garbage");
    world.told_unsound("x", "line 1 column 9");
    assert!(world.folder.knows(&name("x")));
    world.write("x.wat", &sound(1));
    world.told_sound("x", 1);
    world.write("y.wasm", "");
    world.told_unsound("y", "empty");
    assert!(!world.folder.knows(&name("y")));
    world.told_nothing_else();
}

#[test]
fn a_file_rewritten_ten_times_a_second_is_live_all_the_same() {
    let world = World::new();
    let path = world.file("x.wat");
    let writer = std::thread::spawn(move || {
        for n in 1..=20 {
            fs::write(&path, sound(n)).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let start = Instant::now();
    let mut versions = 0;
    loop {
        let (_, seen) = world.told();
        assert!(matches!(seen, ModuleFile::Sound { .. }), "{seen:?}");
        versions += 1;
        if matches!(seen, ModuleFile::Sound { version: v, .. } if v == version(20)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    writer.join().unwrap();
    assert!(versions >= 5, "only {versions} versions were seen");
}

#[test]
fn the_same_content_is_told_once_and_two_names_may_have_it() {
    let world = World::new();
    world.write("x.wat", &sound(1));
    world.told_sound("x", 1);
    world.write("x.wat", &sound(1));
    world.write("y.wat", &sound(1));
    world.told_sound("y", 1);
    world.told_nothing_else();
}

#[test]
fn renamed_and_deleted_files_are_gone_under_their_old_names() {
    let world = World::new();
    world.write("x.wat", &sound(1));
    world.told_sound("x", 1);
    fs::rename(world.file("x.wat"), world.file("y.wat")).unwrap();
    let mut told = [world.told(), world.told()];
    told.sort_by_key(|(name, _)| name.clone());
    assert_eq!(told[0], ("x".into(), ModuleFile::Gone));
    assert!(matches!(told[1], (ref name, ModuleFile::Sound { .. }) if name == "y"));
    assert_eq!(world.folder.names(), [name("y")]);
    fs::remove_file(world.file("y.wat")).unwrap();
    world.told_gone("y");
    world.told_nothing_else();
}

#[test]
fn a_link_is_followed_and_one_that_leads_nowhere_is_no_file() {
    let world = World::new();
    let target = world.scratch.path().join("target.wat");
    fs::write(&target, sound(1)).unwrap();
    std::os::unix::fs::symlink(&target, world.file("x.wat")).unwrap();
    std::os::unix::fs::symlink(world.scratch.path().join("nowhere"), world.file("y.wat")).unwrap();
    std::os::unix::fs::symlink(world.scratch.path(), world.file("folder.wat")).unwrap();
    world.told_sound("x", 1);
    // Nothing in the folder changes, only what the link leads to: a sweep finds it.
    fs::write(&target, sound(2)).unwrap();
    world.told_sound("x", 2);
    fs::remove_file(&target).unwrap();
    world.told_gone("x");
    world.told_nothing_else();
}

#[test]
fn of_two_files_of_one_name_the_wasm_counts() {
    let world = World::new();
    world.write("x.wasm", &sound(1));
    world.told_sound("x", 1);
    world.write("x.wat", &sound(2));
    world.told_unsound("x", "x.wat: x.wasm has the same name; rename one");
    world.told_sound("x", 1);
    fs::remove_file(world.file("x.wasm")).unwrap();
    world.told_sound("x", 2);
    world.told_nothing_else();
}

#[test]
fn what_is_no_module_file_is_left_alone() {
    let world = World::new();
    for file in [
        ".hidden.wat",
        "x.txt",
        "x.wat~",
        "no name.wat",
        "x.toml",
        "wasm",
        ".wat",
    ] {
        world.write(file, &sound(1));
    }
    fs::create_dir(world.file("folder.wat")).unwrap();
    fs::write(world.file("folder.wat").join("x.wat"), sound(2)).unwrap();
    world.told_nothing_else();
}

#[test]
fn a_start_tells_everything_once_also_what_is_gone() {
    let before = |tasks: &Path| {
        fs::write(tasks.join("a.wat"), sound(1)).unwrap();
        fs::write(tasks.join("b.wat"), "garbage").unwrap();
    };
    let world = World::with(before, &["a", "c"]);
    let mut told = [world.told(), world.told(), world.told()];
    told.sort_by_key(|(name, _)| name.clone());
    assert!(matches!(&told[0], (name, ModuleFile::Sound { .. }) if name == "a"));
    assert!(matches!(&told[1], (name, ModuleFile::Unsound { .. }) if name == "b"));
    assert_eq!(told[2], ("c".into(), ModuleFile::Gone));
    world.told_nothing_else();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_finds_what_was_just_written_and_waits_for_the_engine() {
    let world = World::new();
    assert!(!world.folder.look(&name("x")).await);
    let folder = world.folder.clone();
    world.write("x.wat", &sound(1));
    let look = tokio::spawn(async move { folder.look(&name("x")).await });
    tokio::task::block_in_place(|| world.told_sound("x", 1));
    assert!(look.await.unwrap());
    world.write("bad.wat", "garbage");
    assert!(!world.folder.look(&name("bad")).await);
    assert!(world.folder.look(&name("x")).await);
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("file"), "").unwrap();
    let blobs = Blobs::open(scratch.path()).unwrap();
    let error = start(FolderConfig {
        path: &scratch.path().join("file"),
        blobs,
        handle: fake_engine().0,
        known: Vec::new(),
        require_approved: false,
    })
    .err()
    .unwrap()
    .to_string();
    assert!(
        error.contains("the task folder") && error.contains("cannot be"),
        "{error}"
    );
}
