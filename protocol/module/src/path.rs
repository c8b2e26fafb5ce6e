//! Where a value stands in params, for people: `params.sizes[2].width`.

use std::fmt;

/// A path that borrows its outer paths, so that it costs nothing until it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ParamPath<'a> {
    /// The params as a whole.
    Params,
    /// A member of the object at the outer path.
    Field(&'a ParamPath<'a>, &'a str),
    /// An item, from 0, of the array at the outer path.
    Item(&'a ParamPath<'a>, usize),
}

impl fmt::Display for ParamPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamPath::Params => f.write_str("params"),
            ParamPath::Field(outer, name) => write!(f, "{outer}.{name}"),
            ParamPath::Item(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}
