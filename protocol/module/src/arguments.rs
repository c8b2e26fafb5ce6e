//! Params as the arguments of a component's function: JSON is read by WIT types. What does not fit
//! is refused with its path.
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

//!
//! Of members with the same name the last one counts.

mod reader;

use crate::path::ParamPath;
use crate::shallow;
use crate::signature::{Signature, WitType};
use reader::ArgumentReader;
use serde_json::value::RawValue;
use taskmaster_protocol::Refusal;
use taskmaster_protocol::placeholder::Placeholders;

/// A value of a [`WitType`]. The type is needed to read the value: a list and a record look alike.
#[derive(Debug, Clone, PartialEq)]
pub enum WitValue {
    /// A value of `bool`.
    Bool(bool),
    /// A value of any type of whole numbers, within the bounds of the type.
    Int(i128),
    /// A value of `f32` or `f64`.
    Float(f64),
    /// A value of `char`.
    Char(char),
    /// A value of `string`.
    String(String),
    /// The items of a `list` or a `tuple`, or the fields of a `record` in the order of its type.
    Many(Vec<WitValue>),
    /// The index of a case in a `variant`, an `enum` or a `result` (`ok` is 0, `err` is 1), and
    /// what the case carries.
    Case(usize, Option<Box<WitValue>>),
    /// The indexes of the `flags` that are set.
    Flags(Vec<usize>),
    /// A value of `option`.
    Option(Option<Box<WitValue>>),
    /// The result of another task, which is not known yet.
    Later,
}

/// Whether placeholders in params still wait for the results of other tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamsStage {
    /// They do. A placeholder for a result fits every type.
    Open,
    /// All placeholders have been replaced; what looks like one is data.
    Replaced,
}

impl Signature {
    /// The arguments that `params` are: an object with the names of the parameters, an array of
    /// them in order, or, where there is one parameter only, its value alone. Absent and empty
    /// params are read as `null`, which stands for no parameters.
    pub fn arguments(
        &self,
        params: Option<&str>,
        references: ParamsStage,
    ) -> Result<Vec<WitValue>, Refusal> {
        let text = params
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .unwrap_or("null");
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| Refusal::from_serde(&error, "params"))?;
        let placeholders = match references {
            ParamsStage::Open => Placeholders::find(text)?,
            ParamsStage::Replaced => Placeholders::none(text),
        };
        let reader = ArgumentReader {
            placeholders: &placeholders,
        };

        if let [(name, ty)] = self.params.as_slice()
            && !is_named(name, ty, raw)
        {
            let value = reader.read(ty, raw, &ParamPath::Params)?;
            return Ok(vec![value]);
        }
        reader.parameters(self, raw)
    }
}

/// Whether `raw` is an object that names the only parameter, and not the value of that parameter
/// itself.
fn is_named(name: &str, ty: &WitType, raw: &RawValue) -> bool {
    let is_own = match ty {
        WitType::Record(fields) => fields.iter().any(|(field, _)| field == name),
        WitType::Variant(cases) => cases.iter().any(|(case, _)| case == name),
        _ => false,
    };
    !is_own && shallow::only_member(raw).is_some_and(|(key, _)| key == name)
}

#[cfg(test)]
mod tests;
