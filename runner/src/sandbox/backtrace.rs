//! The backtrace of a trap, with names that are bounded. A module chooses the names of its functions,
//! and a name of a hundred bytes can stand for one of gigabytes: compilers shorten what repeats.

use std::fmt::{self, Write};
use wasmtime::{FrameInfo, WasmBacktrace};

/// Characters of a name that are shown.
const NAME_CHARACTERS_MAX: usize = 256;

/// Bytes of a name that is spelled out. A longer one is shown as it stands in the module.
const MANGLED_BYTES_MAX: usize = 4 << 10;

/// The frames, the innermost first: offsets, and the names of modules and functions.
pub(super) fn frames(backtrace: &WasmBacktrace) -> String {
    let frames = backtrace.frames().iter().enumerate();
    let lines: Vec<String> = frames.map(|(depth, frame)| line(depth, frame)).collect();
    lines.join("\n")
}

fn line(depth: usize, frame: &FrameInfo) -> String {
    let mut line = format!("  {depth:>3}: ");
    // Writing into a string cannot fail.
    if let Some(offset) = frame.module_offset() {
        let _ = write!(line, "{offset:#8x} - ");
    }
    line.push_str(&bounded(frame.module().name().unwrap_or("<unknown>")));
    line.push('!');
    match frame.func_name() {
        Some(name) => line.push_str(&spelled_out(name)),
        None => drop(write!(line, "<wasm function {}>", frame.func_index())),
    }
    line
}

/// The name of a function as people write it. Rust's compiler leaves the spelling out to others; the
/// linker of C and C++ has done it already.
fn spelled_out(name: &str) -> String {
    let demangled = (name.len() <= MANGLED_BYTES_MAX)
        .then(|| rustc_demangle::try_demangle(name).ok())
        .flatten();
    match demangled {
        Some(demangled) => bounded(demangled),
        None => bounded(name),
    }
}

/// A text as far as people read. What makes the text is stopped when nothing more is shown.
fn bounded(text: impl fmt::Display) -> String {
    let mut shown = BoundedText::default();
    if write!(shown, "{text}").is_err() {
        shown.text.push('…');
    }
    shown.text
}

/// Takes so many characters and then no more.
#[derive(Default)]
struct BoundedText {
    text: String,
    characters: usize,
}

impl Write for BoundedText {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for character in more.chars() {
            if self.characters == NAME_CHARACTERS_MAX {
                return Err(fmt::Error);
            }
            self.characters += 1;
            let is_shown = !character.is_control();
            self.text
                .push(if is_shown { character } else { '\u{fffd}' });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_out_as_far_as_they_are_short() {
        assert_eq!(
            spelled_out("_ZN4core9panicking5panic17h0123456789abcdefE"),
            "core::panicking::panic::h0123456789abcdef"
        );
        assert_eq!(spelled_out("plain\u{1b}[31m"), "plain\u{fffd}[31m");
        let long = spelled_out(&"x".repeat(100_000));
        assert_eq!(long.chars().count(), NAME_CHARACTERS_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_name_that_doubles_with_each_of_its_letters_is_cut() {
        // By the rules of Rust's names: a tuple of two times the tuple before, thirty times.
        let mut name = String::from("_RINvC1a1f");
        let mut before = name.len() - "_R".len();
        name.push_str("TuuE");
        for _ in 0..30 {
            let back = base_62(before);
            let here = name.len() - "_R".len();
            name.push_str(&format!("TB{back}B{back}E"));
            before = here;
        }
        name.push('E');
        let shown = spelled_out(&name);
        assert!(shown.starts_with("a::f::<"), "{shown}");
        assert_eq!(shown.chars().count(), NAME_CHARACTERS_MAX + 1);
    }

    /// A number as Rust's names write it: `_` for 0, `0_` for 1.
    fn base_62(number: usize) -> String {
        let digit = |value: usize| {
            let digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
            digits.chars().nth(value).unwrap_or('_')
        };
        match number {
            0 => "_".to_owned(),
            more if more <= 62 => format!("{}_", digit(more - 1)),
            more => format!("{}{}_", digit((more - 1) / 62), digit((more - 1) % 62)),
        }
    }
}
