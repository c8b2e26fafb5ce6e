//! Validation against the features of the engine. Function bodies, also those of modules inside a
//! component, are validated on all processors.

use crate::features;
use crate::nesting::{self, LEVELS_MAX};
use crate::producers::Producers;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmparser::types::{EntityType, Types};
use wasmparser::{
    CompositeInnerType, Error, Export, FuncToValidate, FuncValidatorAllocations, FunctionBody,
    Import, KnownCustom, Parser, Payload, ValType, ValidPayload, Validator, ValidatorResources,
    WasmFeatures,
};

/// The size of a file from which several threads are faster than one, in bytes.
pub(crate) const PARALLEL_BYTES_MIN: usize = 1 << 20;

/// Function bodies that a thread takes at a time: so many that taking them costs nothing, and so
/// few that no thread is left waiting.
const BODIES_AT_A_TIME: usize = 64;

/// How often a file is validated to find the proposals that it needs. Each time may take most of a
/// second.
const PROPOSALS_MAX: usize = 4;

/// What the outermost layer of a valid file holds.
#[derive(Default)]
pub(crate) struct ValidatedFile<'a> {
    /// The types in the file; `None` until its end was read.
    pub(crate) types: Option<Types>,
    imports: Vec<Import<'a>>,
    exports: Vec<Export<'a>>,
    /// The names of a component's imports, in the order of the file.
    pub(crate) component_imports: Vec<&'a str>,
    /// The names of a component's exports, in the order of the file.
    pub(crate) component_exports: Vec<&'a str>,
    /// What made the file, including its inner modules.
    pub(crate) producers: Producers,
}

/// What a module imports and exports.
pub(crate) struct Outline {
    /// The imports in the order of the file.
    pub(crate) imports: Vec<ExternItem>,
    /// The exports in the order of the file.
    pub(crate) exports: Vec<ExternItem>,
}

/// An import or an export.
pub(crate) struct ExternItem {
    /// `module.field` for an import, the name for an export.
    pub(crate) name: String,
    /// The module for an import, nothing for an export.
    pub(crate) module: String,
    /// The field for an import, the name for an export.
    pub(crate) field: String,
    /// The type of the import or export.
    pub(crate) shape: ExternShape,
}

/// The type of what a module imports or exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExternShape {
    /// A function, with its parameters and its results as [`crate::wasi::signature`] writes them.
    Function(String, String),
    /// A memory.
    Memory,
    /// Anything else, with the name of its kind.
    Other(&'static str),
}

/// A function whose body is not validated yet.
type FunctionToCheck<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);

/// Why a file is not valid.
enum Invalid {
    /// The validator says so.
    Error(Error),
    /// It was not shown to the validator, which would go through it by recursion.
    Nested,
}

impl From<Error> for Invalid {
    fn from(error: Error) -> Invalid {
        Invalid::Error(error)
    }
}

impl Invalid {
    fn missing_feature(&self) -> Option<WasmFeatures> {
        match self {
            Invalid::Error(error) => error.missing_wasm_feature(),
            Invalid::Nested => None,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Error(error) => error.fmt(f),
            Invalid::Nested => write!(
                f,
                "it is nested too deep: more than {LEVELS_MAX} components or types inside each \
                 other"
            ),
        }
    }
}

/// Validates a module or a component. Where the engine lacks proposals, the error names up to four
/// of them, not only the first.
pub(crate) fn validate(binary: &[u8]) -> Result<ValidatedFile<'_>, String> {
    let first = match validate_with(binary, features::ENGINE) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let Some(mut missing) = first.missing_feature() else {
        return Err(format!("not a valid WebAssembly module: {first}"));
    };
    for _ in 1..PROPOSALS_MAX {
        let more = validate_with(binary, features::ENGINE | missing)
            .err()
            .and_then(|error| error.missing_feature());
        match more {
            Some(feature) if !missing.contains(feature) => missing |= feature,
            _ => break,
        }
    }
    let list = features::names(missing).join("; ");
    Err(format!(
        "it uses what the runners' engine does not have: {list} ({first})"
    ))
}

fn validate_with(binary: &[u8], features: WasmFeatures) -> Result<ValidatedFile<'_>, Invalid> {
    let mut validator = Validator::new_with_features(features);
    let mut parser = Parser::new(0);
    parser.set_features(features);
    let mut found = ValidatedFile::default();
    let mut bodies: Vec<FunctionToCheck> = Vec::new();
    // How many inner modules and components are open at the present place.
    let mut inside = 0_usize;
    for payload in parser.parse_all(binary) {
        let payload = payload?;
        if is_too_deep(&payload, binary, inside, features) {
            return Err(Invalid::Nested);
        }
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => bodies.push((function, body)),
            // The outermost module or component ends last.
            ValidPayload::End(all) => found.types = Some(all),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => inside += 1,
            Payload::End(_) => inside = inside.saturating_sub(1),
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(producers) = section.as_known() {
                    found.producers.read(producers);
                }
            }
            payload if inside == 0 => found.note(payload)?,
            _ => {}
        }
    }
    validate_bodies(bodies, binary.len())?;
    Ok(found)
}

