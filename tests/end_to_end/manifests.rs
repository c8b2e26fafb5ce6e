//! The manifest beside a module: defaults, the schema of params, typos; all of it hot.

use serde_json::json;
use std::fs;
use std::path::Path;
use taskmaster_harness::{Master, until};

fn sample(name: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tasks")
            .join(name),
    )
    .unwrap()
}

const ECHO: &str = r#"
description = "Gives back what it gets"

[defaults]
priority = 7
job = "echoes"

[schema]
type = "object"
required = ["width"]
additionalProperties = false
properties.width = { type = "integer", minimum = 1 }
properties.sizes = { type = "array", items = { enum = ["s", "m"] } }
"#;

#[test]
fn params_are_held_against_the_schema_and_defaults_fill_the_rest() {
    let master = Master::up(1);
    master.drop_module("echo.wat", sample("echo.wat"));
    master.drop_module("spin.wat", sample("spin.wat"));
    fs::write(master.tasks().join("echo.toml"), ECHO).unwrap();
    fs::write(
        master.tasks().join("spin.toml"),
        "[defaults]\ntimeout_ms = 200\nretries = 0\n",
    )
    .unwrap();
    let feed = [
        json!({"id": "good", "module": "echo", "params": {"width": 1, "sizes": ["s"]}}),
        json!({"id": "own", "module": "echo", "params": {"width": 2}, "priority": 1, "job": "mine"}),
        json!({"id": "refers", "module": "echo", "params": {"width": {"$result": "one"}}, "dependencies": ["own"]}),
        json!({"module": "echo", "params": {"width": 0}}),
        json!({"module": "echo", "params": {"width": 1, "sizes": ["s", "x"]}}),
        json!({"module": "echo", "params": {"widht": 1, "width": 1}}),
        json!({"module": "echo"}),
        json!({"id": "one", "module": "spin"}),
    ];
    let feed: String = feed.iter().map(|task| format!("{task}\n")).collect();
    let ran = master.run_with(&["feed", "--follow"], &feed).with(1);
    for (line, words) in [
        (
            "line 4: ",
            "`params.width`: 0 is less than 1, by the schema of module `echo`",
        ),
        (
            "line 5: ",
            "`params.sizes[1]`: \"x\" is none of \"s\", \"m\"",
        ),
        (
            "line 6: ",
            "`params.widht`: there is no such field (did you mean `width`?)",
        ),
        ("line 7: ", "`params`: it is null, not an object"),
    ] {
        let said = ran
            .err
            .lines()
            .find(|said| said.starts_with(line))
            .unwrap_or_default();
        assert!(said.contains(words), "{line}{words}: {}", ran.err);
    }
    let (good, own, one) = (master.task("good"), master.task("own"), master.task("one"));
    assert_eq!(
        (&good["priority"], &good["state"]),
        (&json!(7), &json!("done"))
    );
    assert_ne!(good["job"], "echoes", "a feed waits for its own job");
    let added = master.json(&["add", "echo", "--params", r#"{"width": 1}"#, "--wait"]);
    assert_eq!(
        (&added["priority"], &added["job"]),
        (&json!(7), &json!("echoes"))
    );
    assert_eq!(
        (&own["priority"], &own["job"]),
        (&json!(1), &json!("mine")),
        "what a document says counts"
    );
    assert_eq!(
        (&one["error"]["kind"], &one["attempt"]),
        (&json!("timeout"), &json!(1))
    );
    // The same document again is the same task, whatever the manifest says by now.
    fs::write(
        master.tasks().join("echo.toml"),
        "[defaults]\npriority = 3\n",
    )
    .unwrap();
    let again =
        json!({"id": "good", "module": "echo", "params": {"width": 1, "sizes": ["s"]}}).to_string();
    master.run_with(&["feed"], &again).with(0);
    assert_eq!(
        master.json(&["add", "echo", "--params", "0", "--wait"])["priority"],
        3,
        "it is hot"
    );
}

#[test]
fn a_typo_in_a_manifest_is_named_and_stops_its_own_module_only() {
    let master = Master::up(1);
    master.drop_module("echo.wat", sample("echo.wat"));
    master.drop_module("sleep.wat", sample("sleep.wat"));
    let manifest = master.tasks().join("echo.toml");
    for (text, words) in [
        (
            "[defaults]\ntimout_ms = 5",
            "unknown field `defaults.timout_ms` (did you mean `timeout_ms`?)",
        ),
        (
            "[schema]\nrequird = []",
            "unknown field `schema.requird` (did you mean `required`?)",
        ),
        (
            "[capabilities]\nhttp = ['https://example.org']",
            "field `capabilities.http`: `https://example.org` is no host",
        ),
        ("nonsense", "line 1: not TOML"),
    ] {
        fs::write(&manifest, text).unwrap();
        let refused = |words: &str| {
            let ran = master.run(&["call", "echo"]);
            ran.code == 1 && ran.err.contains("the manifest echo.toml") && ran.err.contains(words)
        };
        // A file that was changed a moment ago may be half written.
        until(words, || refused(words));
        master.run(&["modules", "check", "tasks/echo.wat"]).with(1);
        assert_eq!(
            master
                .run(&["call", "sleep", "--params", "1"])
                .with(0)
                .out
                .trim(),
            "1"
        );
    }
    fs::remove_file(&manifest).unwrap();
    master.run(&["call", "echo"]).with(0);
    master.run(&["modules", "check", "tasks/echo.wat"]).with(0);
}
