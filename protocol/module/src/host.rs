//! The world in `tasks/wit`: what a component of it exports, and what runners offer to it.

use crate::signature::{Signature, WitType};

/// The interface that runners offer, without its version.
const HOST: &str = "taskmaster:task/host";

/// The beginning of the versions that runners offer.
const VERSIONS: &str = "1.";

/// The functions of the interface. A component may also import each of them by its bare name, as a
/// function of its world.
const FUNCTIONS: &[(&str, &str)] = &[
    ("progress", "func(fraction: f32, note: string)"),
    ("partial", "func(value: string)"),
    ("log", "func(text: string)"),
    ("is-cancelled", "func() -> bool"),
    ("add", "func(task: string) -> result<string, string>"),
    ("then", "func(task: string) -> result<_, string>"),
    ("cache", "func(ttl-seconds: u32)"),
];

/// Whether this import is the interface of the world.
pub(crate) fn is_host(name: &str) -> bool {
    match name.split_once('@') {
        Some((name, version)) => name == HOST && version.starts_with(VERSIONS),
        None => name == HOST,
    }
}

/// The type of a function of the interface, as WIT writes it.
pub(crate) fn function(name: &str) -> Option<&'static str> {
    FUNCTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, signature)| *signature)
}

/// Whether this is the type of the world's `run`: `func(params: string) -> result<string, error>`.
/// The error may also be a string, which says nothing about retries.
pub(crate) fn is_run(signature: &Signature) -> bool {
    let Signature { params, result } = signature;
    let [(name, WitType::String)] = params.as_slice() else {
        return false;
    };
    let Some(WitType::Result(Some(ok), Some(error))) = result else {
        return false;
    };
    name == "params"
        && **ok == WitType::String
        && (**error == WitType::String || **error == error_type())
}

fn error_type() -> WitType {
    WitType::Variant(vec![
        ("retryable".into(), Some(WitType::String)),
        ("permanent".into(), Some(WitType::String)),
    ])
}
