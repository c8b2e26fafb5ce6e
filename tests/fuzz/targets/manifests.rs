//! Manifests and globs: no panic, the same answer twice; what a manifest asks for is sound, its
//! defaults never spoil a document; a glob agrees with a plain recursion over its parts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_fuzz::text;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::{Glob, Json, ModuleName, TaskDocument};

fuzz_target!(|data: &[u8]| {
    let text = text(data);
    // The first line is a path or params, the rest a glob or a manifest.
    let (first, rest) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(manifest) = Manifest::parse(rest) {
        manifest
            .capabilities
            .check()
            .expect("what is asked for was checked");
        let completed = manifest.complete(r#"{"module":"m"}"#);
        let document = TaskDocument::parse(&completed).expect("defaults were checked");
        let name = ModuleName::new("m").expect("a name");
        let params = Json::parse(first).ok();
        let judged = manifest.check(&name, params.as_ref().or(document.params.as_ref()));
        assert_eq!(
            judged,
            manifest.check(&name, params.as_ref().or(document.params.as_ref()))
        );
    }
    if let Ok(glob) = Glob::new(rest) {
        let agrees = plainly(
            &glob.as_str().split('/').collect::<Vec<_>>(),
            &first.split('/').collect::<Vec<_>>(),
        );
        assert!(
            agrees.is_none_or(|agrees| agrees == glob.matches(first)),
            "{rest:?} {first:?}"
        );
    }
});

/// Whether a glob matches, by trying everything; `None`: a part of it is more than `*`, `?` and
/// letters, or it is long.
fn plainly(glob: &[&str], path: &[&str]) -> Option<bool> {
    if glob.len() > 6
        || path.len() > 6
        || glob
            .iter()
            .chain(path)
            .any(|part| part.len() > 8 || part.contains('['))
    {
        return None;
    }
    Some(parts(glob, path))
}

fn parts(glob: &[&str], path: &[&str]) -> bool {
    match (glob.split_first(), path.split_first()) {
        (None, _) => path.is_empty(),
        (Some((&"**", rest)), None) => parts(rest, path),
        (Some((&"**", rest)), Some((_, others))) => parts(rest, path) || parts(glob, others),
        (Some(_), None) => false,
        (Some((part, rest)), Some((name, others))) => {
            let (part, name): (Vec<char>, Vec<char>) =
                (part.chars().collect(), name.chars().collect());
            letters(&part, &name) && parts(rest, others)
        }
    }
}

fn letters(glob: &[char], name: &[char]) -> bool {
    match (glob.split_first(), name.split_first()) {
        (None, _) => name.is_empty(),
        (Some(('*', rest)), None) => letters(rest, name),
        (Some(('*', rest)), Some((_, others))) => letters(rest, name) || letters(glob, others),
        (Some(('?', rest)), Some((_, others))) => letters(rest, others),
        (Some((a, rest)), Some((b, others))) => a == b && letters(rest, others),
        (Some(_), None) => false,
    }
}
