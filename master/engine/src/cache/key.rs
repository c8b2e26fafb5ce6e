//! The key of an answer. Two tasks are equal if all parts of their keys are. Where a part is in
//! doubt, the answer is neither looked up nor kept.

use std::collections::BTreeMap;
use taskmaster_protocol::canonical;
use taskmaster_protocol::{
    Capabilities, FilePath, Glob, Hash, InputRef, Json, ModuleName, Requires, TaskDocument,
};
use taskmaster_store::body::TaskBody;
use taskmaster_store::cache::KeyParts;

/// The version of the form of the key. It is a part of every key, so that a release with another
/// form finds no answers of this one.
const KEY_FORMAT: u8 = 1;

/// Digits of the short hash of a part.
const SHORT_DIGITS: usize = 16;

/// The fields of a document that are parts of the key.
struct KeyFields<'a> {
    params: Option<&'a Json>,
    args: &'a [String],
    env: &'a BTreeMap<String, String>,
    inputs: &'a BTreeMap<FilePath, InputRef>,
    outputs: Option<&'a Vec<Glob>>,
    requires: Option<&'a Requires>,
}

/// What the master adds to the key.
pub(crate) struct ModulePart<'a> {
    pub name: &'a ModuleName,
    /// The hash of the module, or what its manifest gives in its place.
    pub version: &'a str,
    /// What the module may reach.
    pub granted: &'a Capabilities,
    /// What an operator has set, so that older answers are found no more.
    pub salt: Option<&'a str>,
}

/// The hash of all parts of the key that a document makes, or why it cannot be told, as the end of a
/// sentence.
pub(crate) fn of_document(document: &TaskDocument) -> Result<Hash, String> {
    let fields = KeyFields {
        params: document.params.as_ref(),
        args: &document.args,
        env: &document.env,
        inputs: &document.inputs,
        outputs: document.outputs.as_ref(),
        requires: Some(&document.requires),
    };
    let mut all = vec![KEY_FORMAT];
    for (name, part) in fields.parts()? {
        push(&mut all, name.as_bytes());
        push(&mut all, &part.0);
    }
    Ok(Hash::of(&all))
}

/// The whole key. `document` is that of [`of_document`], and `results` are the hashes of the results
/// that the params ask for, in their order.
pub(crate) fn whole(module: &ModulePart<'_>, document: &Hash, results: &[Hash]) -> Hash {
    let mut all = Vec::with_capacity(256);
    push(&mut all, module.name.as_str().as_bytes());
    push(&mut all, module.version.as_bytes());
    push(&mut all, &granted_part(module.granted));
    push(&mut all, module.salt.unwrap_or_default().as_bytes());
    push(&mut all, &document.0);
    push(&mut all, &results_part(results));
    Hash::of(&all)
}

/// All parts of a key by their names, as short hashes.
pub(crate) fn parts(module: &ModulePart<'_>, body: &TaskBody, results: &[Hash]) -> KeyParts {
    let no_env = BTreeMap::new();
    let no_inputs = BTreeMap::new();
    let extras = body.extras.as_deref();
    let fields = KeyFields {
        params: body.params.as_ref(),
        args: extras.map_or(&[], |extras| &extras.args),
        env: extras.map_or(&no_env, |extras| &extras.env),
        inputs: extras.map_or(&no_inputs, |extras| &extras.inputs),
        outputs: extras.and_then(|extras| extras.outputs.as_ref()),
        requires: body.requires.as_deref(),
    };
    let mut parts: KeyParts = fields
        .parts()
        .unwrap_or_default()
        .into_iter()
        .map(|(name, part)| (name.to_owned(), short(&part)))
        .collect();
    let own = [
        ("module", Hash::of(module.name.as_str().as_bytes())),
        ("version", Hash::of(module.version.as_bytes())),
        ("capabilities", Hash::of(&granted_part(module.granted))),
        ("salt", Hash::of(module.salt.unwrap_or_default().as_bytes())),
        ("results", Hash::of(&results_part(results))),
    ];
    parts.extend(own.map(|(name, part)| (name.to_owned(), short(&part))));
    parts
}

impl KeyFields<'_> {
    /// The hash of each field, in the order of their names.
    fn parts(&self) -> Result<Vec<(&'static str, Hash)>, String> {
        let params = match self.params {
            Some(params) => canonical::form(params.get())
                .map_err(|why| format!("its params cannot be compared: {why}"))?,
            None => Vec::new(),
        };
        let requires = self.requires.map(|requires| Requires {
            // How much a task takes says nothing about its answer.
            slots: None,
            memory_mb: None,
            ..requires.clone()
        });
        Ok(vec![
            ("args", of_value(&self.args)),
            ("env", of_value(self.env)),
            ("inputs", of_value(self.inputs)),
            ("outputs", of_value(&self.outputs)),
            ("params", Hash::of(&params)),
            ("requires", of_value(&requires.unwrap_or_default())),
        ])
    }
}

