//! What a keeper does with a store: checked, exported, imported, backed up; and a store that is
//! damaged.

use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use taskmaster_harness::wat::{argument, echo, larger};
use taskmaster_harness::{Folder, Master, Process, Ran, recorder, run, until};

/// A master with tasks that are done, one with a large result and one that waits for a runner that
/// never comes.
fn with_history() -> Master {
    let master = Master::up(2);
    master.drop_module("echo.wat", echo());
    master.drop_module("ends.wat", argument());
    master.drop_module("larger.wat", larger());
    let lines: String = (0..200)
        .map(|n| format!("{{\"id\":\"t{n}\",\"module\":\"echo\",\"params\":[{n},\"ü\"]}}\n"))
        .collect();
    let file = master.folder.write("tasks.jsonl", lines);
    master
        .run(&["feed", &file, "--job", "history", "--wait"])
        .with(0);
    master.run(&["call", "larger", "--id", "blob"]).with(0);
    master
        .run(&[
            "add",
            "echo",
            "--id",
            "waits",
            "--label",
            "no=where",
            "--job",
            "open",
            "--priority",
            "7",
        ])
        .with(0);
    master
}

fn store(folder: &Folder, args: &[&str], input: &str) -> Ran {
    let mut all = vec!["store"];
    all.extend(args);
    run(folder, &all, &[], input)
}

/// Another master on a data folder of `master`'s, without a runner.
fn start_on(master: &Master, data: &Path) -> (Process, String) {
    let args = [
        "master",
        "--listen",
        "127.0.0.1:0",
        "--tasks",
        "tasks",
        "--data",
        data.to_str().unwrap(),
    ];
    let process = Process::start(&master.folder, &args, &[]);
    let url = Master::ready(&process);
    (process, url)
}

fn is_blob(line: &str, hash: &str) -> bool {
    line.starts_with(&format!("{{\"blob\":{{\"hash\":\"{hash}\""))
}

fn show(master: &Master, url: &str, id: &str) -> Value {
    run(
        &master.folder,
        &["tasks", "show", id, "-o", "json"],
        &[("TASKMASTER_URL", url)],
        "",
    )
    .with(0)
    .json()
}

#[test]
fn an_export_is_imported_and_nothing_is_missing() {
    let mut master = with_history();
    let was = ["t17", "blob", "waits"].map(|id| (id, master.task(id)));
    assert_eq!(master.process.terminate(), Some(0));
    let export = store(&master.folder, &["export", "--data", "data"], "").with(0);
    let lines = export.lines();
    let of = |kind: &str| lines.iter().filter(|line| !line[kind].is_null()).count();
    assert_eq!(
        (of("ended"), of("open"), of("module"), of("job"), of("end")),
        (201, 1, 3, 3, 1)
    );
    assert_eq!(of("blob"), 4, "one each of three modules and of a result");

    store(&master.folder, &["check", "--data", "data"], "").with(0);

    // Cut off, it is refused, and nothing is left behind.
    let cut = export.out.rsplit_once("{\"end\"").unwrap().0;
    store(&master.folder, &["import", "--data", "new"], cut)
        .with(1)
        .says(&["cut off"]);
    store(
        &master.folder,
        &["import", "--data", "new"],
        &format!("{cut}nonsense\n"),
    )
    .with(1)
    .says(&[&format!("line {}:", lines.len())]);
    // A result whose bytes are not in it is not believed.
    let hash = was[1].1["result_blob"].as_str().unwrap();
    let without: String = export
        .out
        .split_inclusive('\n')
        .filter(|line| !is_blob(line, hash))
        .collect();
    store(&master.folder, &["import", "--data", "new"], &without)
        .with(1)
        .says(&["names blob", hash]);
    assert!(!master.folder.join("new/store").exists() && !master.folder.join("new/blobs").exists());
    store(&master.folder, &["import", "--data", "new"], &export.out).with(0);
    store(&master.folder, &["import", "--data", "new"], &export.out)
        .with(1)
        .says(&["holds a store already"]);
    let check = store(
        &master.folder,
        &["check", "--data", "new", "-o", "json"],
        "",
    )
    .with(0)
    .json();
    assert_eq!(
        (&check["ok"], &check["ended"], &check["open"]),
        (&true.into(), &201.into(), &1.into()),
        "{check}"
    );
    assert_eq!(check["blobs"], 4, "{check}");

    let (_process, url) = start_on(&master, &master.folder.join("new"));
    for (id, was) in was {
        assert_eq!(show(&master, &url, id), was);
    }
}

