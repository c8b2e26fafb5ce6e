//! Modules that would exhaust a stack, a core or memory of whoever validates, compiles or names
//! them: they are rejected with the limit, and nobody else notices.

use serde_json::Value;
use std::time::{Duration, Instant};
use taskmaster_harness::wasm::{
    command, loops_over_locals, named, nested_components, nested_types,
};
use taskmaster_harness::wat::{constant, echo};
use taskmaster_harness::{Master, json_lines, until, wait_for};

/// Processes that a process has started and that are there.
fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten();
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            let ids = list.split_whitespace().filter_map(|id| id.parse().ok());
            ids.collect::<Vec<u32>>()
        })
        .collect()
}

/// Resident memory of a process, MiB.
fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    })
    .unwrap_or(0)
        / 1_024
}

fn rejection(master: &Master, name: &str) -> String {
    wait_for("the rejection", || {
        let found = master.json(&["modules", "list"]);
        let row = found
            .as_array()?
            .iter()
            .find(|row| row["name"] == name)?
            .clone();
        Some(row["error"].as_str()?.to_owned())
    })
}

#[test]
fn what_is_nested_too_deep_is_rejected_however_it_comes_and_ends_nobody() {
    let mut master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    for (name, bytes) in [
        ("types", nested_types(20_000)),
        ("components", nested_components(2_000)),
    ] {
        let file = master.folder.join("bomb.wasm");
        std::fs::write(&file, &bytes).unwrap();
        let file = file.to_str().unwrap();
        let checked = master
            .run(&["modules", "check", file, "-o", "json"])
            .with(1);
        let error = checked.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("nested too deep"), "{error}");
        master
            .run(&["modules", "push", file])
            .with(1)
            .says(&["nested too deep"]);
        std::fs::write(master.tasks().join(format!("{name}.wasm")), &bytes).unwrap();
        assert!(rejection(&master, name).contains("nested too deep"));
    }
    master.process.kill();
    master.start_again();
    assert!(rejection(&master, "types").contains("nested too deep"));
    let list = master.json(&["modules", "list"]);
    let echo = |row: &&Value| row["name"] == "echo" && row["state"] == "ready";
    assert!(
        list.as_array().unwrap().iter().any(|row| echo(&row)),
        "{list}"
    );
}

#[test]
fn what_takes_too_much_memory_to_compile_is_told_with_the_option_that_raises_it() {
    let master = Master::with("up", &["--slots", "1", "--compile-memory", "256"]);
    let mut most_mib = 0;
    master.drop_module(
        "bomb.wasm",
        command(40_000, &loops_over_locals(40_000, 2_000)),
    );
    let shown = wait_for("the failure", || {
        let processes = children(master.process.id());
        let now: u64 = processes.into_iter().map(resident_mib).sum();
        most_mib = now.max(most_mib);
        let list = master.json(&["modules", "list"]);
        let row = list.as_array()?.first()?.clone();
        (row["state"] == "failed").then_some(row)
    });
    let why = shown["failure"].as_str().unwrap();
    assert!(
        why.contains("compiling it took more than 256 MiB of memory; --compile-memory raises it"),
        "{why}"
    );
    assert!(most_mib < 600, "{most_mib} MiB");
    let began = Instant::now();
    let ran = master.run(&["call", "bomb", "--retries", "0"]).with(3);
    assert!(
        ran.err.contains("--compile-memory raises it"),
        "{}",
        ran.err
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it is not compiled again"
    );
    master.run(&["doctor"]).with(1);
    master.drop_module("echo.wat", echo());
    master.still_works();
}

/// The file in which a runner remembers that it could not compile a module.
fn verdict(master: &Master) -> Option<std::path::PathBuf> {
    let folder = master.folder.join("runner-cache").join("modules");
    let files = std::fs::read_dir(folder).ok()?.flatten();
    files
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|is| is == "refused"))
}

