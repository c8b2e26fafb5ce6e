//! Params as the arguments of a component's function: JSON read by WIT types. What does not fit is
//! told with its path.
//!
//! | WIT | JSON |
//! |---|---|
//! | `bool`, `string` | the same |
//! | `char` | a string of one character |
//! | `u8` … `s64` | a whole number within its bounds, 64 bits exact |
//! | `f32`, `f64` | a number, or `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `list`, `tuple` | an array |
//! | `record` | an object; a field that is an `option` may be left out |
//! | `option` | the value, or `null`; inside another `option`, `{"some":value}` |
//! | `variant` | `{"case":value}`, or `"case"` where the case carries nothing |
//! | `enum` | a string |
//! | `flags` | an array of strings |
//! | `result` | `{"ok":value}` or `{"err":value}` |

use crate::signature::{Signature, Type};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use taskmaster_protocol::{Refusal, RefusalCode, near};

/// Characters of a wrong value that stand in the sentence about it.
const SHOWN_MAX: usize = 60;

/// A value of a [`Type`], which says how it is meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `bool`.
    Bool(bool),
    /// Any type of whole numbers, within its bounds.
    Int(i128),
    /// `f32`, `f64`.
    Float(f64),
    /// `char`.
    Char(char),
    /// `string`.
    String(String),
    /// `list`, `tuple`, and the fields of a `record` in the order of its type.
    Many(Vec<Value>),
    /// The place of a case in a `variant`, an `enum` or a `result` (`ok` is 0), and what it
    /// carries.
    Case(usize, Option<Box<Value>>),
    /// The places of the `flags` that are set.
    Flags(Vec<usize>),
    /// `option`.
    Option(Option<Box<Value>>),
    /// The result of another task, which is not there yet.
    Later,
}

/// Whether params may still name results of other tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// They do: such places are taken for right.
    Open,
    /// All have been replaced.
    Replaced,
}

impl Signature {
    /// The arguments that `params` are: an object with the names of the parameters, an array of
    /// them in order, or, where there is one parameter only, its value alone.
    pub fn arguments(
        &self,
        params: Option<&str>,
        references: References,
    ) -> Result<Vec<Value>, Refusal> {
        let text = params
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .unwrap_or("null");
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| Refusal::from_serde(&error, "params"))?;
        let reader = Reader { references };
        if let [(name, ty)] = self.params.as_slice()
            && !is_named(name, ty, raw)
        {
            return reader.read(ty, raw, &Path::Params).map(|value| vec![value]);
        }
        if reader.reference(raw).is_some() {
            return Ok(vec![Value::Later; self.params.len()]);
        }
        match raw.get().as_bytes().first() {
            Some(b'n') => reader.fields(&self.params, Vec::new(), &Path::Params),
            Some(b'{') => reader.fields(&self.params, members(raw, &Path::Params)?, &Path::Params),
            Some(b'[') => {
                let types: Vec<&Type> = self.params.iter().map(|(_, ty)| ty).collect();
                reader.tuple(&types, raw, &Path::Params)
            }
            _ => Err(wrong(
                raw,
                &Path::Params,
                &format!("an object with the parameters of `{self}`"),
            )),
        }
    }
}

/// Whether `raw` is an object that names the only parameter, and not the value of that parameter
/// itself.
fn is_named(name: &str, ty: &Type, raw: &RawValue) -> bool {
    let Ok(members) = serde_json::from_str::<Members>(raw.get()) else {
        return false;
    };
    let [(key, _)] = members.0.as_slice() else {
        return false;
    };
    let own = match ty {
        Type::Record(fields) => fields.iter().any(|(field, _)| field == key),
        Type::Variant(cases) => cases.iter().any(|(case, _)| case == key),
        _ => false,
    };
    key == name && !own
}

