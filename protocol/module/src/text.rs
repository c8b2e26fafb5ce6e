//! Whether a file is text or binary, and a module or a component. The first bytes decide, never the
//! extension of the file.

use std::borrow::Cow;

/// The first bytes of every WebAssembly binary.
const MAGIC: &[u8; 4] = b"\0asm";

/// What follows the header of a binary.
pub(crate) enum Layer {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// The binary form of a module. Text is translated, and a binary is passed on as it is. The error
/// for a text that is not WebAssembly names line and column.
pub fn to_binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if bytes.starts_with(MAGIC) {
        return Ok(Cow::Borrowed(bytes));
    }
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Err(format!(
            "the file ends after {} bytes, within the header of a WebAssembly binary",
            bytes.len()
        ));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(concat!(
            "neither a WebAssembly binary (it does not begin with \\0asm) ",
            "nor text (it is not UTF-8)"
        )
        .into());
    };
    if text.trim().is_empty() {
        return Err("the file holds nothing but white space".into());
    }
    wat::Parser::new()
        .parse_str(None, text)
        .map(Cow::Owned)
        .map_err(|error| sentence(&error.to_string()))
}

/// Turns a report of the library `wat`, a drawing of several lines, into one line: `line 3 column
/// 5: unknown operator or unexpected token`.
fn sentence(report: &str) -> String {
    let mut lines = report.lines();
    let message = lines.next().unwrap_or_default();
    let place = lines
        .next()
        .and_then(|line| line.rsplit_once("-->"))
        .and_then(|(_, place)| {
            let (rest, column) = place.trim().rsplit_once(':')?;
            let (_, line) = rest.rsplit_once(':')?;
            Some((line.parse::<u64>().ok()?, column.parse::<u64>().ok()?))
        });
    match place {
        Some((line, column)) => format!("line {line} column {column}: {message}"),
        None => message.to_owned(),
    }
}

/// Reads the header: the magic bytes, a version, and whether a module or a component follows.
pub(crate) fn layer(binary: &[u8]) -> Result<Layer, String> {
    let Some(&[a, b, c, d]) = binary.get(4..8) else {
        let is = binary.len();
        return Err(format!(
            "the file ends after {is} bytes, within the header of a WebAssembly binary"
        ));
    };
    match ([a, b], [c, d]) {
        ([1, 0], [0, 0]) => Ok(Layer::Module),
        (_, [1, 0]) => Ok(Layer::Component),
        (version, [0, 0]) => Err(format!(
            "version {} of the binary format at offset 4; 1 is understood",
            u16::from_le_bytes(version)
        )),
        _ => {
            Err("the header at offset 4 is neither that of a module nor that of a component".into())
        }
    }
}
