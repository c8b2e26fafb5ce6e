//! The manifest of a module: the file `resize.toml` beside `resize.wasm`. It says what the module is
//! for and what it asks for beyond its folder, and has defaults for the fields of its tasks and a
//! schema that their params must meet.
//!
//! ```toml
//! description = "Makes a picture smaller"
//!
//! [defaults]
//! timeout_ms = 5000
//! outputs = ["*.png"]
//!
//! [cache]
//! version = "3"
//!
//! [capabilities]
//! http = ["images.example.org"]
//! secrets = ["IMAGES_TOKEN"]
//!
//! [schema]
//! type = "object"
//! required = ["width"]
//! properties.width = { type = "integer", minimum = 1 }
//! ```

mod depth;
mod schema;

use crate::path::ParamPath;
use schema::{Schema, Violation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_protocol::capabilities::BadCapability;
use taskmaster_protocol::placeholder::Placeholders;
use taskmaster_protocol::{
    Capabilities, Json, ModuleName, Refusal, RefusalCode, TaskDocument, limits, refusal,
};

/// Bytes of a manifest: a page or two of text, and a schema.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Fields of a task document that have no default, because they make a task the one that it is.
const NO_DEFAULT: [&str; 2] = ["id", "module"];

/// The content of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestText {
    #[serde(default)]
    description: String,
    #[serde(default)]
    defaults: Map<String, Value>,
    #[serde(default)]
    cache: CacheText,
    #[serde(default)]
    capabilities: RequestedCapabilities,
    #[serde(default)]
    schema: Option<Schema>,
}

/// Characters of `cache.version`: as many as a name has.
const CACHE_VERSION_CHARS_MAX: usize = limits::NAME_BYTES_MAX;

/// What the module says about keeping its answers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheText {
    #[serde(default)]
    version: Option<String>,
}

impl CacheText {
    /// What stands in for the hash of the module.
    fn checked(self) -> Result<Option<String>, Refusal> {
        let Some(version) = self.version else {
            return Ok(None);
        };
        let characters = version.chars().count();
        if (1..=CACHE_VERSION_CHARS_MAX).contains(&characters) {
            return Ok(Some(version));
        }
        let text = format!(
            "field `cache.version` has {characters} characters, it must have from 1 to \
             {CACHE_VERSION_CHARS_MAX}"
        );
        Err(Refusal::new(RefusalCode::InvalidValue, text).at("cache.version"))
    }
}

/// [`Capabilities`] as people write them. A field that is not known is an error here.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestedCapabilities {
    #[serde(default)]
    http: BTreeSet<String>,
    #[serde(default)]
    env: BTreeSet<String>,
    #[serde(default)]
    secrets: BTreeSet<String>,
    #[serde(default)]
    folders: BTreeSet<String>,
}

impl RequestedCapabilities {
    fn checked(self) -> Result<Capabilities, Refusal> {
        let RequestedCapabilities {
            http,
            env,
            secrets,
            folders,
        } = self;
        let wishes = Capabilities {
            http,
            env,
            secrets,
            folders,
        };
        wishes.check().map_err(|BadCapability { field, why }| {
            let field = format!("capabilities.{field}");
            Refusal::new(RefusalCode::InvalidValue, format!("field `{field}`: {why}")).at(field)
        })?;
        Ok(wishes)
    }
}

/// A manifest that was read and checked.
#[derive(Debug, Default)]
pub struct Manifest {
    /// What the module is for.
    pub description: String,
    /// What the module asks for beyond its folder, a clock and random numbers.
    pub capabilities: Capabilities,
    /// What stands in for the hash of the module where answers are kept, so that another build of the
    /// same source finds them. `None`: the hash counts.
    pub cache_version: Option<String>,
    /// The JSON of each field that has a default, by its name.
    defaults: BTreeMap<String, String>,
    /// What params must be; `None` where they may be anything.
    schema: Option<Schema>,
}