/// Where a value stands.
enum Path<'a> {
    Params,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Params => f.write_str("params"),
            Path::Field(outer, name) => write!(f, "{outer}.{name}"),
            Path::Item(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

struct Reader {
    references: References,
}

impl Reader {
    fn read(&self, ty: &Type, raw: &RawValue, path: &Path<'_>) -> Result<Value, Refusal> {
        match self.reference(raw) {
            Some(Reference::Result) => return Ok(Value::Later),
            Some(Reference::Results) if matches!(ty, Type::List(_) | Type::Tuple(_)) => {
                return Ok(Value::Later);
            }
            Some(Reference::Results) => return Err(wrong(raw, path, &expected(ty))),
            Some(Reference::Literal(inner)) => {
                return Reader {
                    references: References::Replaced,
                }
                .read(ty, &inner, path);
            }
            None => {}
        }
        let text = raw.get();
        let value = match ty {
            Type::Bool => serde_json::from_str(text).ok().map(Value::Bool),
            Type::F32 | Type::F64 => float(text).map(Value::Float),
            Type::Char => serde_json::from_str::<String>(text)
                .ok()
                .and_then(|text| one(&text))
                .map(Value::Char),
            Type::String => serde_json::from_str(text).ok().map(Value::String),
            Type::List(item) => return self.list(item, raw, path),
            Type::Tuple(items) => {
                return self
                    .tuple(&items.iter().collect::<Vec<_>>(), raw, path)
                    .map(Value::Many);
            }
            Type::Record(fields) => {
                return self
                    .fields(fields, members(raw, path)?, path)
                    .map(Value::Many);
            }
            Type::Variant(cases) => {
                let cases: Vec<_> = cases
                    .iter()
                    .map(|(name, ty)| (name.as_str(), ty.as_ref()))
                    .collect();
                return self.case(&cases, raw, path);
            }
            Type::Enum(names) => {
                let cases: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
                return self.case(&cases, raw, path);
            }
            Type::Result(ok, err) => {
                return self.case(&[("ok", ok.as_deref()), ("err", err.as_deref())], raw, path);
            }
            Type::Flags(names) => return flags(names, raw, path),
            Type::Option(inner) => return self.option(inner, raw, path),
            integer => integer.bounds().and_then(|(least, most)| {
                let number = text.parse::<i128>().ok()?;
                (least..=most)
                    .contains(&number)
                    .then_some(Value::Int(number))
            }),
        };
        value.ok_or_else(|| wrong(raw, path, &expected(ty)))
    }

    /// What `raw` refers to, where it may refer at all.
    fn reference(&self, raw: &RawValue) -> Option<Reference> {
        if self.references == References::Replaced
            || !taskmaster_protocol::splice::may_refer(raw.get())
        {
            return None;
        }
        let Members(members) = serde_json::from_str(raw.get()).ok()?;
        match members.as_slice() {
            [(key, _)] if key == "$result" => Some(Reference::Result),
            [(key, _)] if key == "$results" => Some(Reference::Results),
            [(key, value)] if key == "$literal" => Some(Reference::Literal((*value).to_owned())),
            _ => None,
        }
    }

    fn list(&self, item: &Type, raw: &RawValue, path: &Path<'_>) -> Result<Value, Refusal> {
        let items = array(raw).ok_or_else(|| wrong(raw, path, "an array"))?;
        let items = items
            .into_iter()
            .enumerate()
            .map(|(i, raw)| self.read(item, raw, &Path::Item(path, i)));
        items.collect::<Result<_, _>>().map(Value::Many)
    }

    fn tuple(
        &self,
        types: &[&Type],
        raw: &RawValue,
        path: &Path<'_>,
    ) -> Result<Vec<Value>, Refusal> {
        let words = || format!("an array of {} values", types.len());
        let items = array(raw)
            .filter(|items| items.len() == types.len())
            .ok_or_else(|| wrong(raw, path, &words()))?;
        let items = items.into_iter().zip(types).enumerate();
        items
            .map(|(i, (raw, ty))| self.read(ty, raw, &Path::Item(path, i)))
            .collect()
    }

    fn fields(
        &self,
        fields: &[(String, Type)],
        members: Vec<(String, &RawValue)>,
        path: &Path<'_>,
    ) -> Result<Vec<Value>, Refusal> {
        let known = || fields.iter().map(|(name, _)| name.as_str());
        if let Some((name, _)) = members
            .iter()
            .find(|(name, _)| !known().any(|known| known == name))
        {
            let hint = near::hint(name, known());
            let all = match hint.is_empty() {
                true if fields.is_empty() => "; there are none".to_owned(),
                true => format!(
                    "; the fields are {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
                false => hint,
            };
            let at = Path::Field(path, name).to_string();
            return Err(Refusal::new(
                RefusalCode::UnknownField,
                format!("unknown field `{at}`{all}"),
            )
            .at(at));
        }
        let value = |(name, ty): &(String, Type)| {
            let at = Path::Field(path, name);
            // Of a repeated key the last one counts, as for everybody who reads JSON.
            match members.iter().rev().find(|(member, _)| member == name) {
                Some((_, raw)) => self.read(ty, raw, &at),
                None if matches!(ty, Type::Option(_)) => Ok(Value::Option(None)),
                None => {
                    let text = format!("the field `{at}` is missing; it is {}", expected(ty));
                    Err(Refusal::new(RefusalCode::MissingField, text).at(at.to_string()))
                }
            }
        };
        fields.iter().map(value).collect()
    }

    fn case(
        &self,
        cases: &[(&str, Option<&Type>)],
        raw: &RawValue,
        path: &Path<'_>,
    ) -> Result<Value, Refusal> {
        let name = serde_json::from_str::<String>(raw.get()).ok();
        let member = members(raw, path)
            .ok()
            .filter(|members| members.len() == 1)
            .and_then(|mut all| all.pop());
        let words = || {
            let shown = |(name, ty): &(&str, Option<&Type>)| match ty {
                Some(_) => format!("{{\"{name}\":…}}"),
                None => format!("\"{name}\""),
            };
            format!(
                "one of {}",
                cases.iter().map(shown).collect::<Vec<_>>().join(", ")
            )
        };
        let place = |wanted: &str| cases.iter().position(|(name, _)| *name == wanted);
        match (name, member) {
            (Some(name), _) => match place(&name) {
                Some(index) if cases.get(index).is_some_and(|(_, ty)| ty.is_none()) => {
                    Ok(Value::Case(index, None))
                }
                _ => Err(wrong(raw, path, &words())),
            },
            (None, Some((name, inner))) => {
                let Some((index, ty)) =
                    place(&name).and_then(|i| cases.get(i).map(|(_, ty)| (i, *ty)))
                else {
                    return Err(wrong(raw, path, &words()));
                };
                let at = Path::Field(path, &name);
                match ty {
                    Some(ty) => self
                        .read(ty, inner, &at)
                        .map(|value| Value::Case(index, Some(Box::new(value)))),
                    None if inner.get() == "null" => Ok(Value::Case(index, None)),
                    None => Err(wrong(inner, &at, "null: the case carries nothing")),
                }
            }
            (None, None) => Err(wrong(raw, path, &words())),
        }
    }

    fn option(&self, inner: &Type, raw: &RawValue, path: &Path<'_>) -> Result<Value, Refusal> {
        if raw.get() == "null" {
            return Ok(Value::Option(None));
        }
        let some = |value| Value::Option(Some(Box::new(value)));
        if !matches!(inner, Type::Option(_)) {
            return self.read(inner, raw, path).map(some);
        }
        match members(raw, path)?.as_slice() {
            [(key, value)] if key == "some" => self
                .read(inner, value, &Path::Field(path, "some"))
                .map(some),
            _ => Err(wrong(raw, path, "null or {\"some\":…}")),
        }
    }
}

enum Reference {
    Result,
    Results,
    Literal(Box<RawValue>),
}

fn flags(names: &[String], raw: &RawValue, path: &Path<'_>) -> Result<Value, Refusal> {
    let words = || format!("an array of {}", names.join(", "));
    let wanted: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| wrong(raw, path, &words()))?;
    let place = |wanted: &String| names.iter().position(|name| name == wanted);
    let places = wanted
        .iter()
        .map(|name| place(name).ok_or_else(|| wrong(raw, path, &words())));
    places.collect::<Result<_, _>>().map(Value::Flags)
}

fn one(text: &str) -> Option<char> {
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}

fn float(text: &str) -> Option<f64> {
    match text {
        "\"NaN\"" => Some(f64::NAN),
        "\"Infinity\"" => Some(f64::INFINITY),
        "\"-Infinity\"" => Some(f64::NEG_INFINITY),
        _ => serde_json::from_str(text).ok(),
    }
}

fn array(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

fn members<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Vec<(String, &'a RawValue)>, Refusal> {
    serde_json::from_str::<Members>(raw.get())
        .map(|members| members.0)
        .map_err(|_| wrong(raw, path, "an object"))
}

/// What a value of this type looks like, for people.
fn expected(ty: &Type) -> String {
    match (ty, ty.bounds()) {
        (_, Some((least, most))) => format!("{ty}, a whole number from {least} to {most}"),
        (Type::Char, _) => "char, a string of one character".into(),
        (Type::F32 | Type::F64, _) => format!("{ty}, a number"),
        _ => ty.to_string(),
    }
}

fn wrong(raw: &RawValue, path: &Path<'_>, expected: &str) -> Refusal {
    let text = raw.get();
    let cut = text
        .char_indices()
        .nth(SHOWN_MAX)
        .map_or(text.len(), |(at, _)| at);
    let more = if cut < text.len() { "…" } else { "" };
    let text = format!(
        "field `{path}` is {}{more}, expected {expected}",
        text.get(..cut).unwrap_or_default()
    );
    Refusal::new(RefusalCode::WrongType, text).at(path.to_string())
}

/// An object's members in the order of the text, repeated keys included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(params: &[(&str, Type)]) -> Signature {
        Signature {
            params: params
                .iter()
                .map(|(name, ty)| ((*name).to_owned(), ty.clone()))
                .collect(),
            result: None,
        }
    }

    fn size() -> Type {
        Type::Record(vec![
            ("width".into(), Type::U8),
            ("unit-name".into(), Type::Option(Box::new(Type::String))),
        ])
    }

    fn one_of(ty: Type, params: &str) -> Result<Value, Refusal> {
        signature(&[("x", ty)])
            .arguments(Some(params), References::Replaced)
            .map(|mut values| values.remove(0))
    }

    #[test]
    fn json_becomes_values_of_every_type() {
        let list = |ty: Type| Type::List(Box::new(ty));
        let option = |ty: Type| Type::Option(Box::new(ty));
        let shape = || {
            Type::Variant(vec![
                ("dot".into(), None),
                ("circle".into(), Some(Type::F64)),
            ])
        };
        let text = |text: &str| Value::String(text.into());
        for (ty, json, value) in [
            (Type::Bool, "true", Value::Bool(true)),
            (Type::S8, "-128", Value::Int(-128)),
            (
                Type::U64,
                "18446744073709551615",
                Value::Int(u64::MAX.into()),
            ),
            (Type::F64, "1e3", Value::Float(1000.0)),
            (Type::F32, "\"-Infinity\"", Value::Float(f64::NEG_INFINITY)),
            (Type::Char, "\"ü\"", Value::Char('ü')),
            (Type::String, "\"a\\n\"", text("a\n")),
            (
                list(Type::U8),
                "[1, 2]",
                Value::Many(vec![Value::Int(1), Value::Int(2)]),
            ),
            (
                Type::Tuple(vec![Type::Bool, Type::U8]),
                "[false,1]",
                Value::Many(vec![Value::Bool(false), Value::Int(1)]),
            ),
            (
                size(),
                "{\"width\":3}",
                Value::Many(vec![Value::Int(3), Value::Option(None)]),
            ),
            (shape(), "\"dot\"", Value::Case(0, None)),
            (
                shape(),
                "{\"circle\":2}",
                Value::Case(1, Some(Box::new(Value::Float(2.0)))),
            ),
            (
                Type::Enum(vec!["a".into(), "b".into()]),
                "\"b\"",
                Value::Case(1, None),
            ),
            (
                Type::Flags(vec!["r".into(), "w".into()]),
                "[\"w\"]",
                Value::Flags(vec![1]),
            ),
            (option(Type::U8), "null", Value::Option(None)),
            (
                option(option(Type::U8)),
                "{\"some\":null}",
                Value::Option(Some(Box::new(Value::Option(None)))),
            ),
            (
                Type::Result(Some(Box::new(Type::U8)), None),
                "{\"ok\":1}",
                Value::Case(0, Some(Box::new(Value::Int(1)))),
            ),
            (Type::Result(None, None), "\"err\"", Value::Case(1, None)),
        ] {
            assert_eq!(one_of(ty.clone(), json), Ok(value), "{ty}: {json}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_path() {
        let sizes = || Type::List(Box::new(size()));
        for (ty, json, field, words) in [
            (
                Type::U8,
                "256",
                "params",
                "256, expected u8, a whole number from 0 to 255",
            ),
            (Type::U8, "1.0", "params", "1.0, expected u8"),
            (Type::String, "1", "params", "expected string"),
            (Type::Char, "\"ab\"", "params", "one character"),
            (
                sizes(),
                "[{\"width\":1},{\"width\":\"x\"}]",
                "params[1].width",
                "\"x\", expected u8",
            ),
            (
                sizes(),
                "[{\"widht\":1}]",
                "params[0].widht",
                "did you mean `width`",
            ),
            (sizes(), "[{}]", "params[0].width", "is missing; it is u8"),
            (size(), "[]", "params", "an object"),
            (
                Type::Tuple(vec![Type::Bool]),
                "[]",
                "params",
                "an array of 1 values",
            ),
            (
                Type::Enum(vec!["a".into()]),
                "\"b\"",
                "params",
                "one of \"a\"",
            ),
            (
                Type::Variant(vec![("a".into(), Some(Type::U8))]),
                "{\"a\":-1}",
                "params.a",
                "-1, expected u8",
            ),
            (
                Type::Variant(vec![("a".into(), Some(Type::U8))]),
                "\"a\"",
                "params",
                "{\"a\":…}",
            ),
            (
                Type::Flags(vec!["r".into()]),
                "[\"x\"]",
                "params",
                "an array of r",
            ),
        ] {
            let refusal = one_of(ty, json).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{json}: {refusal}");
            assert!(refusal.message.contains(words), "{json}: {refusal}");
        }
        let long = one_of(Type::U8, &format!("\"{}\"", "ü".repeat(500))).unwrap_err();
        assert!(long.message.chars().count() < 200, "{long}");
    }

    #[test]
    fn arguments_are_named_in_order_or_alone() {
        let two = signature(&[("a", Type::U8), ("b", Type::Option(Box::new(Type::String)))]);
        let read = |params| two.arguments(params, References::Replaced);
        assert_eq!(read(Some("{\"a\":1}")), read(Some("[1,null]")));
        assert_eq!(read(None).unwrap_err().field.as_deref(), Some("params.a"));
        assert_eq!(
            read(Some("7")).unwrap_err().field.as_deref(),
            Some("params")
        );
        let one = signature(&[("name", Type::String)]);
        for params in ["\"x\"", "{\"name\":\"x\"}"] {
            assert_eq!(
                one.arguments(Some(params), References::Replaced).unwrap(),
                [Value::String("x".into())]
            );
        }
        // An object is the record itself where that has such a field.
        let own = signature(&[("width", size())]);
        let width = Value::Many(vec![Value::Int(1), Value::Option(None)]);
        assert_eq!(
            own.arguments(Some("{\"width\":1}"), References::Replaced)
                .unwrap(),
            std::slice::from_ref(&width)
        );
        let other = signature(&[("size", size())]);
        assert_eq!(
            other
                .arguments(Some("{\"size\":{\"width\":1}}"), References::Replaced)
                .unwrap(),
            [width]
        );
        let none = signature(&[]);
        for params in [None, Some("null"), Some("{}"), Some("[]")] {
            assert_eq!(none.arguments(params, References::Replaced), Ok(vec![]));
        }
        assert!(
            none.arguments(Some("{\"a\":1}"), References::Replaced)
                .unwrap_err()
                .message
                .contains("there are none")
        );
    }

    #[test]
    fn results_that_are_not_there_yet_fit_everywhere() {
        let two = signature(&[("a", Type::U8), ("b", Type::List(Box::new(Type::U8)))]);
        let read = |params| two.arguments(Some(params), References::Open);
        assert_eq!(
            read(r#"{"a":{"$result":"t"},"b":{"$results":["t"]}}"#).unwrap(),
            [Value::Later, Value::Later]
        );
        assert_eq!(
            read(r#"{"$result":"t"}"#).unwrap(),
            [Value::Later, Value::Later]
        );
        assert_eq!(
            read(r#"{"a":{"$literal":3},"b":[{"$result":"t"},4]}"#).unwrap()[0],
            Value::Int(3)
        );
        assert_eq!(
            read(r#"{"a":{"$results":[]},"b":[]}"#)
                .unwrap_err()
                .field
                .as_deref(),
            Some("params.a")
        );
        assert_eq!(
            read(r#"{"a":{"$result":"t"},"b":[-1]}"#)
                .unwrap_err()
                .field
                .as_deref(),
            Some("params.b[0]")
        );
    }

    #[test]
    fn a_signature_is_written_as_wit_writes_it() {
        let all = Signature {
            params: vec![
                ("size".into(), size()),
                ("more".into(), Type::List(Box::new(Type::U8))),
            ],
            result: Some(Type::Result(None, Some(Box::new(Type::String)))),
        };
        let text = "func(size: record { width: u8, unit-name: option<string> }, more: list<u8>) -> result<_, string>";
        assert_eq!(all.to_string(), text);
    }
}
