use super::*;
use crate::cli::Command;
use taskmaster_master::cli::MasterArgs;
use taskmaster_runner::cli::RunnerArgs;

fn file(text: &str) -> ConfigFile {
    ConfigFile::from_text("farm.toml".into(), text).unwrap()
}

/// What the command line means over the file `text`.
fn parsed(text: &str, line: &[&str]) -> Cli {
    let file = file(text);
    file.check_values(Some(line[0])).unwrap();
    let tree = file.as_defaults(Cli::command(), Some(line[0]));
    let line = ["taskmaster"].iter().chain(line);
    Cli::from_arg_matches(&tree.try_get_matches_from(line).unwrap()).unwrap()
}

fn master(text: &str, line: &[&str]) -> MasterArgs {
    match parsed(text, line).command {
        Command::Master(args) => args,
        Command::Up(args) => args.master,
        _ => panic!("no master: {line:?}"),
    }
}

fn runner(text: &str, line: &[&str]) -> RunnerArgs {
    match parsed(text, line).command {
        Command::Runner(args) => args,
        _ => panic!("no runner: {line:?}"),
    }
}

/// Why a file is refused, when it is read or when `command` looks at its values.
fn refusal(text: &str, command: &str) -> String {
    ConfigFile::from_text("farm.toml".into(), text)
        .and_then(|file| file.check_values(Some(command)))
        .unwrap_err()
        .to_string()
}

#[test]
fn the_command_line_is_over_the_file_and_the_file_over_the_default() {
    let text = "[master]\nkeep = '1d'\ngrace = '5s'";
    let args = master(text, &["master", "--grace", "7s"]);
    assert_eq!(args.grace, "7s");
    assert_eq!(args.keep, "1d");
    assert_eq!(args.durability, "sync");
}

#[test]
fn a_table_concerns_its_command_alone() {
    let text = "[master]\nkeep = '1d'\n[up]\nkeep = '2d'";
    assert_eq!(master(text, &["master"]).keep, "1d");
    assert_eq!(master(text, &["up"]).keep, "2d");
    assert_eq!(master("[up]\nkeep = '2d'", &["master"]).keep, "7d,1000000");
}

#[test]
fn what_stands_at_the_top_is_for_every_command() {
    let text = "url = 'ws://10.0.0.5:3232'\ntoken = 'abc'\n[runner]\ntoken = 'def'";
    let client = parsed(text, &["top"]);
    assert_eq!(client.global.url.as_deref(), Some("ws://10.0.0.5:3232"));
    assert_eq!(client.global.token.as_deref(), Some("abc"));
    assert_eq!(master(text, &["master"]).token.as_deref(), Some("abc"));
    let args = runner(text, &["runner"]);
    assert_eq!(args.url, "ws://10.0.0.5:3232");
    assert_eq!(args.token.as_deref(), Some("def"));
    let args = runner(text, &["runner", "--url", "ws://a", "--token", "ghi"]);
    assert_eq!(args.url, "ws://a");
    assert_eq!(args.token.as_deref(), Some("ghi"));
}

#[test]
fn options_that_can_be_repeated_are_lists() {
    let text = "[runner]\nlabel = ['gpu=no', 'zone=b']\nmodules = ['resize', 'thumbnail']";
    let args = runner(text, &["runner"]);
    assert_eq!(
        args.labels,
        [("gpu", "no"), ("zone", "b")].map(|(key, value)| (key.into(), value.into()))
    );
    assert_eq!(args.modules.len(), 2);
    let args = runner(text, &["runner", "--label", "a=b"]);
    assert_eq!(args.labels, [("a".into(), "b".into())]);
    assert_eq!(
        runner("[runner]\nmodules = 'a,b'", &["runner"])
            .modules
            .len(),
        2
    );
}

