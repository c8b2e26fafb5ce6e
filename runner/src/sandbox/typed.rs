//! Translates the engine's types and values into ours and into JSON. `taskmaster_module` decides
//! what JSON is accepted and what it becomes; nothing is decided here.

use std::fmt::Write;
use taskmaster_module::{ExportedFunction, Signature, TypeBudget, WitType, WitValue};
use wasmtime::component::types::{self, ComponentFunc, ComponentItem};
use wasmtime::component::{Component, Val};

/// The functions that a component exports, including those of exported interfaces.
pub(super) fn exports(component: &Component) -> Vec<ExportedFunction> {
    let engine = component.engine();
    let ty = component.component_type();
    let mut all = Vec::new();
    let mut budget = TypeBudget::default();
    let mut add = |interface: Option<&str>, name: &str, function: &ComponentFunc| {
        all.push(ExportedFunction {
            interface: interface.map(str::to_owned),
            name: name.to_owned(),
            signature: signature(function, &mut budget),
        });
    };
    for (name, export) in ty.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(function) => add(None, name, &function),
            ComponentItem::ComponentInstance(interface) => {
                for (function, export) in interface.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = export.ty {
                        add(Some(name), function, &ty);
                    }
                }
            }
            _ => {}
        }
    }
    all
}

fn signature(function: &ComponentFunc, budget: &mut TypeBudget) -> Result<Signature, String> {
    budget.next_function();
    let unusable = |what: &str| format!("has {what}");
    let mut params = Vec::new();
    for (name, ty) in function.params() {
        let name = budget.name(name).map_err(unusable)?;
        params.push((name, ours(&ty, budget).map_err(unusable)?));
    }
    let result = function
        .results()
        .next()
        .map(|ty| ours(&ty, budget).map_err(unusable))
        .transpose()?;
    Ok(Signature { params, result })
}

fn ours(ty: &types::Type, budget: &mut TypeBudget) -> Result<WitType, &'static str> {
    budget.inside(|budget| written(ty, budget))
}

/// The error ends a sentence that begins with who has such a type.
fn written(ty: &types::Type, budget: &mut TypeBudget) -> Result<WitType, &'static str> {
    Ok(match ty {
        types::Type::Bool => WitType::Bool,
        types::Type::S8 => WitType::S8,
        types::Type::U8 => WitType::U8,
        types::Type::S16 => WitType::S16,
        types::Type::U16 => WitType::U16,
        types::Type::S32 => WitType::S32,
        types::Type::U32 => WitType::U32,
        types::Type::S64 => WitType::S64,
        types::Type::U64 => WitType::U64,
        types::Type::Float32 => WitType::F32,
        types::Type::Float64 => WitType::F64,
        types::Type::Char => WitType::Char,
        types::Type::String => WitType::String,
        types::Type::List(list) => WitType::List(Box::new(ours(&list.ty(), budget)?)),
        types::Type::Record(record) => {
            let mut fields = Vec::new();
            for field in record.fields() {
                fields.push((budget.name(field.name)?, ours(&field.ty, budget)?));
            }
            WitType::Record(fields)
        }
        types::Type::Tuple(tuple) => WitType::Tuple(
            tuple
                .types()
                .map(|ty| ours(&ty, budget))
                .collect::<Result<_, _>>()?,
        ),
        types::Type::Variant(variant) => {
            let mut cases = Vec::new();
            for case in variant.cases() {
                let name = budget.name(case.name)?;
                cases.push((name, optional(case.ty, budget)?));
            }
            WitType::Variant(cases)
        }
        types::Type::Enum(cases) => WitType::Enum(
            cases
                .names()
                .map(|name| budget.name(name))
                .collect::<Result<_, _>>()?,
        ),
        types::Type::Flags(flags) => WitType::Flags(
            flags
                .names()
                .map(|name| budget.name(name))
                .collect::<Result<_, _>>()?,
        ),
        types::Type::Option(option) => WitType::Option(Box::new(ours(&option.ty(), budget)?)),
        types::Type::Result(result) => WitType::Result(
            optional(result.ok(), budget)?.map(Box::new),
            optional(result.err(), budget)?.map(Box::new),
        ),
        _ => return Err("values that JSON does not have"),
    })
}

fn optional(
    ty: Option<types::Type>,
    budget: &mut TypeBudget,
) -> Result<Option<WitType>, &'static str> {
    ty.map(|ty| ours(&ty, budget)).transpose()
}

