//! One chart of all symbols, as SVG.

use serde::Deserialize;

use crate::analysis::{Figures, check_symbol};
use crate::axes::{Axes, BOTTOM};
use crate::svg::{Svg, WIDTH, escaped, put};
use crate::{chart, report, table};

/// More lines than this nobody can follow.
const SYMBOLS_MAX: usize = 12;

/// From the bottom of the chart to the headings of the table, in pixels.
const TABLE_GAP: f64 = 72.0;

const STYLE: &str = "<style>\
text{font-family:system-ui,'Segoe UI','Helvetica Neue',Helvetica,Arial,sans-serif;font-size:13px;fill:#333}\
.title{font-size:22px;font-weight:600;fill:#111}.soft{fill:#777}.head{font-size:12px;fill:#777}\
.bold{font-weight:600}.end{text-anchor:end}.middle{text-anchor:middle}\
.grid{stroke:#e6e6e6}.base{stroke:#999;stroke-dasharray:4 4}.rule{stroke:#ccc}\
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
</style>\n";

/// Params that ask for a chart: the figures of all symbols.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ChartParams {
    summary: Vec<Figures>,
}

/// The SVG document.
pub fn draw(params: &ChartParams) -> Result<String, String> {
    let shares = &params.summary;
    check(shares)?;
    report(&format!("::progress 0.5 drawing {} symbols", shares.len()));
    let axes = Axes::of(shares);
    let table_top = BOTTOM + TABLE_GAP;
    let height = table_top + table::height(shares.len());
    let mut svg = Svg::default();
    head(&mut svg, shares, height);
    chart::draw(&mut svg, shares, &axes);
    table::draw(&mut svg, shares, table_top);
    put!(svg, "</svg>\n");
    Ok(svg.into_text())
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

fn head(svg: &mut Svg, shares: &[Figures], height: f64) {
    let names: Vec<String> = shares.iter().map(|share| escaped(&share.symbol)).collect();
    let names = names.join(", ");
    let size = format!("width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\"");
    put!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} role=\"img\">\n"
    );
    put!(
        svg,
        "<title>Monthly prices of {names}, indexed to 100</title>\n"
    );
    put!(svg, "{STYLE}");
    put!(
        svg,
        "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(symbol: &str, value: f64) -> ChartParams {
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
