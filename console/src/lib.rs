//! What a process says to people, and how it ends when one of its threads does.
//!
//! Nothing here fails: a line that cannot be written is nobody's end.

#![deny(missing_docs)]

pub mod lines;
pub mod long_lived;
pub mod terminal;
