//! Lines of a feed that name files of this machine: the files are put, and their hashes stand in
//! the lines instead.

use super::line::Line;
use crate::inputs::{Inputs, Settled, refusal};
use crate::trouble::Trouble;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use taskmaster_protocol::Refusal;

/// Inputs as a line has them: a path of this machine is a string, everything else is the master's
/// to judge.
type Written<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow, default)]
    inputs: Option<&'a RawValue>,
}

/// The inputs of a document and where they stand in it, where one of them is a path of this
/// machine.
fn written(text: &str) -> Option<(Written<'_>, Range<usize>)> {
    let raw = serde_json::from_str::<Peek<'_>>(text).ok()?.inputs?;
    let inputs: Written<'_> = serde_json::from_str(raw.get()).ok()?;
    if !inputs.values().any(|value| value.get().starts_with('"')) {
        return None;
    }
    // `raw` is a part of `text`.
    let start = (raw.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some((inputs, start..start + raw.get().len()))
}

fn local_path(base: &Path, value: &RawValue) -> Option<PathBuf> {
    serde_json::from_str::<Cow<'_, str>>(value.get())
        .ok()
        .map(|path| base.join(path.as_ref()))
}

/// Puts the files that `lines` name, relative to `base`; a line whose files cannot be had is
/// refused.
pub async fn settle(
    lines: &mut [Result<Line, Refusal>],
    base: &Path,
    inputs: &mut Inputs,
) -> Result<(), Trouble> {
    let of = |line: &Line| -> Vec<PathBuf> {
        let found = if line.has_inputs {
            written(&line.text)
        } else {
            None
        };
        found.map_or(Vec::new(), |(inputs, _)| {
            inputs
                .values()
                .filter_map(|value| local_path(base, value))
                .collect()
        })
    };
    let paths: BTreeSet<PathBuf> = lines.iter().flatten().flat_map(of).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let settled = inputs.settle(&paths).await?;
    for line in lines {
        let replaced = match line {
            Ok(line) if line.has_inputs => replace(line, base, &settled),
            _ => continue,
        };
        match (replaced, &mut *line) {
            (Ok(text), Ok(line)) => line.text = text,
            (Err(refused), Ok(kept)) => {
                *line = Err(Refusal {
                    line: Some(kept.number),
                    ..refused
                })
            }
            (_, Err(_)) => {}
        }
    }
    Ok(())
}

fn replace(line: &Line, base: &Path, settled: &Settled) -> Result<String, Refusal> {
    let Some((inputs, place)) = written(&line.text) else {
        return Ok(line.text.clone());
    };
    let mut named = BTreeMap::new();
    for (path, value) in &inputs {
        let text = match local_path(base, value).and_then(|file| settled.get(&file)) {
            Some(Ok(input)) => serde_json::to_string(input).unwrap_or_default(),
            Some(Err(why)) => return Err(refusal(path, why)),
            None => value.get().to_owned(),
        };
        named.insert(path.as_ref(), text);
    }
    let members: Vec<String> = named
        .iter()
        .map(|(path, text)| format!("{}:{text}", serde_json::to_string(path).unwrap_or_default()))
        .collect();
    let (before, after) = (&line.text[..place.start], &line.text[place.end..]);
    Ok(format!("{before}{{{}}}{after}", members.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Keys;
    use std::collections::HashMap;
    use taskmaster_protocol::{Hash, InputRef};

    fn line(text: &str) -> Line {
        Line::read(3, text.to_owned(), &Keys::default(), || "made".into()).unwrap()
    }

    #[test]
    fn paths_become_hashes_and_every_other_byte_stays() {
        let (file, folder) = (Hash::of(b"file"), Hash::of(b"folder"));
        let base = Path::new("feeds");
        let settled: Settled = HashMap::from([
            (base.join("a b.svg"), Ok(InputRef::File { sha256: file })),
            (base.join("fonts"), Ok(InputRef::Folder { folder })),
            (base.join("gone"), Err("cannot read feeds/gone".into())),
        ]);
        let text = r#"{ "module":"m", "inputs" : {"x": "a b.svg", "f":"fonts","given":{"sha256":"00"}} ,"params":1.50}"#;
        let named = line(text);
        assert!(named.has_inputs);
        let expected = format!(
            r#"{{"id":"made", "module":"m", "inputs" : {{"f":{{"folder":"{folder}"}},"given":{{"sha256":"00"}},"x":{{"sha256":"{file}"}}}} ,"params":1.50}}"#
        );
        assert_eq!(replace(&named, base, &settled).unwrap(), expected);
        let refused =
            replace(&line(r#"{"id":"i","inputs":{"y":"gone"}}"#), base, &settled).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("inputs.y"));
        assert!(
            refused.message.contains("cannot read feeds/gone"),
            "{refused}"
        );
        for other in [
            r#"{"module":"m"}"#,
            r#"{"module":"m","inputs":{"a":{"sha256":"00"}}}"#,
            r#"{"inputs":[1]}"#,
        ] {
            assert!(written(other).is_none(), "{other}");
        }
    }
}
