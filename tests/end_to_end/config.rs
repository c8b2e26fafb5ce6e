//! The config file: what it says counts, below the environment and the command line.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use taskmaster_harness::{Folder, Master, Process, run, until, wait_for};

/// A master that is started from a config file alone.
fn configured_master(folder: &Folder, more: &str) -> Process {
    let text = format!(
        "{more}\n[master]\nlisten = '127.0.0.1:0'\ndata = 'kept'\ntasks = 'modules'\ntoken = 'of-master'\n"
    );
    let file = folder.write("farm.toml", text);
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(folder.join("modules")).unwrap();
    Process::start(folder, &["master", "--config", &file], &[])
}

#[test]
fn a_master_and_its_clients_live_on_one_file() {
    let folder = Folder::new();
    let mut master = configured_master(&folder, "");
    let url = Master::ready(&master);
    assert!(folder.join("kept").is_dir());
    let config = folder.write(
        "client.toml",
        format!("url = '{url}'\ntoken = 'of-master'\n"),
    );
    let settings = [("TASKMASTER_CONFIG", config.as_str())];
    run(&folder, &["jobs", "list"], &settings, "").with(0);
    assert_eq!(master.terminate(), Some(0));
}

#[test]
fn an_option_is_over_the_environment_and_the_environment_over_the_file() {
    let folder = Folder::new();
    let master = configured_master(&folder, "");
    let url = Master::ready(&master);
    let config = folder.write("client.toml", format!("url = '{url}'\ntoken = 'of-file'\n"));
    let list = ["jobs", "list", "--config", &config];
    run(&folder, &list, &[], "").with(1);
    let environment = [("TASKMASTER_TOKEN", "of-master")];
    run(&folder, &list, &environment, "").with(0);
    let wrong = [("TASKMASTER_TOKEN", "of-environment")];
    run(&folder, &list, &wrong, "").with(1);
    let mut typed = list.to_vec();
    typed.extend(["--token", "of-master"]);
    run(&folder, &typed, &wrong, "").with(0);
}

#[test]
fn a_runner_takes_its_options_from_the_file() {
    let master = Master::up(0);
    let config = master.folder.write(
        "runner.toml",
        format!(
            "url = '{}'\n[runner]\nname = 'filed'\nslots = 3\nlabel = ['zone=b']\ncache = 'c'\n",
            master.url
        ),
    );
    let _runner = Process::start(&master.folder, &["runner", "--config", &config], &[]);
    let runner = wait_for("the runner in the list", || {
        let listed = master.json(&["runners", "list"]);
        let runners = listed.as_array().unwrap().clone();
        runners
            .into_iter()
            .find(|runner| runner["runner"] == "filed")
    });
    assert_eq!(runner["slots"], 3);
    assert_eq!(runner["offer"]["labels"]["zone"], "b");
}

#[test]
fn a_wrong_file_is_a_usage_error_that_names_file_key_and_value() {
    let folder = Folder::new();
    let refused = |text: &str, words: &[&str]| {
        let config = folder.write("wrong.toml", text);
        let ran = run(&folder, &["master", "--config", &config], &[], "");
        ran.with(2).says(&[&config]).says(words);
    };
    refused("[master]\nkeeep = '1d'", &["keeep", "did you mean `keep`"]);
    refused("[master]\nkeep = 'soon'", &["keep = \"soon\""]);
    refused("[master]\nmemory-mb = 0", &["memory-mb = 0", "1..=4096"]);
    refused("[master", &["line 1"]);
    run(&folder, &["master", "--config", "nowhere.toml"], &[], "")
        .with(2)
        .says(&["--config nowhere.toml"]);
}

#[test]
fn a_token_that_everybody_can_read_is_warned_of() {
    let folder = Folder::new();
    let config = folder.write(
        "open.toml",
        "token = 'secret'\n[master]\nlisten = '127.0.0.1:0'\n",
    );
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    let master = Process::start(&folder, &["master", "--config", &config], &[]);
    until("the warning", || {
        let said = master.said();
        said.contains("WARN") && said.contains("open.toml") && said.contains("chmod 640")
    });
    assert!(!master.said().contains("secret"));
    drop(master);

    fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
    let master = Process::start(&folder, &["master", "--config", &config], &[]);
    Master::ready(&master);
    assert!(!master.said().contains("chmod"));
}
