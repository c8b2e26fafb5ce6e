//! The figures below the chart.

use crate::analysis::Figures;
use crate::summary::{WIDTH, colour, escaped, put};

const ROW: f64 = 26.0;
const MARGIN: f64 = 24.0;

/// Each column's heading and right edge.
const COLUMNS: [(&str, f64); 8] = [
    ("since", 210.0),
    ("months", 285.0),
    ("first", 375.0),
    ("last", 465.0),
    ("return", 580.0),
    ("per year", 690.0),
    ("volatility", 810.0),
    ("deepest fall", 976.0),
];

pub fn height(rows: usize) -> f64 {
    ROW * (rows as f64 + 1.0) + MARGIN
}

pub fn draw(svg: &mut String, shares: &[Figures], top: f64) {
    for (heading, right) in COLUMNS {
        put(
            svg,
            format_args!("<text class=\"head end\" x=\"{right}\" y=\"{top}\">{heading}</text>"),
        );
    }
    svg.push('\n');
    for (position, share) in shares.iter().enumerate() {
        row(
            svg,
            share,
            colour(position),
            top + ROW * (position as f64 + 1.0),
        );
    }
}

fn row(svg: &mut String, share: &Figures, colour: &str, y: f64) {
    let (rule, dot, right) = (y - 18.0, y - 4.5, WIDTH - MARGIN);
    put(
        svg,
        format_args!("<path class=\"grid\" d=\"M{MARGIN} {rule}H{right}\"/>"),
    );
    put(
        svg,
        format_args!("<circle cx=\"32\" cy=\"{dot}\" r=\"5\" fill=\"{colour}\"/>"),
    );
    put(
        svg,
        format_args!(
            "<text class=\"bold\" x=\"46\" y=\"{y}\">{}</text>",
            escaped(&share.symbol)
        ),
    );
    for ((_, right), cell) in COLUMNS.into_iter().zip(cells(share)) {
        put(
            svg,
            format_args!("<text class=\"end\" x=\"{right}\" y=\"{y}\">{cell}</text>"),
        );
    }
    svg.push('\n');
}

fn cells(share: &Figures) -> [String; 8] {
    [
        share
            .series
            .first()
            .map(|(date, _)| date.month_and_year())
            .unwrap_or_default(),
        share.months.to_string(),
        format!("{:.2}", share.first),
        format!("{:.2}", share.last),
        percent(share.return_pct),
        percent(share.cagr_pct),
        format!("{:.1} %", share.volatility_pct),
        percent(-share.max_drawdown_pct),
    ]
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