#[test]
fn what_could_not_be_compiled_is_tried_again_after_a_start_only_with_more_memory() {
    let master = Master::with("master", &[]);
    let start = |memory: &str| {
        let options = ["--slots", "1", "--compile-memory", memory];
        master.runner("mill", &options)
    };
    let call = |words: &str| {
        wait_for("the failure", || {
            let ran = master.run(&["call", "bomb", "--retries", "0"]).with(3);
            ran.err.contains(words).then_some(())
        })
    };
    let mut runner = start("256");
    master.drop_module(
        "bomb.wasm",
        command(40_000, &loops_over_locals(40_000, 2_000)),
    );
    call("more than 256 MiB");
    let first = verdict(&master).unwrap();
    let written = || {
        std::fs::metadata(verdict(&master).unwrap())
            .unwrap()
            .modified()
    };
    let then = written().unwrap();
    assert_eq!(runner.terminate(), Some(0));

    runner = start("256");
    call("more than 256 MiB");
    assert_eq!(verdict(&master), Some(first));
    assert_eq!(written().unwrap(), then, "it was compiled again");
    assert_eq!(runner.terminate(), Some(0));

    let _runner = start("300");
    call("more than 300 MiB");
}

#[test]
fn a_slow_compilation_holds_up_no_other_and_ends_with_its_runner() {
    let mut master = Master::up(1);
    master.drop_module("slow.wasm", command(5_000, &loops_over_locals(5_000, 100)));
    let compiler = wait_for("the compiler", || {
        children(master.process.id()).into_iter().find(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("compile")
        })
    });
    master.drop_module("other.wat", constant("7"));
    let began = Instant::now();
    assert_eq!(master.run(&["call", "other"]).with(0).out, "7\n");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let is_there = || std::fs::exists(format!("/proc/{compiler}")).unwrap();
    assert!(is_there(), "the slow one goes on");
    master.process.kill();
    until("the end of the compiler", || !is_there());
}

#[test]
fn a_name_that_grows_when_it_is_spelled_out_is_cut() {
    let number = |index: usize| {
        let digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index % 36] as char;
        digit.to_string()
    };
    let before = |index: usize| match index {
        0 => "S_".to_owned(),
        more => format!("S{}_", number(more - 1)),
    };
    // A function of a pointer to a function of eight pointers to the function before, twelve times.
    let name: String = (0..12)
        .map(|level| format!("PFv{}E", before(2 * level).repeat(8)))
        .collect();
    let mut bytes = command(0, &[0x00]);
    bytes.extend(named(&format!("_Z1fPi{name}")));
    let master = Master::up(1);
    master.drop_module("names.wasm", &bytes);
    let failed = master
        .run(&["call", "names", "--wait-timeout", "20s"])
        .with(3);
    assert!(failed.err.contains("_Z1fPiPFv"), "{}", failed.err);
    assert!(failed.err.len() < 4_000, "{}", failed.err);
    assert!(resident_mib(master.process.id()) < 800);
}

/// Starts the program that is given after its own arguments where no memory can be made executable
/// that was written before, as services are started with `MemoryDenyWriteExecute=yes`.
const NOTHING_EXECUTABLE: &str = "
import ctypes, os, sys
PR_SET_MDWE = 65
assert ctypes.CDLL(None).prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0, 'the kernel has no PR_SET_MDWE'
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
#[ignore = "needs python3 and a kernel with PR_SET_MDWE (Linux 6.3)"]
fn a_runner_that_may_execute_nothing_is_told_of_as_one() {
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let mut runner = std::process::Command::new("python3")
        .args(["-c", NOTHING_EXECUTABLE])
        .arg(taskmaster_harness::binary())
        .args([
            "runner",
            "--name",
            "strict",
            "--url",
            &master.url,
            "--cache",
        ])
        .arg(master.folder.join("strict"))
        .spawn()
        .unwrap();
    let row = wait_for("the runner's word", || {
        let row = master
            .json(&["modules", "list"])
            .as_array()?
            .first()?
            .clone();
        (row["state"] == "failed").then_some(row)
    });
    let why = row["failure"].as_str().unwrap();
    assert!(
        why.starts_with("runner `strict` cannot execute any module"),
        "{why}"
    );
    assert!(why.contains("MemoryDenyWriteExecute"), "{why}");
    let doctor = master.run(&["doctor"]).with(1);
    assert!(
        doctor.out.contains("cannot execute any module"),
        "{}",
        doctor.out
    );

    // With a runner that can, the module is well.
    let _able = master.runner("able", &[]);
    until("the other runner's word", || {
        master.module("echo")["state"] == "ready"
    });
    master.run(&["doctor"]).with(0);
    runner.kill().unwrap();
    runner.wait().unwrap();
}

