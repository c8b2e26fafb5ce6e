//! What a document names and does not exist here, each with its reason. A test fails when an entry
//! is no longer needed.

/// Tokens between backticks.
pub const EXCEPTIONS: &[(&str, &str)] = &[
    ("./taskmaster-data", "a master makes it"),
    ("--ignored", "an option of cargo test"),
    ("API_KEY", "an example of a secret"),
    ("NAME.wasm", "NAME stands for a name"),
    ("NAME.wat", "NAME stands for a name"),
    ("TimeoutStopSec", "a setting of systemd"),
    ("_us", "the end of a name"),
    ("approved.sha256", "an operator writes it"),
    ("resize.toml", "an example of a manifest"),
    ("resize.wasm", "an example of a module"),
    ("resvg.wasm", "it is fetched from PyPI"),
    ("tmp/", "a task finds it in its folder"),
];