#[test]
fn what_is_left_of_a_store_without_a_blob_is_exported_and_said() {
    let mut master = with_history();
    let hash = master.task("blob")["result_blob"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(master.process.terminate(), Some(0));
    fs::remove_file(
        master
            .folder
            .join("data/blobs")
            .join(&hash[..2])
            .join(&hash),
    )
    .unwrap();
    store(&master.folder, &["check", "--data", "data"], "")
        .with(1)
        .says(&["wrong: blob", &hash]);
    let export = store(&master.folder, &["export", "--data", "data"], "").with(1);
    let lines = export.out.clone();
    export.says(&["lost: blob", &hash, "all else is exported"]);
    let import = store(&master.folder, &["import", "--data", "new"], &lines).with(0);
    import.says(&["202 tasks and 3 blobs imported", "lost: blob", &hash]);
    let (_process, url) = start_on(&master, &master.folder.join("new"));
    assert_eq!(show(&master, &url, "blob")["result_blob"], *hash);
}

#[test]
fn a_running_master_is_backed_up_and_the_copy_goes_on() {
    let master = with_history();
    let many: String = (0..3_000)
        .map(|n| format!("{{\"id\":\"m{n}\",\"module\":\"echo\",\"params\":{n}}}\n"))
        .collect();
    let file = master.folder.write("many.jsonl", many);
    let mut feed = master.spawn(&["feed", &file, "--job", "many", "--wait"]);
    until("some of the job", || {
        let ran = master.run(&["jobs", "show", "many", "-o", "json"]);
        ran.code == 0 && ran.json()["done"].as_u64().unwrap() > 100
    });
    let copy = master.folder.join("copy");
    let backup = |to: &Path| {
        master.run(&[
            "store",
            "backup",
            to.to_str().unwrap(),
            "--data",
            "data",
            "-o",
            "json",
        ])
    };
    let told = backup(&copy).with(0).json();
    assert!(
        told["records"].as_u64().unwrap() > 0 && told["blobs"].as_u64().unwrap() >= 2,
        "{told}"
    );
    backup(&copy).with(1).says(&["is not empty"]);
    assert_eq!(feed.exit_code(), Some(0), "{}", feed.said());

    store(&master.folder, &["check", "--data", "copy"], "").with(0);
    let (_process, url) = start_on(&master, &copy);
    assert_eq!(
        show(&master, &url, "t17")["result"],
        master.task("t17")["result"]
    );
    assert_eq!(show(&master, &url, "waits")["priority"], 7);
    store(&master.folder, &["check", "--data", "data"], "")
        .with(1)
        .says(&["in use by another master"]);
}

#[test]
fn a_store_of_a_stopped_master_is_copied() {
    let mut master = with_history();
    assert_eq!(master.process.terminate(), Some(0));
    store(&master.folder, &["backup", "copy", "--data", "data"], "").with(0);
    store(&master.folder, &["check", "--data", "copy"], "").with(0);
    let exported = |data: &str| {
        let mut lines = store(&master.folder, &["export", "--data", data], "")
            .with(0)
            .lines();
        lines.sort_by_key(Value::to_string);
        lines
    };
    assert_eq!(exported("copy"), exported("data"));
    store(&master.folder, &["check", "--data", "nowhere"], "")
        .with(1)
        .says(&["there is no store in nowhere"]);
}

/// Ends a master by force, changes its store, and says how it ends then; 0: it is ready.
fn started_after(spoil: impl FnOnce(&Path)) -> (i32, String, Master) {
    let mut master = with_history();
    master.process.kill();
    spoil(&master.folder.join("data/store/db"));
    let args = [
        "master",
        "--listen",
        "127.0.0.1:0",
        "--tasks",
        "tasks",
        "--data",
        "data",
    ];
    let mut process = Process::start(&master.folder, &args, &[]);
    until("a master that is ready or has ended", || {
        process.said().contains("listening on") || process.has_ended()
    });
    let code = if process.has_ended() {
        process.exit_code().unwrap_or(-1)
    } else {
        0
    };
    let said = process.said();
    drop(process);
    (code, said, master)
}

#[test]
fn an_emptied_store_is_never_taken_for_a_new_one() {
    let ways: [fn(&Path); 3] = [
        |db| fs::write(db, "").unwrap(),
        |db| fs::remove_file(db).unwrap(),
        |db| fs::remove_dir_all(db.parent().unwrap()).unwrap(),
    ];
    for spoil in ways {
        let (code, said, _master) = started_after(spoil);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("Restore a copy"), "{said}");
    }
}