impl Manifest {
    /// Reads a manifest, which is TOML. The refusal names the field or the line.
    pub fn parse(text: &str) -> Result<Manifest, Refusal> {
        let malformed = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                1 + text[..span.start.min(text.len())].matches('\n').count()
            });
            Refusal::new(
                RefusalCode::InvalidValue,
                format!("line {line}: not TOML: {}", error.message()),
            )
        };
        if depth::is_too_deep(text) {
            let most = depth::LEVELS_MAX;
            let text = format!("it is nested too deep: more than {most} tables inside each other");
            return Err(Refusal::new(RefusalCode::InvalidValue, text));
        }
        let value: Value = toml::from_str(text).map_err(malformed)?;
        let ManifestText {
            description,
            defaults,
            cache,
            capabilities,
            schema,
        } = refusal::read(&value.to_string())?;
        let cache_version = cache.checked()?;
        let capabilities = capabilities.checked()?;
        check_defaults(&defaults)?;
        let defaults = defaults
            .into_iter()
            .map(|(field, value)| (field, value.to_string()))
            .collect();
        Ok(Manifest {
            description,
            capabilities,
            cache_version,
            defaults,
            schema,
        })
    }

    /// A document with the defaults of the fields that it lacks. A field that the document has is
    /// not merged with its default.
    pub fn complete<'a>(&self, document: &'a str) -> Cow<'a, str> {
        let Ok(fields) = serde_json::from_str::<BTreeMap<Cow<'_, str>, IgnoredAny>>(document)
        else {
            // The reader of the document says what is wrong with it.
            return document.into();
        };
        let Some(open) = document.trim_end().strip_suffix('}') else {
            return document.into();
        };
        let mut text = open.to_owned();
        let mut is_empty = fields.is_empty();
        for (field, value) in self
            .defaults
            .iter()
            .filter(|(field, _)| !fields.contains_key(field.as_str()))
        {
            let comma = if std::mem::take(&mut is_empty) {
                ""
            } else {
                ","
            };
            // The names of known fields need no escapes.
            text.push_str(&format!("{comma}\"{field}\":{value}"));
        }
        text.push('}');
        text.into()
    }

    /// Checks that a task's params are what the module takes. Results of other tasks are not known
    /// yet, so that a placeholder for a result fits everything.
    pub fn check(&self, module: &ModuleName, params: Option<&Json>) -> Result<(), Refusal> {
        let Some(schema) = &self.schema else {
            return Ok(());
        };
        let params = params.map_or(RawValue::NULL, Json::raw);
        let placeholders = Placeholders::find(params.get())?;
        schema
            .check(params, &placeholders, &ParamPath::Params)
            .map_err(|Violation { path, reason }| {
                let text = format!("field `{path}`: {reason}, by the schema of module `{module}`");
                Refusal::new(RefusalCode::InvalidValue, text).at(path)
            })
    }
}

