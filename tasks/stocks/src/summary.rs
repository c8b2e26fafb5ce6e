//! One chart of all symbols, as SVG.

use std::fmt::Write;

use serde::Deserialize;

use crate::analysis::{Figures, check_symbol};
use crate::axes::Axes;
use crate::{chart, report, table};

/// Told apart by most eyes, colour-blind ones included; after Okabe and Ito, darkened for thin
/// lines on white.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#b8548f", "#b58900", "#3aa0d8", "#5c4bb5", "#4d4d4d",
];

/// More lines than this nobody can follow.
const SYMBOLS_MAX: usize = 12;

pub const WIDTH: f64 = 1000.0;

const STYLE: &str = "<style>\
text{font-family:system-ui,'Segoe UI','Helvetica Neue',Helvetica,Arial,sans-serif;font-size:13px;fill:#333}\
.title{font-size:22px;font-weight:600;fill:#111}.soft{fill:#777}.head{font-size:12px;fill:#777}\
.bold{font-weight:600}.end{text-anchor:end}.middle{text-anchor:middle}\
.grid{stroke:#e6e6e6}.base{stroke:#999;stroke-dasharray:4 4}.rule{stroke:#ccc}\
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
</style>\n";

/// Figures of all symbols.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Summary {
    summary: Vec<Figures>,
}

/// The SVG document.
pub fn draw(params: &Summary) -> Result<String, String> {
    let shares = &params.summary;
    check(shares)?;
    report(&format!("::progress 0.5 drawing {} symbols", shares.len()));
    let axes = Axes::of(shares);
    let height = axes.bottom() + 72.0 + table::height(shares.len());
    let mut svg = String::new();
    head(&mut svg, shares, height);
    chart::draw(&mut svg, shares, &axes);
    table::draw(&mut svg, shares, axes.bottom() + 72.0);
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn check(shares: &[Figures]) -> Result<(), String> {
    if !(1..=SYMBOLS_MAX).contains(&shares.len()) {
        return Err(format!(
            "params: summary: {} symbols, expected 1 to {SYMBOLS_MAX}",
            shares.len()
        ));
    }
    for (at, share) in shares.iter().enumerate() {
        check_symbol(&share.symbol)
            .map_err(|problem| format!("params: summary[{at}].symbol: {problem}"))?;
        check_series(share).map_err(|problem| format!("params: summary[{at}].series{problem}"))?;
    }
    Ok(())
}

/// A logarithmic axis has no place for zero, and a line needs two points.
fn check_series(share: &Figures) -> Result<(), String> {
    if share.series.len() < 2 {
        return Err(format!(
            ": {} points, expected at least 2",
            share.series.len()
        ));
    }
    match share.series.iter().position(|(_, value)| *value <= 0.0) {
        Some(point) => Err(format!("[{point}][1]: expected more than 0")),
        None => Ok(()),
    }
}

fn head(svg: &mut String, shares: &[Figures], height: f64) {
    let names: Vec<String> = shares.iter().map(|share| escaped(&share.symbol)).collect();
    let names = names.join(", ");
    let size = format!("width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\"");
    put(
        svg,
        format_args!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size} role=\"img\">\n"),
    );
    put(
        svg,
        format_args!("<title>Monthly prices of {names}, indexed to 100</title>\n"),
    );
    svg.push_str(STYLE);
    svg.push_str("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
}

pub fn colour(position: usize) -> &'static str {
    COLOURS.get(position % COLOURS.len()).unwrap_or(&"#000")
}

/// Writing into a string cannot fail.
pub fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(text);
}

/// A symbol comes from outside: it must not end up as markup.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(symbol: &str, value: f64) -> Summary {
        let json = format!(
            r#"{{"summary":[{{"symbol":{symbol:?},"months":3,"first":1,"last":1,"min":1,"max":1,"mean":1,"return_pct":0,
            "cagr_pct":0,"volatility_pct":0,"max_drawdown_pct":0,
            "series":[["2000-01-01",100],["2000-02-01",{value}]]}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn markup_in_a_symbol_stays_text() {
        let svg = draw(&share("<b>&", 90.0)).unwrap();
        assert!(svg.contains("&lt;b&gt;&amp;") && !svg.contains("<b>"));
    }

    #[test]
    fn zero_has_no_place_on_the_axis() {
        assert_eq!(
            draw(&share("A", 0.0)),
            Err("params: summary[0].series[1][1]: expected more than 0".into())
        );
    }

    #[test]
    fn a_line_without_any_change_still_has_an_axis() {
        assert!(!draw(&share("A", 100.0)).unwrap().contains("NaN"));
    }
}
