//! What `taskmaster run` will run, from what was typed and what the manifest says.

use super::args::RunArgs;
use super::error::LocalRunError;
use crate::grants::{Granted, Grants};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::{Capabilities, Glob, Json, ModuleName, TaskDocument};

/// What will be run.
pub struct Plan {
    /// The task as a feeder would describe it, completed by the manifest.
    pub document: TaskDocument,
    /// The params.
    pub input: Bytes,
    /// What the module is given.
    pub granted: Granted,
}

impl Plan {
    /// Reads the manifest beside the module and checks what was typed against it.
    pub fn new(args: &RunArgs) -> Result<Plan, LocalRunError> {
        let name = module_name(&args.file);
        let manifest = manifest(&args.file)?;
        let document = document(args, &name, &manifest)?;
        manifest
            .check(&name, document.params.as_ref())
            .map_err(|refusal| LocalRunError::Usage(refusal.message))?;
        let input = document.params.as_ref().map_or_else(Bytes::new, |params| {
            Bytes::copy_from_slice(params.get().as_bytes())
        });
        let granted = granted(args, &manifest.capabilities)?;
        Ok(Plan {
            document,
            input,
            granted,
        })
    }
}

/// The file's stem. A stem that cannot be a name becomes `module`.
pub fn module_name(file: &Path) -> ModuleName {
    let stem = file
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    #[expect(
        clippy::expect_used,
        reason = "`module` is a name, and a test holds that"
    )]
    ModuleName::new(&stem)
        .or_else(|_| ModuleName::new("module"))
        .expect("`module` is a name")
}

/// The manifest beside the module. Without one it is a manifest that says nothing.
fn manifest(file: &Path) -> Result<Manifest, LocalRunError> {
    let beside = file.with_extension("toml");
    let failed =
        |why: String| LocalRunError::Failed(format!("the manifest {}: {why}", beside.display()));
    match std::fs::read_to_string(&beside) {
        Ok(text) => Manifest::parse(&text).map_err(|refusal| failed(refusal.message)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Manifest::default()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The task as a feeder would describe it, completed by the manifest.
fn document(
    args: &RunArgs,
    name: &ModuleName,
    manifest: &Manifest,
) -> Result<TaskDocument, LocalRunError> {
    let mut text = Value::Object(typed_fields(args, name)).to_string();
    if let Some(params) = params(args.params.as_deref())? {
        // Params must stay as they are, because a number must not be rewritten.
        text.insert_str(1, &format!("\"params\":{},", params.get()));
    }
    let document = TaskDocument::parse(&manifest.complete(&text))
        .map_err(|refusal| LocalRunError::Usage(refusal.message))?;
    match document.inputs.keys().next() {
        Some(path) => Err(LocalRunError::Usage(format!(
            "the manifest's default of `inputs` names `{path}` by its hash, \
             which only a master has; give it with --input"
        ))),
        None => Ok(document),
    }
}

/// The fields of the document that were typed, without params.
fn typed_fields(args: &RunArgs, name: &ModuleName) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("module".into(), name.as_str().into());
    if !args.args.is_empty() {
        fields.insert("args".into(), args.args.clone().into());
    }
    if !args.env.is_empty() {
        let env: Map<String, Value> = args
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        fields.insert("env".into(), env.into());
    }
    if !args.inputs.is_empty() {
        // An empty field replaces the manifest's default. The files themselves are read later.
        fields.insert("inputs".into(), Value::Object(Map::new()));
    }
    if !args.outputs.is_empty() {
        let globs = args.outputs.iter().map(Glob::as_str).collect();
        fields.insert("outputs".into(), globs);
    }
    if let Some(timeout) = args.task_timeout {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        fields.insert("timeout_ms".into(), timeout_ms.max(1).into());
    }
    if let Some(memory_mb) = args.memory_mb {
        fields.insert("memory_mb".into(), memory_mb.into());
    }
    fields
}

fn params(typed: Option<&str>) -> Result<Option<Json>, LocalRunError> {
    let bytes = match typed {
        None => return Ok(None),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|error| LocalRunError::Usage(format!("stdin: {error}")))?;
            bytes
        }
        Some(text) => text.as_bytes().to_vec(),
    };
    Json::from_bytes(&bytes)
        .map(Some)
        .map_err(|error| LocalRunError::Usage(format!("--params {error}")))
}

/// What the module is given: all that its manifest asks for, which must have been typed.
fn granted(args: &RunArgs, wanted: &Capabilities) -> Result<Granted, LocalRunError> {
    let mut grants = Grants::shared(&args.grants).map_err(LocalRunError::usage)?;
    for name in &args.allow_env {
        let value = std::env::var(name)
            .map_err(|error| LocalRunError::Usage(format!("--allow-env {name}: {error}")))?;
        grants = grants.with_variable(name, value);
    }
    let offered = Capabilities {
        http: args.allow_http.iter().cloned().collect(),
        ..grants.offered()
    };
    let missing = wanted.beyond(&offered);
    match option_for(&missing) {
        Some(option) => Err(LocalRunError::Usage(format!(
            "its manifest asks for {missing}; give it with {option}"
        ))),
        None => grants
            .give(Some(&Arc::new(wanted.clone())))
            .map_err(LocalRunError::usage),
    }
}

/// What must be typed for the first of `missing`.
fn option_for(missing: &Capabilities) -> Option<String> {
    let typed = [
        (&missing.http, "--allow-http ", ""),
        (&missing.env, "--allow-env ", ""),
        (&missing.secrets, "--secrets FILE with a line ", "=VALUE"),
        (&missing.folders, "--folder ", "=DIR"),
    ];
    typed
        .into_iter()
        .find_map(|(names, flag, value)| Some(format!("{flag}{}{value}", names.first()?)))
}