fn of_value<T: serde::Serialize>(value: &T) -> Hash {
    Hash::of(Json::of(value).get().as_bytes())
}

fn granted_part(granted: &Capabilities) -> Vec<u8> {
    Json::of(granted).get().as_bytes().to_vec()
}

fn results_part(results: &[Hash]) -> Vec<u8> {
    results.iter().flat_map(|hash| hash.0).collect()
}

/// Puts a part behind others, with its length before it.
fn push(all: &mut Vec<u8>, part: &[u8]) {
    all.extend_from_slice(&(part.len() as u64).to_be_bytes());
    all.extend_from_slice(part);
}

fn short(hash: &Hash) -> String {
    let mut digits = hash.to_string();
    digits.truncate(SHORT_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Result<Hash, String> {
        let text = format!(r#"{{"module":"m",{text}}}"#).replace("HASH", &"0a".repeat(32));
        of_document(&TaskDocument::parse(&text).unwrap())
    }

    #[test]
    fn what_a_task_is_given_makes_its_key_and_nothing_else_does() {
        let plain = document(r#""params":[1]"#);
        for same in [
            r#""params": [ 1 ]"#,
            r#""params":[1],"priority":5,"job":"j","id":"t","retries":1"#,
            r#""params":[1],"timeout_ms":5,"memory_mb":9,"requires":{"slots":2,"memory_mb":9}"#,
            r#""params":[1],"cache":{"ttl_s":1},"delay_ms":1,"dependencies":["a"]"#,
        ] {
            assert_eq!(document(same), plain, "{same}");
        }
        let others = [
            r#""params":[1]"#,
            r#""params":[2]"#,
            r#""params":1"#,
            r#""params":null"#,
            r#""priority":0"#,
            r#""params":[1],"args":["x"]"#,
            r#""params":[1],"args":["x","y"]"#,
            r#""params":[1],"args":["xy"]"#,
            r#""params":[1],"env":{"A":"x"}"#,
            r#""params":[1],"inputs":{"a":{"sha256":"HASH"}}"#,
            r#""params":[1],"inputs":{"a":{"folder":"HASH"}}"#,
            r#""params":[1],"outputs":["*"]"#,
            r#""params":[1],"outputs":[]"#,
            r#""params":[1],"requires":{"labels":{"a":"b"}}"#,
            r#""params":[1],"requires":{"os":"linux"}"#,
        ];
        let keys: Vec<_> = others.iter().map(|text| document(text).unwrap()).collect();
        for (i, key) in keys.iter().enumerate() {
            let same = keys.iter().filter(|other| *other == key).count();
            assert_eq!(same, 1, "{}", others[i]);
        }
    }

    #[test]
    fn a_part_in_doubt_has_no_key() {
        let doubt = document(r#""params":{"a":1,"a":2}"#).unwrap_err();
        assert!(doubt.contains("the key `a` stands twice"), "{doubt}");
    }

    #[test]
    fn module_version_rights_salt_and_results_are_parts_of_the_key() {
        let name = ModuleName::new("m").unwrap();
        let other_name = ModuleName::new("n").unwrap();
        let nothing = Capabilities::default();
        let http = Capabilities {
            http: ["example.org".to_owned()].into(),
            ..Capabilities::default()
        };
        let document = Hash::of(b"document");
        let part = |name, version, granted, salt| ModulePart {
            name,
            version,
            granted,
            salt,
        };
        let one = [Hash::of(b"1")];
        let keys = [
            whole(&part(&name, "1", &nothing, None), &document, &[]),
            whole(&part(&other_name, "1", &nothing, None), &document, &[]),
            whole(&part(&name, "2", &nothing, None), &document, &[]),
            whole(&part(&name, "1", &http, None), &document, &[]),
            whole(&part(&name, "1", &nothing, Some("s")), &document, &[]),
            whole(&part(&name, "1", &nothing, None), &Hash::of(b"x"), &[]),
            whole(&part(&name, "1", &nothing, None), &document, &one),
        ];
        for key in &keys {
            assert_eq!(keys.iter().filter(|other| *other == key).count(), 1);
        }
    }
}