/// Whether this part of the file nests deeper than is good. `inside` is how many modules and
/// components are open around it.
fn is_too_deep(
    payload: &Payload<'_>,
    binary: &[u8],
    inside: usize,
    features: WasmFeatures,
) -> bool {
    match payload {
        Payload::ComponentSection { .. } => inside >= LEVELS_MAX,
        Payload::ComponentTypeSection(section) => binary
            .get(section.range())
            .is_some_and(|content| nesting::is_too_deep(content, features)),
        _ => false,
    }
}

impl<'a> ValidatedFile<'a> {
    fn note(&mut self, payload: Payload<'a>) -> Result<(), Error> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imports.push(import?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    self.exports.push(export?);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    self.component_imports.push(import?.name.name);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.component_exports.push(export?.name.name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What a module imports and exports.
    pub(crate) fn outline(&self) -> Outline {
        outline(self.types.as_ref(), &self.imports, &self.exports)
    }
}

/// Validates function bodies. The error is the one at the lowest offset, whatever thread found it
/// first.
fn validate_bodies(bodies: Vec<FunctionToCheck>, bytes: usize) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if bytes < PARALLEL_BYTES_MIN || threads == 1 {
        let mut allocations = FuncValidatorAllocations::default();
        return bodies
            .into_iter()
            .try_for_each(|body| validate_body(body, &mut allocations));
    }
    let next = AtomicUsize::new(0);
    let chunks: Vec<std::sync::Mutex<Vec<FunctionToCheck>>> =
        chunked(bodies).into_iter().map(Into::into).collect();
    let work = || {
        let mut allocations = FuncValidatorAllocations::default();
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bodies = chunk
                .lock()
                .map(|mut bodies| std::mem::take(&mut *bodies))
                .unwrap_or_default();
            bodies
                .into_iter()
                .try_for_each(|body| validate_body(body, &mut allocations))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut errors: Vec<Error> = work().err().into_iter().collect();
        for thread in others {
            match thread.join() {
                Ok(result) => errors.extend(result.err()),
                // A panic is a bug of the validator, and must not let an invalid module pass.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        errors
            .into_iter()
            .min_by_key(Error::offset)
            .map_or(Ok(()), Err)
    })
}

fn chunked(mut bodies: Vec<FunctionToCheck>) -> Vec<Vec<FunctionToCheck>> {
    let mut chunks = Vec::with_capacity(bodies.len() / BODIES_AT_A_TIME + 1);
    while bodies.len() > BODIES_AT_A_TIME {
        chunks.push(bodies.split_off(bodies.len() - BODIES_AT_A_TIME));
    }
    chunks.push(bodies);
    // The chunks were split off at the end; they are checked in the order of the file.
    chunks.reverse();
    chunks
}

fn validate_body(
    (function, body): FunctionToCheck,
    allocations: &mut FuncValidatorAllocations,
) -> Result<(), Error> {
    let mut validator = function.into_validator(std::mem::take(allocations));
    validator.validate(&body)?;
    *allocations = validator.into_allocations();
    Ok(())
}

fn outline(types: Option<&Types>, imports: &[Import], exports: &[Export]) -> Outline {
    let Some(types) = types else {
        return Outline {
            imports: Vec::new(),
            exports: Vec::new(),
        };
    };
    let import = |import: &Import| ExternItem {
        name: format!("{}.{}", import.module, import.name),
        module: import.module.to_owned(),
        field: import.name.to_owned(),
        shape: shape(types, types.as_ref().entity_type_from_import(import)),
    };
    let export = |export: &Export| ExternItem {
        name: export.name.to_owned(),
        module: String::new(),
        field: export.name.to_owned(),
        shape: shape(types, types.as_ref().entity_type_from_export(export)),
    };
    Outline {
        imports: imports.iter().map(import).collect(),
        exports: exports.iter().map(export).collect(),
    }
}

fn shape(types: &Types, entity: Option<EntityType>) -> ExternShape {
    match entity {
        Some(EntityType::Func(id) | EntityType::FuncExact(id)) => {
            match &types[id].composite_type.inner {
                CompositeInnerType::Func(function) => {
                    ExternShape::Function(letters(function.params()), letters(function.results()))
                }
                _ => ExternShape::Other("function"),
            }
        }
        Some(EntityType::Memory(_)) => ExternShape::Memory,
        Some(EntityType::Table(_)) => ExternShape::Other("table"),
        Some(EntityType::Global(_)) => ExternShape::Other("global"),
        Some(EntityType::Tag(_)) => ExternShape::Other("tag"),
        None => ExternShape::Other("unknown"),
    }
}

fn letters(types: &[ValType]) -> String {
    let letter = |kind: &ValType| match kind {
        ValType::I32 => 'i',
        ValType::I64 => 'I',
        ValType::F32 => 'f',
        ValType::F64 => 'F',
        ValType::V128 => 'v',
        ValType::Ref(_) => 'r',
    };
    types.iter().map(letter).collect()
}