/// Each is refused by name within seconds, and by a process that lives.
#[test]
fn files_of_every_shape_are_judged_within_seconds() {
    let master = Master::with("master", &[]);
    for (name, bytes) in shapes() {
        let file = master.folder.join(&format!("{name}.wasm"));
        std::fs::write(&file, &bytes).unwrap();
        let began = Instant::now();
        let ran = master.run(&["modules", "check", file.to_str().unwrap(), "-o", "jsonl"]);
        assert!(
            ran.code == 0 || ran.code == 1,
            "{name}: {} {}",
            ran.code,
            ran.err
        );
        let found = json_lines(&ran.out);
        assert_eq!(found.len(), 1, "{name}: {}", ran.err);
        assert!(ran.out.len() < 6 << 20, "{name}: {} bytes", ran.out.len());
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{name}: {:?}",
            began.elapsed()
        );
        println!(
            "{name}: {} bytes, {:?}: {}",
            bytes.len(),
            began.elapsed(),
            found[0]["error"].as_str().map_or("ok".into(), |text| text
                .chars()
                .take(100)
                .collect::<String>())
        );
    }
}

fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    use taskmaster_harness::wasm::{component, leb, module, section};
    let many =
        |id: u8, count: usize, one: &[u8]| section(id, [leb(count), one.repeat(count)].concat());
    let deep_blocks = [[0x02, 0x40].repeat(1_000_000), vec![0x0b; 1_000_000]].concat();
    let wide_table = [vec![0x41, 0, 0x0e], leb(1_000_000), vec![0; 1_000_001]].concat();
    // Records of two times the record before: two to the power of the last one's number.
    let mut doubling = vec![40, 0x72, 2, 1, b'a', 0x7f, 1, b'b', 0x7f];
    for before in 0..39_u8 {
        doubling.extend([0x72, 2, 1, b'a', before, 1, b'b', before]);
    }
    let long_text = format!(
        "(module (func (export \"_start\")) ;; {}\n)",
        "x".repeat(4 << 20)
    );
    vec![
        ("deep-blocks", command(0, &deep_blocks)),
        ("wide-br-table", command(0, &wide_table)),
        ("types", module(&[many(1, 900_000, &[0x60, 0, 0])])),
        (
            "memories",
            module(&[many(5, 90, &[0x04, 0xff, 0xff, 0xff, 0x0f])]),
        ),
        (
            "tables",
            module(&[many(4, 90, &[0x70, 0x00, 0xff, 0xff, 0xff, 0xff, 0x0f])]),
        ),
        (
            "imports",
            module(&[
                section(1, vec![1, 0x60, 0, 0]),
                many(2, 500_000, &[1, b'm', 1, b'f', 0, 0]),
            ]),
        ),
        (
            "custom-sections",
            module(&vec![section(0, vec![1, b'x']); 300_000]),
        ),
        ("doubling-records", component(&[section(7, doubling)])),
        ("deep-text", "(module (func ".repeat(200_000).into_bytes()),
        (
            "deep-block-text",
            format!("(module (func {}", "(block ".repeat(500_000)).into_bytes(),
        ),
        (
            "deep-component-text",
            "(component ".repeat(100_000).into_bytes(),
        ),
        ("long-text", long_text.into_bytes()),
        ("long-name", {
            let mut bytes = command(0, &[0x00]);
            bytes.extend(named(&"x".repeat(90_000)));
            bytes
        }),
    ]
}
