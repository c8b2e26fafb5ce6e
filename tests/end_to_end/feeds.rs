//! Feeds as other systems write them, feeds that are given twice, and many tasks that are changed at
//! once.

use serde_json::{Value, json};
use taskmaster_harness::wat::{SLEEP, TRAP, echo};
use taskmaster_harness::{Master, Ran, until};

fn master() -> Master {
    let master = Master::up(2);
    master.drop_module("echo.wat", echo());
    master.drop_module("trap.wat", TRAP);
    master
}

/// Feeds a file of these bytes.
fn feed(master: &Master, bytes: impl AsRef<[u8]>, more: &[&str]) -> Ran {
    let file = master.folder.write("feed.jsonl", bytes);
    master.run(&[&["feed", &file, "--wait"], more].concat())
}

/// The lines of stderr that refuse something.
fn refusals(ran: &Ran) -> Vec<&str> {
    let is_refusal = |line: &&str| line.starts_with("line ");
    ran.err.lines().filter(is_refusal).collect()
}

#[test]
fn what_other_systems_write_instead_of_a_feed_is_refused_once() {
    let master = master();
    let lines = "{\"module\":\"echo\"}\n".repeat(1_000);
    let array = json!(vec![json!({"module": "echo", "params": 1}); 500]);
    let pretty = serde_json::to_string_pretty(&json!({"module": "echo", "params": [1, 2]}));
    let pretty_array = serde_json::to_string_pretty(&array).unwrap();
    let utf16 = |text: &str, mark: bool| -> Vec<u8> {
        let mark = mark.then_some(0xFEFF_u16);
        let units = mark.into_iter().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    };
    for (bytes, words) in [
        (utf16(&lines, true), "the input is UTF-16"),
        (utf16(&lines, false), "iconv -f UTF-16 -t UTF-8"),
        (utf16(&array.to_string(), true), "the input is UTF-16"),
        (pretty.unwrap().into_bytes(), "an object over several lines"),
        (b"{\"tasks\":[{\"module\":\"echo\"}]}".to_vec(), "`tasks`"),
        (
            b"{\"module\":\"echo\",\"params\":NaN}".to_vec(),
            "JSON has no `NaN`",
        ),
        (
            b"{\"module\":\"echo\",\"params\":[-Infinity]}".to_vec(),
            "JSON has no `Infinity`",
        ),
        (b"{'module':'echo'}".to_vec(), "not JSON"),
    ] {
        let ran = feed(&master, bytes, &[]).with(1);
        let refusals = refusals(&ran);
        assert_eq!(refusals.len(), 1, "{}", ran.err);
        assert!(refusals[0].contains(words), "{refusals:?}");
    }
    let ran = feed(&master, pretty_array, &[]).with(0);
    ran.says(&["added 500 tasks"]);
}

#[test]
fn of_many_refusals_the_first_are_told_and_the_others_counted() {
    let master = master();
    let csv = "id,name\n".repeat(300) + "{\"module\":\"echo\"}\n";
    let ran = feed(&master, &csv, &[]).with(1);
    assert_eq!(refusals(&ran).len(), 20, "{}", ran.err);
    let ran = ran.says(&[
        "280 more lines refused; `-o json` tells of each",
        "refused 300 lines",
    ]);
    ran.says(&["added 1 task to job feed-"]);
    // Scripts are told of each.
    let ran = feed(&master, &csv, &["-o", "json"]).with(1);
    assert_eq!(ran.err.matches("malformed_json").count(), 300);
}

#[test]
fn a_byte_order_mark_is_no_part_of_params() {
    let master = master();
    for args in [
        &["call", "echo", "--params", "-"][..],
        &["run", "tasks/echo.wat", "--params", "-"],
    ] {
        let ran = master.run_with(args, "\u{feff}{\"a\": 1.50}\r\n").with(0);
        assert_eq!(ran.out, "{\"a\": 1.50}\n", "{args:?}");
        master
            .run_with(args, "{\0\"\0a\0")
            .with(2)
            .says(&["UTF-16"]);
        master
            .run_with(args, "{\"a\": NaN}")
            .with(2)
            .says(&["JSON has no `NaN`"]);
    }
}

#[test]
fn numbers_are_passed_on_as_they_were_written() {
    let master = master();
    let numbers = [
        "9007199254740993",
        "123456789012345678901234567890",
        "1e400",
        "-0",
        "-0.0",
        "1.10",
        "0.1000000000000000055511151231257827",
        "1E+2",
        "-1e-400",
    ];
    let params = format!("{{\"n\":[{}]}}", numbers.join(", "));
    let called = master.run(&["call", "echo", "--id", "n", "--params", &params]);
    assert_eq!(called.with(0).out, format!("{params}\n"));
    let line = format!("{{\"id\":\"fed\",\"module\":\"echo\",\"params\":{params}}}");
    let followed = master.run_with(&["feed", "--follow"], &line).with(0);
    let through = "{\"id\":\"through\",\"module\":\"echo\",\"params\":{\"$result\":\"fed\"}}";
    let passed = master.run_with(&["feed", "--follow"], through).with(0);
    let here = ["run", "tasks/echo.wat", "--params", &params];
    for shown in [
        followed.out,
        passed.out,
        master.run(&["tasks", "result", "fed"]).with(0).out,
        master
            .run(&["tasks", "show", "fed", "-o", "json"])
            .with(0)
            .out,
        master
            .run(&["tasks", "show", "fed", "-o", "table"])
            .with(0)
            .out,
        master.run(&["tasks", "list", "-o", "jsonl"]).with(0).out,
        master.run(&here).with(0).out,
    ] {
        assert!(shown.contains(&params), "{shown}");
    }
}

