//! The figures below the chart.

use crate::analysis::Figures;
use crate::svg::{Svg, WIDTH, colour, escaped, put};

const ROW: f64 = 26.0;
const MARGIN: f64 = 24.0;

/// A column of right-aligned text.
struct Column {
    heading: &'static str,
    /// The right edge, in pixels from the left of the page.
    right: f64,
    cell: fn(&Figures) -> String,
}

const COLUMNS: [Column; 8] = [
    Column {
        heading: "since",
        right: 210.0,
        cell: since,
    },
    Column {
        heading: "months",
        right: 285.0,
        cell: |share| share.months.to_string(),
    },
    Column {
        heading: "first",
        right: 375.0,
        cell: |share| format!("{:.2}", share.first),
    },
    Column {
        heading: "last",
        right: 465.0,
        cell: |share| format!("{:.2}", share.last),
    },
    Column {
        heading: "return",
        right: 580.0,
        cell: |share| percent(share.return_pct),
    },
    Column {
        heading: "per year",
        right: 690.0,
        cell: |share| percent(share.cagr_pct),
    },
    Column {
        heading: "volatility",
        right: 810.0,
        cell: |share| format!("{:.1} %", share.volatility_pct),
    },
    Column {
        heading: "deepest fall",
        right: 976.0,
        cell: |share| percent(-share.max_drawdown_pct),
    },
];

pub fn height(rows: usize) -> f64 {
    ROW * (rows as f64 + 1.0) + MARGIN
}

pub fn draw(svg: &mut Svg, shares: &[Figures], top: f64) {
    for Column { heading, right, .. } in COLUMNS {
        put!(
            svg,
            "<text class=\"head end\" x=\"{right}\" y=\"{top}\">{heading}</text>"
        );
    }
    put!(svg, "\n");
    for (position, share) in shares.iter().enumerate() {
        let y = top + ROW * (position as f64 + 1.0);
        row(svg, share, colour(position), y);
    }
}

fn row(svg: &mut Svg, share: &Figures, colour: &str, y: f64) {
    let rule = y - 18.0;
    let end = WIDTH - MARGIN;
    let dot = y - 4.5;
    let name = escaped(&share.symbol);
    put!(svg, "<path class=\"grid\" d=\"M{MARGIN} {rule}H{end}\"/>");
    put!(
        svg,
        "<circle cx=\"32\" cy=\"{dot}\" r=\"5\" fill=\"{colour}\"/>"
    );
    put!(svg, "<text class=\"bold\" x=\"46\" y=\"{y}\">{name}</text>");
    for Column { right, cell, .. } in COLUMNS {
        let cell = cell(share);
        put!(
            svg,
            "<text class=\"end\" x=\"{right}\" y=\"{y}\">{cell}</text>"
        );
    }
    put!(svg, "\n");
}

fn since(share: &Figures) -> String {
    let first = share.series.first();
    first
        .map(|(date, _)| date.month_and_year())
        .unwrap_or_default()
}

/// A sign always, except before nothing; a real minus is as wide as the plus.
fn percent(value: f64) -> String {
    let sign = match value {
        value if value.abs() < 0.05 => "",
        value if value < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{:.1} %", value.abs())
}
