//! What a component exports, and whether runners have everything that it imports.

use crate::command::list;
use crate::entry::{EntryPoint, ExportedFunction};
use crate::host;
use crate::signature::{Signature, WitType};
use crate::type_budget::TypeBudget;
use crate::validate::ValidatedFile;
use crate::wasi2;
use wasmparser::PrimitiveValType;
use wasmparser::component_types::{
    ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId, ComponentInstanceTypeId,
    ComponentValType,
};
use wasmparser::types::TypesRef;

/// What a task calls in a component. The error says what the component lacks.
pub(crate) fn check(found: &ValidatedFile<'_>) -> Result<EntryPoint, String> {
    let Some(types) = found.types.as_ref() else {
        return Err("the component does not end".into());
    };
    let types = types.as_ref();
    check_imports(found, types)?;
    EntryPoint::choose(functions(found, types))
}

/// The exports of a component: functions as WIT writes them, and the names of everything else.
pub(crate) fn exports(found: &ValidatedFile<'_>) -> Vec<String> {
    let Some(types) = found.types.as_ref() else {
        return Vec::new();
    };
    let types = types.as_ref();
    let mut budget = TypeBudget::default();
    let mut all = Vec::new();
    for name in &found.component_exports {
        match types.component_item_for_export(name).map(|item| item.ty) {
            Some(ComponentEntityType::Func(id)) => match signature(types, id, &mut budget) {
                Ok(signature) => all.push(format!("{name}: {signature}")),
                Err(_) => all.push((*name).to_owned()),
            },
            _ => all.push((*name).to_owned()),
        }
    }
    all
}

fn check_imports(found: &ValidatedFile<'_>, types: TypesRef<'_>) -> Result<(), String> {
    let mut unknown = Vec::new();
    let mut differing = Vec::new();
    for name in &found.component_imports {
        match types.component_item_for_import(name).map(|item| item.ty) {
            Some(ComponentEntityType::Instance(id)) => {
                check_interface(name, id, types, &mut unknown, &mut differing)
            }
            Some(ComponentEntityType::Func(id)) => match host::function(name) {
                Some(wanted) if is_of(types, id, wanted) => {}
                Some(wanted) => differing.push(format!("{name} (it is {wanted})")),
                None => unknown.push((*name).to_owned()),
            },
            // A type that the world names. The functions that use it are checked themselves.
            Some(ComponentEntityType::Type { .. }) => {}
            _ => unknown.push((*name).to_owned()),
        }
    }
    if !unknown.is_empty() {
        let nothing_else = "a component may import WASI 0.2, \
                            of HTTP wasi:http/types and outgoing-handler, \
                            and taskmaster:task/host";
        return Err(format!(
            "unknown imports: {}; {nothing_else}",
            list(&unknown)
        ));
    }
    if !differing.is_empty() {
        return Err(format!(
            "imports with another type than runners have: {}",
            list(&differing)
        ));
    }
    Ok(())
}

fn check_interface(
    name: &str,
    id: ComponentInstanceTypeId,
    types: TypesRef<'_>,
    unknown: &mut Vec<String>,
    differing: &mut Vec<String>,
) {
    let functions = types[id]
        .exports
        .iter()
        .filter_map(|(function, item)| match item.ty {
            ComponentEntityType::Func(id) => Some((function.as_str(), id)),
            _ => None,
        });
    if host::is_host(name) {
        for (function, id) in functions {
            match host::function(function) {
                Some(wanted) if is_of(types, id, wanted) => {}
                Some(wanted) => differing.push(format!("{name}#{function} (it is {wanted})")),
                None => unknown.push(format!("{name}#{function}")),
            }
        }
        return;
    }
    match wasi2::functions(name) {
        None => unknown.push(name.to_owned()),
        Some(known) => {
            let missing = functions.filter(|(function, _)| !known.contains(function));
            unknown.extend(missing.map(|(function, _)| format!("{name}#{function}")));
        }
    }
}

fn is_of(types: TypesRef<'_>, id: ComponentFuncTypeId, wanted: &str) -> bool {
    signature(types, id, &mut TypeBudget::default())
        .is_ok_and(|signature| signature.to_string() == wanted)
}

/// The functions that a component exports, including those of exported interfaces.
fn functions(found: &ValidatedFile<'_>, types: TypesRef<'_>) -> Vec<ExportedFunction> {
    let mut all = Vec::new();
    let mut budget = TypeBudget::default();
    let mut add = |interface: Option<&str>, name: &str, id| {
        all.push(ExportedFunction {
            interface: interface.map(str::to_owned),
            name: name.to_owned(),
            signature: signature(types, id, &mut budget),
        });
    };
    for name in &found.component_exports {
        match types.component_item_for_export(name).map(|item| item.ty) {
            Some(ComponentEntityType::Func(id)) => add(None, name, id),
            Some(ComponentEntityType::Instance(instance)) => {
                for (function, item) in &types[instance].exports {
                    if let ComponentEntityType::Func(id) = item.ty {
                        add(Some(name), function, id);
                    }
                }
            }
            _ => {}
        }
    }
    all
}