#[test]
fn flags_are_true_or_false_and_numbers_are_numbers() {
    let text = "[master]\nrequire-approved = true\nmemory-mb = 64";
    let args = master(text, &["master"]);
    assert!(args.require_approved);
    assert_eq!(args.memory_mb, 64);
    assert!(!master("[master]\nrequire-approved = false", &["master"]).require_approved);
    assert!(
        master(
            "[master]\nrequire-approved = false",
            &["master", "--require-approved"]
        )
        .require_approved
    );
}

#[test]
fn a_key_that_is_no_option_is_told_with_near_names() {
    for (text, told) in [
        (
            "[master]\nblob_cache_mb = 1",
            "farm.toml: [master] blob_cache_mb: `taskmaster master` has no such option (did you mean `blob-cache-mb`?)",
        ),
        (
            "tokn = 'x'",
            "farm.toml: tokn: no such option is common to all commands (did you mean `token`?)",
        ),
        (
            "listen = '0.0.0.0:3232'",
            "farm.toml: listen: this option belongs into the table [master] or [up]",
        ),
        (
            "[mastr]\nkeep = '1d'",
            "farm.toml: there is no table [mastr] (did you mean `master`?); tables are [master], [runner] and [up]",
        ),
    ] {
        assert_eq!(refusal(text, "top"), told);
    }
    // A file cannot name another one.
    assert!(refusal("config = 'other.toml'", "top").starts_with("farm.toml: config: "));
}

#[test]
fn a_wrong_value_is_told_with_what_would_be_right() {
    for (text, told) in [
        (
            "[master]\nmemory-mb = 0",
            "farm.toml: [master] memory-mb = 0: 0 is not in 1..=4096",
        ),
        (
            "[master]\nkeep = 'soon'",
            "farm.toml: [master] keep = \"soon\": `soon`",
        ),
        (
            "[master]\nkeep = true",
            "farm.toml: [master] keep = true: the option takes one value: a text or a number",
        ),
        (
            "[master]\nrequire-approved = 'yes'",
            "farm.toml: [master] require-approved = \"yes\": the option is a flag: true or false",
        ),
        (
            "log-format = 'xml'",
            "farm.toml: log-format = \"xml\": [possible values: text, json]",
        ),
        ("url = 'ftp://a'", "farm.toml: url = \"ftp://a\": "),
        (
            "token = 5.5\n[master]\ntoken = ['x']",
            "farm.toml: [master] token = …: ",
        ),
    ] {
        let refusal = refusal(text, "master");
        assert!(refusal.starts_with(told), "{refusal}");
    }
    let refusal = refusal("[runner]\nlabel = ['gpu']", "runner");
    assert!(
        refusal.starts_with("farm.toml: [runner] label = [\"gpu\"]: "),
        "{refusal}"
    );
}

#[test]
fn values_are_checked_for_the_command_that_takes_them() {
    let text = "[runner]\nsecrets = '/nowhere/at/all'";
    assert!(file(text).check_values(Some("master")).is_ok());
    let told = refusal(text, "runner");
    assert!(
        told.starts_with("farm.toml: [runner] secrets = \"/nowhere/at/all\": "),
        "{told}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_with_the_line_and_without_its_text() {
    let told = refusal("log = 'info'\ntoken = secret", "top");
    assert!(told.starts_with("farm.toml, line 2: "), "{told}");
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn the_file_is_found_wherever_it_stands_on_the_line() {
    let wanted = |line: &[&str]| {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        Wanted::by(&line).map(|wanted| (wanted.path, wanted.command))
    };
    let found = Some((PathBuf::from("f.toml"), Some("master".to_owned())));
    assert_eq!(
        wanted(&["taskmaster", "--config", "f.toml", "master"]),
        found
    );
    assert_eq!(
        wanted(&["taskmaster", "master", "--config", "f.toml"]),
        found
    );
    assert_eq!(wanted(&["taskmaster", "master"]), None);
    assert_eq!(
        wanted(&["taskmaster", "master", "--config", "f.toml", "--help"]),
        None
    );
}
