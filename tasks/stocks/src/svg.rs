//! An SVG document while it is written: its text, its colours, and what keeps data from becoming
//! markup.

use std::fmt::{Arguments, Write};

/// The width of the page, in pixels.
pub const WIDTH: f64 = 1000.0;

/// Told apart by most eyes, colour-blind ones included; after Okabe and Ito, darkened for thin
/// lines on white.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#b8548f", "#b58900", "#3aa0d8", "#5c4bb5", "#4d4d4d",
];

/// The text of a document.
#[derive(Default)]
pub struct Svg {
    text: String,
}

impl Svg {
    /// Appends text; [`put`] formats it, too.
    pub fn push(&mut self, text: Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = self.text.write_fmt(text);
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// Appends formatted text to an [`Svg`].
macro_rules! put {
    ($svg:expr, $($text:tt)*) => {
        $svg.push(format_args!($($text)*))
    };
}
pub(crate) use put;

/// The colour of the symbol at this position; colours repeat after the eighth.
pub fn colour(position: usize) -> &'static str {
    COLOURS.get(position % COLOURS.len()).unwrap_or(&"#000")
}

/// `text` without markup: a symbol comes from outside.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