/// Checks that each default is a value that the field takes.
fn check_defaults(defaults: &Map<String, Value>) -> Result<(), Refusal> {
    let inside = |refusal: Refusal| {
        let field = format!("defaults.{}", refusal.field.as_deref().unwrap_or_default());
        let named = refusal
            .field
            .as_deref()
            .map(|name| format!("`{name}`"))
            .unwrap_or_default();
        let message = refusal.message.replacen(&named, &format!("`{field}`"), 1);
        Refusal { message, ..refusal }.at(field)
    };
    if let Some(field) = NO_DEFAULT
        .iter()
        .find(|field| defaults.contains_key(**field))
    {
        let text = format!("field `{field}` has no default: it is what makes a task this one");
        return Err(inside(
            Refusal::new(RefusalCode::InvalidValue, text).at(*field),
        ));
    }
    let mut document = defaults.clone();
    document.insert("module".into(), "m".into());
    TaskDocument::parse(&Value::Object(document).to_string())
        .map(drop)
        .map_err(inside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a broken promise ends it")]

    use super::*;
    use taskmaster_protocol::splice;

    const RESIZE: &str = r#"
description = "Makes a picture smaller"

[defaults]
timeout_ms = 5000
outputs = ["*.png"]
retries = { max = 1 }

[cache]
version = "3"

[capabilities]
folders = ["fonts", "fonts"]

[schema]
type = "object"
required = ["width"]
additionalProperties = false
properties.width = { type = "integer", minimum = 1 }
properties.name = { type = "string", maxLength = 3 }
"#;

    #[test]
    fn defaults_fill_what_a_document_does_not_have() {
        let manifest = Manifest::parse(RESIZE).unwrap();
        assert_eq!(manifest.description, "Makes a picture smaller");
        assert_eq!(manifest.capabilities.to_string(), "folder fonts");
        assert_eq!(manifest.cache_version.as_deref(), Some("3"));
        for (document, expected) in [
            (
                r#"{"module":"m","params":1.50}"#,
                r#"{"module":"m","params":1.50,"outputs":["*.png"],"retries":{"max":1},"timeout_ms":5000}"#,
            ),
            (
                r#"{ "timeout_ms" : 1,"outputs":null,"module":"m" } "#,
                r#"{ "timeout_ms" : 1,"outputs":null,"module":"m" ,"retries":{"max":1}}"#,
            ),
            (
                "{}",
                r#"{"outputs":["*.png"],"retries":{"max":1},"timeout_ms":5000}"#,
            ),
            ("[1]", "[1]"),
        ] {
            assert_eq!(manifest.complete(document), expected);
        }
    }

    #[test]
    fn params_are_held_against_the_schema() {
        let manifest = Manifest::parse(RESIZE).unwrap();
        let check = |params: &str| {
            let document =
                TaskDocument::parse(&format!(r#"{{"module":"resize"{params}}}"#)).unwrap();
            manifest.check(&document.module.name, document.params.as_ref())
        };
        for params in [
            r#"{"width":1}"#,
            r#"{"width":{"$result":"a"},"name":"abc"}"#,
            r#"{"$result":"a"}"#,
        ] {
            check(&format!(r#","params":{params}"#)).unwrap();
        }
        for (params, field, words) in [
            (r#","params":{"width":0}"#, "params.width", "less than 1"),
            (r#","params":{}"#, "params.width", "missing"),
            (
                r#","params":{"width":1,"nmae":"x"}"#,
                "params.nmae",
                "did you mean `name`",
            ),
            (
                r#","params":{"width":1,"name":"long"}"#,
                "params.name",
                "4 characters",
            ),
            (
                r#","params":{"width":"1"}"#,
                "params.width",
                "a string, not an integer",
            ),
            ("", "params", "null, not an object"),
        ] {
            let refusal = check(params).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{refusal}");
            assert!(
                refusal.message.contains(words) && refusal.message.contains("`resize`"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn what_splicing_takes_for_data_is_held_against_the_schema() {
        let manifest = Manifest::parse(RESIZE).unwrap();
        let name = ModuleName::new("resize").unwrap();
        for params in [
            r#"{"$result":1,"$result":2}"#,
            r#"{"$result":"a","$result":"a"}"#,
            r#"{"$literal":{"width":1},"$literal":{"width":1}}"#,
            r#"{"$literal":{"$result":"a"}}"#,
            r#"{"$literal":{"width":{"$result":"a"}}}"#,
            r#"{"width":{"$result":"a","$result":"b"}}"#,
        ] {
            let params = Json::parse(params).unwrap();
            let refusal = manifest.check(&name, Some(&params)).unwrap_err();
            assert!(refusal.message.contains("width"), "{params:?}: {refusal}");
            assert_eq!(
                splice::references(params.get()).unwrap().count(),
                0,
                "{params:?}"
            );
        }
        let last_counts = Json::parse(r#"{"width":0,"width":{"$result":"a"}}"#).unwrap();
        manifest.check(&name, Some(&last_counts)).unwrap();
    }

    #[test]
    fn a_typo_is_named_with_what_was_meant() {
        for (text, field, words) in [
            (
                "descripton = 'x'",
                "descripton",
                "did you mean `description`",
            ),
            (
                "[defaults]\ntimout_ms = 1",
                "defaults.timout_ms",
                "did you mean `timeout_ms`",
            ),
            ("[defaults]\nmemory_mb = 0", "defaults.memory_mb", "from 1"),
            ("[defaults]\nid = 'x'", "defaults.id", "no default"),
            (
                "[capabilities]\nhtpt = []",
                "capabilities.htpt",
                "did you mean `http`",
            ),
            (
                "[capabilities]\nhttp = ['https://example.org']",
                "capabilities.http",
                "without https://",
            ),
            (
                "[capabilities]\nsecrets = ['TASKMASTER_JOB']",
                "capabilities.secrets",
                "kept for",
            ),
            (
                "[capabilities]\nfolders = 'data'",
                "capabilities.folders",
                "string",
            ),
            ("[cache]\nversion = ''", "cache.version", "0 characters"),
            ("[cache]\nversion = 3", "cache.version", "string"),
            (
                "[cache]\nverison = '3'",
                "cache.verison",
                "did you mean `version`",
            ),
            (
                "[defaults]\ncache = {ttl_s = 0}",
                "defaults.cache",
                "at least 1",
            ),
            ("[schema]\ntype = 'objekt'", "schema.type", "object"),
            (
                "[schema.properties.a]\nmaxLenght = 3",
                "schema.properties.a.maxLenght",
                "did you mean `maxLength`",
            ),
            ("[schema]\npattern = 'x'", "schema.pattern", "unknown field"),
        ] {
            let refusal = Manifest::parse(text).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{text}: {refusal}");
            assert!(refusal.message.contains(words), "{text}: {refusal}");
        }
        let refusal = Manifest::parse("a = 1\nb = \n").unwrap_err();
        assert!(refusal.message.starts_with("line 2: not TOML"), "{refusal}");
    }
}
