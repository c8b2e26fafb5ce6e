//! The files of each template, as they lie in tasks/templates and tasks/sdk.

use crate::cli::Language;

/// Stands for the name of the project in the texts and in the names of files.
pub(super) const PLACEHOLDER: &str = "task-name";

/// A file of a new project.
pub(super) struct TemplateFile {
    /// The path below the project's folder.
    pub(super) path: &'static str,
    /// The content, in which [`PLACEHOLDER`] is replaced where it is text.
    pub(super) bytes: &'static [u8],
}

/// Files as `path in the project = path below tasks/`.
macro_rules! template {
    ($($path:literal = $from:literal,)*) => {
        &[$(TemplateFile {
            path: $path,
            bytes: include_bytes!(concat!("../../../tasks/", $from)),
        },)*]
    };
}

/// Files of every project.
const EVERYWHERE: &[TemplateFile] = template! {
    ".gitignore" = "templates/gitignore",
};

const RUST: &[TemplateFile] = template! {
    "build" = "templates/rust/build",
    "params.json" = "templates/rust/params.json",
    "data/sales.csv" = "templates/rust/data/sales.csv",
    "Cargo.toml" = "templates/rust/Cargo.toml",
    "src/lib.rs" = "templates/rust/src/lib.rs",
    "src/main.rs" = "templates/rust/src/main.rs",
    "sdk/Cargo.toml" = "sdk/rust/Cargo.toml",
    "sdk/README.md" = "sdk/rust/README.md",
    "sdk/src/lib.rs" = "sdk/rust/src/lib.rs",
    "sdk/src/place.rs" = "sdk/rust/src/place.rs",
    "sdk/src/command.rs" = "sdk/rust/src/command.rs",
    "sdk/src/component.rs" = "sdk/rust/src/component.rs",
};

const C: &[TemplateFile] = template! {
    "build" = "templates/c/build",
    "params.json" = "templates/c/params.json",
    "data/photo.ppm" = "templates/c/data/photo.ppm",
    "task.c" = "templates/c/task.c",
    "taskmaster.h" = "sdk/c/taskmaster.h",
};

const CPP: &[TemplateFile] = template! {
    "build" = "templates/cpp/build",
    "params.json" = "templates/cpp/params.json",
    "task.cpp" = "templates/cpp/task.cpp",
    "taskmaster.h" = "sdk/c/taskmaster.h",
};

const ZIG: &[TemplateFile] = template! {
    "build" = "templates/zig/build",
    "params.json" = "templates/zig/params.json",
    "task.zig" = "templates/zig/task.zig",
    "taskmaster.zig" = "sdk/zig/taskmaster.zig",
};

const GO: &[TemplateFile] = template! {
    "build" = "templates/go/build",
    "params.json" = "templates/go/params.json",
    "go.mod" = "templates/go/go.mod",
    "task.go" = "templates/go/task.go",
    "taskmaster.go" = "sdk/go/taskmaster.go",
    "taskmaster_command.go" = "sdk/go/taskmaster_command.go",
    "taskmaster_component.go" = "sdk/go/taskmaster_component.go",
};

const ASSEMBLYSCRIPT: &[TemplateFile] = template! {
    "build" = "templates/assemblyscript/build",
    "params.json" = "templates/assemblyscript/params.json",
    "package.json" = "templates/assemblyscript/package.json",
    "task.ts" = "templates/assemblyscript/task.ts",
    "taskmaster.ts" = "sdk/assemblyscript/taskmaster.ts",
    "command.ts" = "sdk/assemblyscript/command.ts",
    "component.ts" = "sdk/assemblyscript/component.ts",
};

const JAVASCRIPT: &[TemplateFile] = template! {
    "build" = "templates/javascript/build",
    "params.json" = "templates/javascript/params.json",
    "package.json" = "templates/javascript/package.json",
    "task.js" = "templates/javascript/task.js",
    "taskmaster.js" = "sdk/javascript/taskmaster.js",
    "wit/task.wit" = "wit/task.wit",
};

const TYPESCRIPT: &[TemplateFile] = template! {
    "build" = "templates/typescript/build",
    "params.json" = "templates/typescript/params.json",
    "package.json" = "templates/typescript/package.json",
    "tsconfig.json" = "templates/typescript/tsconfig.json",
    "task.ts" = "templates/typescript/task.ts",
    "taskmaster.js" = "sdk/javascript/taskmaster.js",
    "taskmaster.d.ts" = "sdk/javascript/taskmaster.d.ts",
    "wit/task.wit" = "wit/task.wit",
};

const PYTHON: &[TemplateFile] = template! {
    "build" = "templates/python/build",
    "params.json" = "templates/python/params.json",
    "app.py" = "templates/python/app.py",
    "taskmaster.py" = "sdk/python/taskmaster.py",
    "wit/task.wit" = "wit/task.wit",
};

const WAT: &[TemplateFile] = template! {
    "build" = "templates/wat/build",
    "params.json" = "templates/wat/params.json",
    "src/command.wat" = "templates/wat/src/command.wat",
    "src/component.wat" = "templates/wat/src/component.wat",
};

/// The files of a project in this language.
pub(super) fn files(language: Language) -> impl Iterator<Item = &'static TemplateFile> {
    let own = match language {
        Language::Rust => RUST,
        Language::C => C,
        Language::Cpp => CPP,
        Language::Zig => ZIG,
        Language::Go => GO,
        Language::Assemblyscript => ASSEMBLYSCRIPT,
        Language::Javascript => JAVASCRIPT,
        Language::Typescript => TYPESCRIPT,
        Language::Python => PYTHON,
        Language::Wat => WAT,
    };
    own.iter().chain(EVERYWHERE)
}
