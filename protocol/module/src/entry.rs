//! Which function of a module a task calls. Master and runner read the functions from types of
//! different libraries; the choice is made here for both.

use crate::host;
use crate::signature::Signature;
use crate::wasi2;
use serde::{Deserialize, Serialize};

/// What a task calls in a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryPoint {
    /// `_start` of a command of WASI preview 1.
    Start,
    /// `run` of a component that is a command, with the name of the exported interface.
    Run(String),
    /// `run` of the world in `tasks/wit`.
    Task,
    /// The only function that a component exports.
    Function {
        /// The interface that the function is in, if any.
        interface: Option<String>,
        /// The name of the function.
        name: String,
        /// The types of its parameters and its result.
        signature: Signature,
    },
}

/// A function that a component exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedFunction {
    /// The interface that the function is in, if any.
    pub interface: Option<String>,
    /// The name of the function.
    pub name: String,
    /// The types of its parameters and its result; or why JSON has no values for them, as the rest
    /// of a sentence.
    pub signature: Result<Signature, String>,
}

/// Functions that one refusal names.
const NAMED_MAX: usize = 10;

const NOTHING: &str = "it exports no function: a task is a command (it exports wasi:cli/run), \
                       a component of the world taskmaster:task (it exports run), \
                       or one that exports exactly one function";

impl EntryPoint {
    /// Chooses what a task calls in a component with these functions. The error says why there is
    /// no choice, as a sentence.
    pub fn choose(mut functions: Vec<ExportedFunction>) -> Result<EntryPoint, String> {
        let interface = |function: &ExportedFunction| {
            function
                .interface
                .clone()
                .filter(|name| wasi2::is_run(name))
        };
        if let Some(name) = functions.iter().find_map(interface) {
            return Ok(EntryPoint::Run(name));
        }
        let is_ours = |function: &ExportedFunction| {
            let ExportedFunction {
                interface,
                name,
                signature,
            } = function;
            interface.is_none() && name == "run" && signature.as_ref().is_ok_and(host::is_run)
        };
        if functions.iter().any(is_ours) {
            return Ok(EntryPoint::Task);
        }
        if functions.len() > 1 {
            let all: Vec<String> = functions
                .iter()
                .take(NAMED_MAX)
                .map(ExportedFunction::path)
                .collect();
            let more = if functions.len() > NAMED_MAX {
                ", …"
            } else {
                ""
            };
            let count = functions.len();
            return Err(format!(
                "it exports {count} functions, and a task calls one: {}{more}",
                all.join(", ")
            ));
        }
        let Some(function) = functions.pop() else {
            return Err(NOTHING.into());
        };
        let path = function.path();
        let ExportedFunction {
            interface,
            name,
            signature,
        } = function;
        let signature = signature.map_err(|why| format!("its function `{path}` {why}"))?;
        Ok(EntryPoint::Function {
            interface,
            name,
            signature,
        })
    }

    /// What is called, for people, with types where there are any.
    pub fn describe(&self) -> String {
        match self {
            EntryPoint::Start => "_start".into(),
            EntryPoint::Run(interface) => format!("{interface}#run"),
            EntryPoint::Task => "run, of the world taskmaster:task".into(),
            EntryPoint::Function {
                interface,
                name,
                signature,
            } => {
                format!("{}: {signature}", path(interface.as_deref(), name))
            }
        }
    }

    /// The types that params must have; `None` where params may be any JSON.
    pub fn signature(&self) -> Option<&Signature> {
        match self {
            EntryPoint::Function { signature, .. } => Some(signature),
            _ => None,
        }
    }
}

impl ExportedFunction {
    /// `interface#function`, or the name of the function alone.
    fn path(&self) -> String {
        path(self.interface.as_deref(), &self.name)
    }
}

fn path(interface: Option<&str>, name: &str) -> String {
    interface.map_or_else(
        || name.to_owned(),
        |interface| format!("{interface}#{name}"),
    )
}