/// The engine's form of a value that was read as one of type `ty`.
pub(super) fn val(ty: &WitType, value: WitValue) -> Val {
    match (ty, value) {
        (_, WitValue::Bool(is)) => Val::Bool(is),
        (_, WitValue::Int(number)) => integer(ty, number),
        (WitType::F32, WitValue::Float(number)) => Val::Float32(number as f32),
        (_, WitValue::Float(number)) => Val::Float64(number),
        (_, WitValue::Char(character)) => Val::Char(character),
        (_, WitValue::String(text)) => Val::String(text),
        (WitType::List(item), WitValue::Many(values)) => {
            Val::List(values.into_iter().map(|value| val(item, value)).collect())
        }
        (WitType::Record(fields), WitValue::Many(values)) => {
            let fields = fields.iter().zip(values);
            Val::Record(
                fields
                    .map(|((name, ty), value)| (name.clone(), val(ty, value)))
                    .collect(),
            )
        }
        (WitType::Tuple(types), WitValue::Many(values)) => Val::Tuple(
            types
                .iter()
                .zip(values)
                .map(|(ty, value)| val(ty, value))
                .collect(),
        ),
        (WitType::Variant(cases), WitValue::Case(index, inner)) => {
            let (name, ty) = cases
                .get(index)
                .map_or(("", &None), |(name, ty)| (name.as_str(), ty));
            Val::Variant(
                name.to_owned(),
                ty.as_ref()
                    .zip(inner)
                    .map(|(ty, inner)| Box::new(val(ty, *inner))),
            )
        }
        (WitType::Enum(names), WitValue::Case(index, _)) => {
            Val::Enum(names.get(index).cloned().unwrap_or_default())
        }
        (WitType::Result(ok, err), WitValue::Case(index, inner)) => {
            let ty = if index == 0 { ok } else { err };
            let inner = ty
                .as_ref()
                .zip(inner)
                .map(|(ty, inner)| Box::new(val(ty, *inner)));
            Val::Result(if index == 0 { Ok(inner) } else { Err(inner) })
        }
        (WitType::Flags(names), WitValue::Flags(set)) => Val::Flags(
            set.into_iter()
                .filter_map(|index| names.get(index).cloned())
                .collect(),
        ),
        (WitType::Option(ty), WitValue::Option(inner)) => {
            Val::Option(inner.map(|inner| Box::new(val(ty, *inner))))
        }
        // A value has the type as which it was read, so this cannot be. If it could, the engine
        // would refuse the call, because it checks types once more.
        _ => Val::Option(None),
    }
}

/// `number` is within the bounds of the integer type `ty`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number was read within the bounds of its type"
)]
fn integer(ty: &WitType, number: i128) -> Val {
    match ty {
        WitType::S8 => Val::S8(number as i8),
        WitType::U8 => Val::U8(number as u8),
        WitType::S16 => Val::S16(number as i16),
        WitType::U16 => Val::U16(number as u16),
        WitType::S32 => Val::S32(number as i32),
        WitType::U32 => Val::U32(number as u32),
        WitType::S64 => Val::S64(number as i64),
        _ => Val::U64(number as u64),
    }
}

/// A value as JSON, in the form in which params of its type are read.
pub(super) fn json(value: &Val) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Val, out: &mut String) {
    match value {
        Val::Bool(is) => plain(is, out),
        Val::S8(number) => plain(number, out),
        Val::U8(number) => plain(number, out),
        Val::S16(number) => plain(number, out),
        Val::U16(number) => plain(number, out),
        Val::S32(number) => plain(number, out),
        Val::U32(number) => plain(number, out),
        Val::S64(number) => plain(number, out),
        Val::U64(number) => plain(number, out),
        Val::Float32(number) => float(f64::from(*number), number.to_string(), out),
        Val::Float64(number) => float(
            *number,
            serde_json::to_string(number).unwrap_or_default(),
            out,
        ),
        Val::Char(character) => text(character.encode_utf8(&mut [0; 4]), out),
        Val::String(string) | Val::Enum(string) => text(string, out),
        Val::List(values) | Val::Tuple(values) | Val::FixedLengthList(values) => {
            sequence('[', values, ']', out, write);
        }
        Val::Record(fields) => sequence('{', fields, '}', out, |(name, value), out| {
            member(name, value, out)
        }),
        Val::Map(entries) => sequence('[', entries, ']', out, |(key, value), out| {
            out.push('[');
            write(key, out);
            out.push(',');
            write(value, out);
            out.push(']');
        }),
        Val::Variant(name, None) => text(name, out),
        Val::Variant(name, Some(value)) => case(name, Some(value), out),
        Val::Option(None) => out.push_str("null"),
        // An option of an option must distinguish `none` from `some(none)`.
        Val::Option(Some(value)) if matches!(**value, Val::Option(_)) => {
            case("some", Some(value), out)
        }
        Val::Option(Some(value)) => write(value, out),
        Val::Result(Ok(value)) => case("ok", value.as_deref(), out),
        Val::Result(Err(value)) => case("err", value.as_deref(), out),
        Val::Flags(names) => sequence('[', names, ']', out, |name, out| text(name, out)),
        // A function with such a type has no signature, so it is never called.
        Val::Resource(_) | Val::Future(_) | Val::Stream(_) | Val::ErrorContext(_) => {
            out.push_str("null")
        }
    }
}

fn plain(value: &impl std::fmt::Display, out: &mut String) {
    // Writing into a string cannot fail.
    let _ = write!(out, "{value}");
}

/// A number as JSON. `shown` is its text if it is finite; JSON has no other numbers.
fn float(number: f64, shown: String, out: &mut String) {
    out.push_str(match number {
        _ if number.is_finite() => &shown,
        _ if number.is_nan() => "\"NaN\"",
        _ if number > 0.0 => "\"Infinity\"",
        _ => "\"-Infinity\"",
    });
}

fn text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn member(name: &str, value: &Val, out: &mut String) {
    text(name, out);
    out.push(':');
    write(value, out);
}

fn case(name: &str, value: Option<&Val>, out: &mut String) {
    out.push('{');
    text(name, out);
    out.push(':');
    match value {
        Some(value) => write(value, out),
        None => out.push_str("null"),
    }
    out.push('}');
}

fn sequence<T>(
    open: char,
    items: &[T],
    close: char,
    out: &mut String,
    one: impl Fn(&T, &mut String),
) {
    out.push(open);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        one(item, out);
    }
    out.push(close);
}
