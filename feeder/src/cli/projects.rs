//! The options of the commands for authors of tasks: `new`, `dev`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use taskmaster_protocol::{Json, ModuleName};

pub(super) const NEW_HELP: &str = "\
A project is a folder named as its module. `./build` in it makes NAME.wasm, a command;
`./build component`, where the language has both, a component. params.json has params to try
it with, data/ files that it reads.

Examples:
  taskmaster new hello --lang rust
  taskmaster new hello --lang python && cd hello && taskmaster dev

Exit codes:
  0  written, also where a tool is missing      1  the folder exists already, or an error";

pub(super) const DEV_HELP: &str = "\
Runs ./build whenever a file of the project changes, puts the module into the task folder of
the master, and runs it there with the params of params.json; without a master it runs here.
Files in data/ are its inputs. A line of JSON that is typed here becomes its params.

Examples:
  taskmaster dev
  taskmaster dev hello --params '{\"width\": 200}'
  taskmaster dev hello --once

Exit codes:
  0  with --once: done      1  it cannot be built, or is no project      3  with --once: it failed";

/// The languages that `new` has a template for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// The template makes a command and a component.
    Rust,
    /// The template makes a command and a component.
    C,
    /// The template makes a command and a component.
    Cpp,
    /// The template makes a command and a component.
    Zig,
    /// The template makes a command and a component.
    Go,
    /// The template makes a command and a component.
    Assemblyscript,
    /// The template makes a component.
    Javascript,
    /// The template makes a component.
    Typescript,
    /// The template makes a component.
    Python,
    /// WebAssembly's own text form; the template makes a command and a component.
    Wat,
}

impl Language {
    /// The language as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::Zig => "zig",
            Language::Go => "go",
            Language::Assemblyscript => "assemblyscript",
            Language::Javascript => "javascript",
            Language::Typescript => "typescript",
            Language::Python => "python",
            Language::Wat => "wat",
        }
    }
}

/// `new`.
#[derive(Debug, Clone, Args)]
pub struct NewOptions {
    /// The name of the folder and of the module
    pub name: ModuleName,
    /// The language
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "rust|c|cpp|zig|go|assemblyscript|javascript|typescript|python|wat"
    )]
    pub lang: Language,
}

/// `dev`.
#[derive(Debug, Clone, Args)]
pub struct DevOptions {
    /// The project's folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub folder: PathBuf,
    /// The params to begin with, instead of those in params.json
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub params: Option<Json>,
    /// Build and run once, then end
    #[arg(long)]
    pub once: bool,
}

fn json(text: &str) -> Result<Json, String> {
    Json::from_bytes(text.as_bytes()).map_err(|error| format!("it {error}"))
}
