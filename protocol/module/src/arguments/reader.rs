//! Reads one JSON value by one WIT type.

use crate::arguments::WitValue;
use crate::path::ParamPath;
use crate::shallow;
use crate::signature::{Signature, WitType};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use taskmaster_protocol::placeholder::{Placeholder, Placeholders};
use taskmaster_protocol::{Refusal, RefusalCode, near};

/// Characters of a wrong value that stand in the sentence about it.
const SHOWN_MAX: usize = 60;

/// Reads values that are borrowed from the text in which `placeholders` were found. It descends as
/// deep as the type does, not as deep as the text.
pub(super) struct ArgumentReader<'a> {
    pub(super) placeholders: &'a Placeholders<'a>,
}

/// A case of a `variant`, an `enum` or a `result`.
struct Case<'t> {
    name: &'t str,
    carries: Option<&'t WitType>,
}

impl ArgumentReader<'_> {
    /// The value of type `ty` that `raw` is.
    pub(super) fn read(
        &self,
        ty: &WitType,
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<WitValue, Refusal> {
        match self.placeholders.at(raw.get()) {
            Some(Placeholder::Result) => Ok(WitValue::Later),
            Some(Placeholder::Results) => match ty {
                WitType::List(_) | WitType::Tuple(_) => Ok(WitValue::Later),
                _ => Err(wrong(raw, path, &expected(ty))),
            },
            // Placeholders do not lie inside each other, so that nothing in a literal is one.
            Some(Placeholder::Literal(inner)) => self.read_by_type(ty, inner, path),
            None => self.read_by_type(ty, raw, path),
        }
    }

    /// All parameters of a function, from an object or an array.
    pub(super) fn parameters(
        &self,
        signature: &Signature,
        raw: &RawValue,
    ) -> Result<Vec<WitValue>, Refusal> {
        let params = &signature.params;
        let path = &ParamPath::Params;
        let raw = match self.placeholders.at(raw.get()) {
            Some(Placeholder::Result | Placeholder::Results) => {
                return Ok(vec![WitValue::Later; params.len()]);
            }
            Some(Placeholder::Literal(inner)) => inner,
            None => raw,
        };
        match raw.get().as_bytes().first() {
            Some(b'n') => self.fields(params, &BTreeMap::new(), path),
            Some(b'{') => self.record(params, raw, path),
            Some(b'[') => self.tuple(params.iter().map(|(_, ty)| ty), raw, path),
            _ => {
                let expected = format!("an object with the parameters of `{signature}`");
                Err(wrong(raw, path, &expected))
            }
        }
    }

    fn read_by_type(
        &self,
        ty: &WitType,
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<WitValue, Refusal> {
        let text = raw.get();
        let value = match ty {
            WitType::List(item) => return self.list(item, raw, path),
            WitType::Tuple(items) => {
                return self.tuple(items.iter(), raw, path).map(WitValue::Many);
            }
            WitType::Record(fields) => return self.record(fields, raw, path).map(WitValue::Many),
            WitType::Variant(cases) => {
                let cases: Vec<Case<'_>> = cases.iter().map(case_of).collect();
                return self.case(&cases, raw, path);
            }
            WitType::Enum(names) => {
                let cases: Vec<Case<'_>> = names
                    .iter()
                    .map(|name| Case {
                        name,
                        carries: None,
                    })
                    .collect();
                return self.case(&cases, raw, path);
            }
            WitType::Result(ok, err) => {
                let cases = [
                    Case {
                        name: "ok",
                        carries: ok.as_deref(),
                    },
                    Case {
                        name: "err",
                        carries: err.as_deref(),
                    },
                ];
                return self.case(&cases, raw, path);
            }
            WitType::Flags(names) => return flags(names, raw, path),
            WitType::Option(inner) => return self.option(inner, raw, path),
            WitType::Bool => serde_json::from_str(text).ok().map(WitValue::Bool),
            WitType::F32 | WitType::F64 => float(text).map(WitValue::Float),
            WitType::Char => char_of(text).map(WitValue::Char),
            WitType::String => serde_json::from_str(text).ok().map(WitValue::String),
            integer => whole_number(integer, text).map(WitValue::Int),
        };
        value.ok_or_else(|| wrong(raw, path, &expected(ty)))
    }

    fn list(
        &self,
        item: &WitType,
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<WitValue, Refusal> {
        let items = shallow::array(raw).ok_or_else(|| wrong(raw, path, "an array"))?;
        items
            .into_iter()
            .enumerate()
            .map(|(index, raw)| self.read(item, raw, &ParamPath::Item(path, index)))
            .collect::<Result<_, _>>()
            .map(WitValue::Many)
    }

    fn tuple<'t>(
        &self,
        types: impl ExactSizeIterator<Item = &'t WitType>,
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<Vec<WitValue>, Refusal> {
        let count = types.len();
        let items = shallow::array(raw)
            .filter(|items| items.len() == count)
            .ok_or_else(|| wrong(raw, path, &format!("an array of {count} values")))?;
        items
            .into_iter()
            .zip(types)
            .enumerate()
            .map(|(index, (raw, ty))| self.read(ty, raw, &ParamPath::Item(path, index)))
            .collect()
    }

    fn record(
        &self,
        fields: &[(String, WitType)],
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<Vec<WitValue>, Refusal> {
        let members = shallow::members(raw).ok_or_else(|| wrong(raw, path, "an object"))?;
        self.fields(fields, &members, path)
    }

    fn fields(
        &self,
        fields: &[(String, WitType)],
        members: &BTreeMap<String, &RawValue>,
        path: &ParamPath<'_>,
    ) -> Result<Vec<WitValue>, Refusal> {
        let is_known = |name: &str| fields.iter().any(|(field, _)| field == name);
        if let Some(name) = members.keys().find(|name| !is_known(name)) {
            return Err(unknown_field(name, fields, path));
        }
        fields
            .iter()
            .map(|(name, ty)| {
                let at = ParamPath::Field(path, name);
                match members.get(name) {
                    Some(raw) => self.read(ty, raw, &at),
                    None if matches!(ty, WitType::Option(_)) => Ok(WitValue::Option(None)),
                    None => Err(missing_field(ty, &at)),
                }
            })
            .collect()
    }

    fn case(
        &self,
        cases: &[Case<'_>],
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<WitValue, Refusal> {
        let none_of_them = || wrong(raw, path, &one_of(cases));
        let find = |wanted: &str| {
            cases
                .iter()
                .enumerate()
                .find(|(_, case)| case.name == wanted)
        };

        if let Ok(name) = serde_json::from_str::<String>(raw.get()) {
            return match find(&name) {
                Some((index, Case { carries: None, .. })) => Ok(WitValue::Case(index, None)),
                _ => Err(none_of_them()),
            };
        }
        let (name, inner) = shallow::only_member(raw).ok_or_else(none_of_them)?;
        let (index, case) = find(&name).ok_or_else(none_of_them)?;
        let at = ParamPath::Field(path, &name);
        match case.carries {
            Some(ty) => {
                let value = self.read(ty, inner, &at)?;
                Ok(WitValue::Case(index, Some(Box::new(value))))
            }
            None if inner.get() == "null" => Ok(WitValue::Case(index, None)),
            None => Err(wrong(inner, &at, "null: the case carries nothing")),
        }
    }

    fn option(
        &self,
        inner: &WitType,
        raw: &RawValue,
        path: &ParamPath<'_>,
    ) -> Result<WitValue, Refusal> {
        if raw.get() == "null" {
            return Ok(WitValue::Option(None));
        }
        let value = if matches!(inner, WitType::Option(_)) {
            match shallow::only_member(raw) {
                Some((key, value)) if key == "some" => {
                    self.read(inner, value, &ParamPath::Field(path, "some"))?
                }
                _ => return Err(wrong(raw, path, "null or {\"some\":…}")),
            }
        } else {
            self.read(inner, raw, path)?
        };
        Ok(WitValue::Option(Some(Box::new(value))))
    }
}

fn case_of((name, ty): &(String, Option<WitType>)) -> Case<'_> {
    Case {
        name,
        carries: ty.as_ref(),
    }
}

fn flags(names: &[String], raw: &RawValue, path: &ParamPath<'_>) -> Result<WitValue, Refusal> {
    let wrong = || wrong(raw, path, &format!("an array of {}", names.join(", ")));
    let wanted: Vec<String> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    wanted
        .iter()
        .map(|wanted| {
            names
                .iter()
                .position(|name| name == wanted)
                .ok_or_else(wrong)
        })
        .collect::<Result<_, _>>()
        .map(WitValue::Flags)
}

fn char_of(text: &str) -> Option<char> {
    let text: String = serde_json::from_str(text).ok()?;
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

fn whole_number(ty: &WitType, text: &str) -> Option<i128> {
    let (min, max) = ty.bounds()?;
    let number = text.parse().ok()?;
    (min..=max).contains(&number).then_some(number)
}

/// What a value of this type looks like, for people.
fn expected(ty: &WitType) -> String {
    match (ty, ty.bounds()) {
        (_, Some((min, max))) => format!("{ty}, a whole number from {min} to {max}"),
        (WitType::Char, _) => "char, a string of one character".into(),
        (WitType::F32 | WitType::F64, _) => format!("{ty}, a number"),
        _ => ty.to_string(),
    }
}

fn one_of(cases: &[Case<'_>]) -> String {
    let shown: Vec<String> = cases
        .iter()
        .map(|Case { name, carries }| match carries {
            Some(_) => format!("{{\"{name}\":…}}"),
            None => format!("\"{name}\""),
        })
        .collect();
    format!("one of {}", shown.join(", "))
}

fn unknown_field(name: &str, fields: &[(String, WitType)], path: &ParamPath<'_>) -> Refusal {
    let known: Vec<&str> = fields.iter().map(|(field, _)| field.as_str()).collect();
    let mut help = near::hint(name, known.iter().copied());
    if known.is_empty() {
        help = "; there are none".into();
    } else if help.is_empty() {
        help = format!("; the fields are {}", known.join(", "));
    }
    let at = ParamPath::Field(path, name).to_string();
    let text = format!("unknown field `{at}`{help}");
    Refusal::new(RefusalCode::UnknownField, text).at(at)
}

fn missing_field(ty: &WitType, at: &ParamPath<'_>) -> Refusal {
    let text = format!("the field `{at}` is missing; it is {}", expected(ty));
    Refusal::new(RefusalCode::MissingField, text).at(at.to_string())
}

fn wrong(raw: &RawValue, path: &ParamPath<'_>, expected: &str) -> Refusal {
    let shown = shallow::shown(raw, SHOWN_MAX);
    let text = format!("field `{path}` is {shown}, expected {expected}");
    Refusal::new(RefusalCode::WrongType, text).at(path.to_string())
}
