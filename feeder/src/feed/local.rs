//! Lines of a feed that name files of this machine: the files are put, and their hashes take their
//! places in the lines.

use super::line::{FeedLine, range_of};
use crate::uploads::{InputUploader, UploadedInputs, refusal};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use taskmaster_protocol::Refusal;
use taskmaster_transport::BlobError;

/// The inputs of a line: a path of this machine is a string, everything else is for the master to
/// check.
struct LineInputs<'a> {
    values: BTreeMap<Cow<'a, str>, &'a RawValue>,
    /// Where they stand in the line.
    place: Range<usize>,
}

impl LineInputs<'_> {
    /// The inputs of a document. `None` where none of them is a path of this machine.
    fn read(text: &str) -> Option<LineInputs<'_>> {
        #[derive(Deserialize)]
        struct InputsField<'a> {
            #[serde(borrow, default)]
            inputs: Option<&'a RawValue>,
        }
        let fields: InputsField<'_> = serde_json::from_str(text).ok()?;
        let inputs = fields.inputs?.get();
        let values: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(inputs).ok()?;
        if !values.values().any(|value| value.get().starts_with('"')) {
            return None;
        }
        let place = range_of(inputs, text)?;
        Some(LineInputs { values, place })
    }
}

/// The file that an input names, if it is a path.
fn local_path(base: &Path, value: &RawValue) -> Option<PathBuf> {
    let path: Cow<'_, str> = serde_json::from_str(value.get()).ok()?;
    Some(base.join(path.as_ref()))
}

/// Puts the files that `lines` name, relative to `base`. A line whose files cannot be had is
/// refused.
pub(super) async fn put_inputs(
    lines: &mut [Result<FeedLine, Refusal>],
    base: &Path,
    uploader: &mut InputUploader,
) -> Result<(), BlobError> {
    let paths: BTreeSet<PathBuf> = lines
        .iter()
        .flatten()
        .flat_map(|line| paths_of(line, base))
        .collect();
    if paths.is_empty() {
        return Ok(());
    }
    let uploaded = uploader.upload(&paths).await?;
    for line in lines {
        if let Ok(document) = line
            && document.has_inputs
        {
            match replace(document, base, &uploaded) {
                Ok(text) => document.text = text,
                Err(refused) => {
                    *line = Err(Refusal {
                        line: Some(document.number),
                        ..refused
                    });
                }
            }
        }
    }
    Ok(())
}

fn paths_of(line: &FeedLine, base: &Path) -> Vec<PathBuf> {
    if !line.has_inputs {
        return Vec::new();
    }
    let Some(inputs) = LineInputs::read(&line.text) else {
        return Vec::new();
    };
    inputs
        .values
        .values()
        .filter_map(|value| local_path(base, value))
        .collect()
}

/// The line's text with hashes in the places of paths.
fn replace(line: &FeedLine, base: &Path, uploaded: &UploadedInputs) -> Result<String, Refusal> {
    let Some(inputs) = LineInputs::read(&line.text) else {
        return Ok(line.text.clone());
    };
    let mut members = Vec::with_capacity(inputs.values.len());
    for (path, value) in &inputs.values {
        let value = match local_path(base, value).and_then(|file| uploaded.get(&file)) {
            Some(Ok(input)) => serde_json::to_string(input).unwrap_or_default(),
            Some(Err(error)) => return Err(refusal(path, error)),
            None => value.get().to_owned(),
        };
        let name = serde_json::to_string(path).unwrap_or_default();
        members.push(format!("{name}:{value}"));
    }
    let before = &line.text[..inputs.place.start];
    let after = &line.text[inputs.place.end..];
    Ok(format!("{before}{{{}}}{after}", members.join(",")))
}

#[cfg(test)]
mod tests {
    use super::super::line::IdHasher;
    use super::*;
    use crate::uploads::InputUploadError;
    use std::collections::HashMap;
    use taskmaster_protocol::{Hash, InputRef};

    fn line(text: &str) -> FeedLine {
        FeedLine::read(3, text.to_owned(), &IdHasher::default(), || "made".into()).unwrap()
    }

    #[test]
    fn paths_become_hashes_and_every_other_byte_stays() {
        let file = Hash::of(b"file");
        let folder = Hash::of(b"folder");
        let base = Path::new("feeds");
        let gone = InputUploadError::Unreadable("cannot read feeds/gone".into());
        let uploaded: UploadedInputs = HashMap::from([
            (base.join("a b.svg"), Ok(InputRef::File { sha256: file })),
            (base.join("fonts"), Ok(InputRef::Folder { folder })),
            (base.join("gone"), Err(gone)),
        ]);
        let named = line(concat!(
            r#"{ "module":"m", "inputs" : {"x": "a b.svg", "f":"fonts","#,
            r#""given":{"sha256":"00"}} ,"params":1.50}"#,
        ));
        assert!(named.has_inputs);
        let inputs = format!(
            r#"{{"f":{{"folder":"{folder}"}},"given":{{"sha256":"00"}},"x":{{"sha256":"{file}"}}}}"#
        );
        assert_eq!(
            replace(&named, base, &uploaded).unwrap(),
            format!(r#"{{"id":"made", "module":"m", "inputs" : {inputs} ,"params":1.50}}"#)
        );

        let missing = line(r#"{"id":"i","inputs":{"y":"gone"}}"#);
        let refused = replace(&missing, base, &uploaded).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("inputs.y"));
        let words = "cannot read feeds/gone";
        assert!(refused.message.contains(words), "{refused}");

        for other in [
            r#"{"module":"m"}"#,
            r#"{"module":"m","inputs":{"a":{"sha256":"00"}}}"#,
            r#"{"inputs":[1]}"#,
        ] {
            assert!(LineInputs::read(other).is_none(), "{other}");
        }
    }
}