#[test]
fn a_store_that_is_damaged_within_is_refused() {
    let (code, said, master) = started_after(|db| {
        let file = OpenOptions::new().read(true).write(true).open(db).unwrap();
        let length = file.metadata().unwrap().len();
        // A stroke through all of it.
        for at in (8_192..length).step_by(4_096) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        }
    });
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("Restore a copy"), "{said}");
    store(&master.folder, &["check", "--data", "data"], "").with(1);
}

#[test]
fn a_disk_that_fails_to_sync_ends_the_master_and_loses_nothing() {
    let tools = Folder::new();
    let library = recorder::compile(&tools);
    let failing = tools.join("failing");
    let settings = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAIL_SYNCS", failing.to_str().unwrap()),
    ];
    let mut master = Master::with_settings("master", &[], &settings, "RECORDER_ROOT");
    master.drop_module("echo.wat", echo());
    for n in 0..20 {
        master
            .run(&["add", "echo", "--id", &format!("before-{n}")])
            .with(0);
    }
    fs::write(&failing, "").unwrap();
    let mut during = master.spawn(&["add", "echo", "--id", "during"]);
    assert_eq!(master.process.exit_code(), Some(1));
    assert!(
        !during.has_ended() && during.printed().is_empty(),
        "an add was acknowledged that is not durable"
    );
    let said = master.process.said();
    assert!(
        said.contains("the journal failed") && said.contains("Start it again"),
        "{said}"
    );
    fs::remove_file(&failing).unwrap();
    master.start_again();
    assert_eq!(
        (during.exit_code(), during.printed().as_str()),
        (Some(0), "during\n")
    );
    for n in 0..20 {
        assert_eq!(master.task(&format!("before-{n}"))["state"], "ready");
    }
}

#[test]
fn a_store_of_every_released_format_opens() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let files = fs::read_dir(&fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let stores: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "gz"))
        .collect();
    assert!(
        !stores.is_empty(),
        "there is no fixture in {}",
        fixtures.display()
    );
    for file in stores {
        let mut master = Master::up(1);
        let data = master.folder.join("old");
        fs::create_dir(&data).unwrap();
        let unpacked = Command::new("tar")
            .arg("-xzf")
            .arg(&file)
            .arg("-C")
            .arg(&data)
            .status()
            .unwrap();
        assert!(unpacked.success());
        assert_eq!(master.process.terminate(), Some(0));
        store(&master.folder, &["check", "--data", "old"], "").with(0);
        let (_process, url) = start_on(&master, &data);
        let task = |id: &str| show(&master, &url, id);
        assert_eq!(
            (&task("done")["state"], &task("done")["result"]["text"]),
            (&"done".into(), &"ü".into())
        );
        assert_eq!(
            (&task("failed")["state"], &task("failed")["error"]["kind"]),
            (&"failed".into(), &"trap".into())
        );
        assert_eq!(
            (&task("waits")["state"], &task("waits")["priority"]),
            (&"ready".into(), &7.into())
        );
        let states = ["follows", "cancelled", "newest"].map(|id| task(id)["state"].clone());
        assert_eq!(states, ["blocked", "cancelled", "ready"]);
    }
}
