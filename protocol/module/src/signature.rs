//! The types of a component's function, as WIT has them. They are read from a file without an
//! engine.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};

/// A type of WIT whose values can be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WitType {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    List(Box<WitType>),
    Tuple(Vec<WitType>),
    Record(Vec<(String, WitType)>),
    Variant(Vec<(String, Option<WitType>)>),
    Enum(Vec<String>),
    Flags(Vec<String>),
    Option(Box<WitType>),
    Result(Option<Box<WitType>>, Option<Box<WitType>>),
}

/// The type of a function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signature {
    /// The names and types of the parameters, in order.
    pub params: Vec<(String, WitType)>,
    /// The type of the result; `None` where the function returns nothing.
    pub result: Option<WitType>,
}

impl WitType {
    /// The least and the greatest value of a type of whole numbers; `None` for every other type.
    pub fn bounds(&self) -> Option<(i128, i128)> {
        Some(match self {
            WitType::S8 => (i8::MIN.into(), i8::MAX.into()),
            WitType::U8 => (0, u8::MAX.into()),
            WitType::S16 => (i16::MIN.into(), i16::MAX.into()),
            WitType::U16 => (0, u16::MAX.into()),
            WitType::S32 => (i32::MIN.into(), i32::MAX.into()),
            WitType::U32 => (0, u32::MAX.into()),
            WitType::S64 => (i64::MIN.into(), i64::MAX.into()),
            WitType::U64 => (0, u64::MAX.into()),
            _ => return None,
        })
    }

    fn plain(&self) -> &'static str {
        match self {
            WitType::Bool => "bool",
            WitType::S8 => "s8",
            WitType::U8 => "u8",
            WitType::S16 => "s16",
            WitType::U16 => "u16",
            WitType::S32 => "s32",
            WitType::U32 => "u32",
            WitType::S64 => "s64",
            WitType::U64 => "u64",
            WitType::F32 => "f32",
            WitType::F64 => "f64",
            WitType::Char => "char",
            WitType::String => "string",
            WitType::List(_) => "list",
            WitType::Tuple(_) => "tuple",
            WitType::Record(_) => "record",
            WitType::Variant(_) => "variant",
            WitType::Enum(_) => "enum",
            WitType::Flags(_) => "flags",
            WitType::Option(_) => "option",
            WitType::Result(..) => "result",
        }
    }
}

/// As WIT writes the type, with named types spelled out.
impl Display for WitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plain())?;
        match self {
            WitType::List(item) | WitType::Option(item) => write!(f, "<{item}>"),
            WitType::Tuple(items) => {
                f.write_str("<")?;
                joined(f, items, |f, item| write!(f, "{item}"))?;
                f.write_str(">")
            }
            WitType::Record(fields) => {
                f.write_str(" { ")?;
                joined(f, fields, |f, (name, ty)| write!(f, "{name}: {ty}"))?;
                f.write_str(" }")
            }
            WitType::Variant(cases) => {
                f.write_str(" { ")?;
                joined(f, cases, |f, (name, ty)| match ty {
                    Some(ty) => write!(f, "{name}({ty})"),
                    None => f.write_str(name),
                })?;
                f.write_str(" }")
            }
            WitType::Enum(names) | WitType::Flags(names) => {
                f.write_str(" { ")?;
                joined(f, names, |f, name| f.write_str(name))?;
                f.write_str(" }")
            }
            WitType::Result(ok, err) => match (ok, err) {
                (None, None) => Ok(()),
                (Some(ok), None) => write!(f, "<{ok}>"),
                (None, Some(err)) => write!(f, "<_, {err}>"),
                (Some(ok), Some(err)) => write!(f, "<{ok}, {err}>"),
            },
            _ => Ok(()),
        }
    }
}

impl Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("func(")?;
        joined(f, &self.params, |f, (name, ty)| write!(f, "{name}: {ty}"))?;
        f.write_str(")")?;
        self.result
            .as_ref()
            .map_or(Ok(()), |result| write!(f, " -> {result}"))
    }
}

fn joined<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut one: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        one(f, item)?;
    }
    Ok(())
}
