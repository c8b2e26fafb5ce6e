//! The types of a component's function, as WIT has them: what stands in a file, told in values that
//! need no engine.

use std::fmt::{self, Display};

/// A type whose values can be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are those of WIT")]
pub enum Type {
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
    List(Box<Type>),
    Tuple(Vec<Type>),
    Record(Vec<(String, Type)>),
    Variant(Vec<(String, Option<Type>)>),
    Enum(Vec<String>),
    Flags(Vec<String>),
    Option(Box<Type>),
    Result(Option<Box<Type>>, Option<Box<Type>>),
}

/// A function: its parameters by name, in order, and what it gives back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// By name, in order.
    pub params: Vec<(String, Type)>,
    /// `None`: nothing.
    pub result: Option<Type>,
}

impl Type {
    /// The least and the greatest value of a type of whole numbers.
    pub fn bounds(&self) -> Option<(i128, i128)> {
        Some(match self {
            Type::S8 => (i8::MIN.into(), i8::MAX.into()),
            Type::U8 => (0, u8::MAX.into()),
            Type::S16 => (i16::MIN.into(), i16::MAX.into()),
            Type::U16 => (0, u16::MAX.into()),
            Type::S32 => (i32::MIN.into(), i32::MAX.into()),
            Type::U32 => (0, u32::MAX.into()),
            Type::S64 => (i64::MIN.into(), i64::MAX.into()),
            Type::U64 => (0, u64::MAX.into()),
            _ => return None,
        })
    }

    fn plain(&self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::S8 => "s8",
            Type::U8 => "u8",
            Type::S16 => "s16",
            Type::U16 => "u16",
            Type::S32 => "s32",
            Type::U32 => "u32",
            Type::S64 => "s64",
            Type::U64 => "u64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::List(_) => "list",
            Type::Tuple(_) => "tuple",
            Type::Record(_) => "record",
            Type::Variant(_) => "variant",
            Type::Enum(_) => "enum",
            Type::Flags(_) => "flags",
            Type::Option(_) => "option",
            Type::Result(..) => "result",
        }
    }
}

/// As WIT writes it, named types spelled out.
impl Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plain())?;
        match self {
            Type::List(item) | Type::Option(item) => write!(f, "<{item}>"),
            Type::Tuple(items) => {
                f.write_str("<")?;
                joined(f, items, |f, item| write!(f, "{item}"))?;
                f.write_str(">")
            }
            Type::Record(fields) => {
                f.write_str(" { ")?;
                joined(f, fields, |f, (name, ty)| write!(f, "{name}: {ty}"))?;
                f.write_str(" }")
            }
            Type::Variant(cases) => {
                f.write_str(" { ")?;
                joined(f, cases, |f, (name, ty)| match ty {
                    Some(ty) => write!(f, "{name}({ty})"),
                    None => f.write_str(name),
                })?;
                f.write_str(" }")
            }
            Type::Enum(names) | Type::Flags(names) => {
                f.write_str(" { ")?;
                joined(f, names, |f, name| f.write_str(name))?;
                f.write_str(" }")
            }
            Type::Result(ok, err) => match (ok, err) {
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