/// The types of a function. The error says why JSON has no values for them, as the rest of a
/// sentence.
fn signature(
    types: TypesRef<'_>,
    id: ComponentFuncTypeId,
    budget: &mut TypeBudget,
) -> Result<Signature, String> {
    let function = &types[id];
    if function.async_ {
        return Err("is async".into());
    }
    budget.next_function();
    let mut params = Vec::new();
    for (name, ty) in &function.params {
        let ty = value(types, ty, budget)
            .and_then(|ty| Ok((budget.name(name)?, ty)))
            .map_err(|what| format!("has a parameter `{name}` that holds {what}"))?;
        params.push(ty);
    }
    let result = function
        .result
        .as_ref()
        .map(|ty| value(types, ty, budget))
        .transpose();
    Ok(Signature {
        params,
        result: result.map_err(|what| format!("gives back {what}"))?,
    })
}

fn value(
    types: TypesRef<'_>,
    ty: &ComponentValType,
    budget: &mut TypeBudget,
) -> Result<WitType, &'static str> {
    let id = match ty {
        ComponentValType::Primitive(primitive) => return plain(*primitive),
        ComponentValType::Type(id) => *id,
    };
    budget.inside(|budget| defined(types, &types[id], budget))
}

fn defined(
    types: TypesRef<'_>,
    ty: &ComponentDefinedType,
    budget: &mut TypeBudget,
) -> Result<WitType, &'static str> {
    Ok(match ty {
        ComponentDefinedType::Primitive(primitive) => return plain(*primitive),
        ComponentDefinedType::Record(record) => {
            let mut fields = Vec::new();
            for (name, ty) in &record.fields {
                fields.push((budget.name(name)?, value(types, ty, budget)?));
            }
            WitType::Record(fields)
        }
        ComponentDefinedType::Variant(variant) => {
            let mut cases = Vec::new();
            for (name, case) in &variant.cases {
                let name = budget.name(name)?;
                cases.push((name, optional(types, &case.ty, budget)?));
            }
            WitType::Variant(cases)
        }
        ComponentDefinedType::List { element, .. } => {
            WitType::List(Box::new(value(types, element, budget)?))
        }
        ComponentDefinedType::Tuple(tuple) => {
            let items = tuple.types.iter();
            WitType::Tuple(
                items
                    .map(|ty| value(types, ty, budget))
                    .collect::<Result<_, _>>()?,
            )
        }
        ComponentDefinedType::Flags(flags) => WitType::Flags(
            flags
                .iter()
                .map(|name| budget.name(name))
                .collect::<Result<_, _>>()?,
        ),
        ComponentDefinedType::Enum(cases) => WitType::Enum(
            cases
                .iter()
                .map(|name| budget.name(name))
                .collect::<Result<_, _>>()?,
        ),
        ComponentDefinedType::Option { ty, .. } => {
            WitType::Option(Box::new(value(types, ty, budget)?))
        }
        ComponentDefinedType::Result { ok, err, .. } => WitType::Result(
            optional(types, ok, budget)?.map(Box::new),
            optional(types, err, budget)?.map(Box::new),
        ),
        ComponentDefinedType::Own(_) | ComponentDefinedType::Borrow(_) => {
            return Err("a resource, for which JSON has no value");
        }
        _ => return Err("a type for which JSON has no value"),
    })
}

fn optional(
    types: TypesRef<'_>,
    ty: &Option<ComponentValType>,
    budget: &mut TypeBudget,
) -> Result<Option<WitType>, &'static str> {
    ty.as_ref().map(|ty| value(types, ty, budget)).transpose()
}

fn plain(primitive: PrimitiveValType) -> Result<WitType, &'static str> {
    Ok(match primitive {
        PrimitiveValType::Bool => WitType::Bool,
        PrimitiveValType::S8 => WitType::S8,
        PrimitiveValType::U8 => WitType::U8,
        PrimitiveValType::S16 => WitType::S16,
        PrimitiveValType::U16 => WitType::U16,
        PrimitiveValType::S32 => WitType::S32,
        PrimitiveValType::U32 => WitType::U32,
        PrimitiveValType::S64 => WitType::S64,
        PrimitiveValType::U64 => WitType::U64,
        PrimitiveValType::F32 => WitType::F32,
        PrimitiveValType::F64 => WitType::F64,
        PrimitiveValType::Char => WitType::Char,
        PrimitiveValType::String => WitType::String,
        PrimitiveValType::ErrorContext => {
            return Err("an error-context, for which JSON has no value");
        }
    })
}