#[test]
fn a_feed_that_is_given_twice_says_what_was_there_and_leaves_no_empty_job() {
    let master = master();
    let lines = "{\"id\":\"a\",\"module\":\"echo\"}\n{\"id\":\"b\",\"module\":\"echo\"}\n";
    feed(&master, lines, &["--job", "first"])
        .with(0)
        .says(&["added 2 tasks to job first: done 2"]);
    let jobs = |master: &Master| master.json(&["jobs", "list"]).as_array().unwrap().len();
    assert_eq!(jobs(&master), 1);
    let again = feed(&master, lines, &[]).with(0);
    assert!(!again.err.contains("job feed-"), "{}", again.err);
    again.says(&["added nothing, 2 tasks there already: done 2"]);
    let more = format!("{lines}{{\"id\":\"c\",\"module\":\"echo\"}}");
    let more = feed(&master, more, &["-o", "json"]).with(0);
    let summary = more.json();
    assert_eq!(
        [&summary["added"], &summary["known"]],
        [&json!(1), &json!(2)]
    );
    more.says(&["added 1 task to job feed-", "2 there already: done 3"]);
    // Lines that name a job of their own open no other one.
    assert_eq!(jobs(&master), 2);
    let own = "{\"id\":\"d\",\"module\":\"echo\",\"job\":\"own\"}";
    let own = feed(&master, own, &[]).with(0);
    assert!(!own.err.contains("job feed-"), "{}", own.err);
    own.says(&["added 1 task to job own: done 1"]);
    assert_eq!(jobs(&master), 3);
}

#[test]
fn a_task_that_is_open_in_another_job_is_waited_for() {
    let master = master();
    master.drop_module("sleep.wat", SLEEP);
    let line = "{\"id\":\"slow\",\"module\":\"sleep\",\"params\":1500}";
    master.run_with(&["feed", "--job", "one"], line).with(0);
    master
        .run_with(&["feed", "--job", "two", "--wait"], line)
        .with(0)
        .says(&["1 task there already: done 1"]);
    assert_eq!(master.task("slow")["state"], "done");
}

#[test]
fn all_that_failed_is_retried_and_a_list_that_is_cut_says_so() {
    let master = master();
    let lines: String = (0..60)
        .map(|n| format!("{{\"id\":\"f{n}\",\"module\":\"trap\"}}\n"))
        .collect();
    feed(&master, lines, &["--job", "bad"]).with(3);
    let listed = master.run(&["tasks", "list", "--state", "failed", "-o", "quiet"]);
    assert_eq!(listed.out.lines().count(), 50);
    listed
        .with(0)
        .says(&["the first 50 are listed, and there are more: raise --limit"]);
    let all = master.run(&["tasks", "list", "--state", "failed", "--limit", "60"]);
    assert_eq!(all.with(0).err, "");

    let retry = ["tasks", "retry", "--job", "bad", "--state", "failed"];
    let ran = master.run(&[&retry[..], &["-o", "json"]].concat()).with(0);
    assert_eq!(ran.json()["reopened"], 60);
    ran.says(&["reopened: 60"]);
    until("all to have failed again", || {
        let tasks = master.json(&["tasks", "list", "--job", "bad", "--limit", "100"]);
        let failed_twice = |task: &&Value| task["state"] == "failed" && task["attempt"] == 2;
        tasks
            .as_array()
            .unwrap()
            .iter()
            .filter(failed_twice)
            .count()
            == 60
    });
    let none = master
        .run(&["tasks", "retry", "--state", "cancelled"])
        .with(0);
    none.says(&["reopened: 0"]);
    master
        .run(&["tasks", "retry", "--state", "ready"])
        .with(2)
        .says(&["--state ready", "failed, cancelled"]);
}

#[test]
fn all_tasks_in_one_state_are_cancelled() {
    let master = master();
    let later: String = (0..30)
        .map(|n| format!("{{\"id\":\"l{n}\",\"module\":\"echo\",\"delay_ms\":3600000}}\n"))
        .collect();
    master
        .run_with(&["feed", "--job", "mixed"], &format!("{later}{{\"id\":\"on\",\"module\":\"echo\",\"requires\":{{\"labels\":{{\"no\":\"one\"}}}}}}"))
        .with(0);
    master
        .run(&["tasks", "cancel", "--job", "mixed", "--state", "delayed"])
        .with(0)
        .says(&["cancelled: 30"]);
    let job = master.job("mixed");
    assert_eq!([&job["cancelled"], &job["ready"]], [&json!(30), &json!(1)]);
}
