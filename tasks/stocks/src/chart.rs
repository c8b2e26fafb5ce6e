//! The lines, their axes and their legend.

use crate::analysis::Figures;
use crate::axes::{Axes, BOTTOM, LEFT, RIGHT, TOP};
use crate::svg::{Svg, WIDTH, colour, escaped, put};

/// Labels nearer to one another than this could not be read.
const LABEL_GAP: f64 = 16.0;

/// From the middle of a text's height down to its base line.
const BASE_LINE: f64 = 4.5;

const TITLE: &str = "Share prices, indexed to 100";

const NOTE: &str = "monthly, logarithmic scale; each line begins at 100 with its first price";

pub fn draw(svg: &mut Svg, shares: &[Figures], axes: &Axes) {
    put!(
        svg,
        "<text class=\"title\" x=\"24\" y=\"40\">{TITLE}</text>\n"
    );
    put!(
        svg,
        "<text class=\"soft\" x=\"24\" y=\"62\">{NOTE}</text>\n"
    );
    legend(svg, shares);
    value_axis(svg, axes);
    time_axis(svg, axes);
    for (position, share) in shares.iter().enumerate() {
        line(svg, share, axes, colour(position));
    }
    end_labels(svg, shares, axes);
}

fn legend(svg: &mut Svg, shares: &[Figures]) {
    let mut x = LEFT;
    let mut y = 86.0;
    put!(svg, "<g>\n");
    for (position, share) in shares.iter().enumerate() {
        let width = 40.0 + 9.0 * share.symbol.chars().count() as f64;
        if x + width > WIDTH - 24.0 {
            x = LEFT;
            y += 16.0;
        }
        let colour = colour(position);
        let name = escaped(&share.symbol);
        let end = x + 18.0;
        let text = x + 24.0;
        let level = y - 4.0;
        put!(
            svg,
            "<path class=\"line\" stroke=\"{colour}\" d=\"M{x} {level}H{end}\"/>"
        );
        put!(svg, "<text x=\"{text}\" y=\"{y}\">{name}</text>\n");
        x += width;
    }
    put!(svg, "</g>\n");
}

fn value_axis(svg: &mut Svg, axes: &Axes) {
    let text = LEFT - 8.0;
    for tick in axes.value_ticks() {
        let y = axes.y(tick);
        let base = y + BASE_LINE;
        let class = if tick == 100.0 { "base" } else { "grid" };
        put!(
            svg,
            "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>"
        );
        put!(
            svg,
            "<text class=\"soft end\" x=\"{text}\" y=\"{base:.1}\">{tick}</text>\n"
        );
    }
    let middle = (TOP + BOTTOM) / 2.0;
    let place = format!("transform=\"translate(20 {middle}) rotate(-90)\"");
    put!(svg, "<text class=\"soft middle\" {place}>index</text>\n");
}

fn time_axis(svg: &mut Svg, axes: &Axes) {
    let years = BOTTOM + 20.0;
    for tick in axes.year_ticks() {
        let x = axes.x(tick.month);
        let year = tick.year;
        put!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>");
        put!(
            svg,
            "<text class=\"soft middle\" x=\"{x:.1}\" y=\"{years}\">{year}</text>\n"
        );
    }
    put!(
        svg,
        "<path class=\"rule\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>\n"
    );
    let middle = (LEFT + RIGHT) / 2.0;
    let below = BOTTOM + 40.0;
    put!(
        svg,
        "<text class=\"soft middle\" x=\"{middle}\" y=\"{below}\">year</text>\n"
    );
}

fn line(svg: &mut Svg, share: &Figures, axes: &Axes, colour: &str) {
    put!(svg, "<path class=\"line\" stroke=\"{colour}\" d=\"");
    for (index, (date, value)) in share.series.iter().enumerate() {
        let pen = if index == 0 { "M" } else { "L" };
        let x = axes.x(date.months());
        let y = axes.y(*value);
        put!(svg, "{pen}{x:.1} {y:.1}");
    }
    put!(svg, "\"/>\n");
}

/// Name and last value where each line ends, pushed apart where they would overlap.
fn end_labels(svg: &mut Svg, shares: &[Figures], axes: &Axes) {
    let x = RIGHT + 8.0;
    for label in labels(shares, axes) {
        let name = escaped(label.symbol);
        let value = label.value;
        let colour = colour(label.position);
        let base = label.y + BASE_LINE;
        put!(
            svg,
            "<text class=\"bold\" style=\"fill:{colour}\" x=\"{x}\" y=\"{base:.1}\">"
        );
        put!(svg, "{name} {value:.0}</text>\n");
    }
}

/// The label at the end of a line.
struct EndLabel<'a> {
    y: f64,
    position: usize,
    symbol: &'a str,
    value: f64,
}

/// From the bottom up: each label at its line's height, or just above the label below it.
fn labels<'a>(shares: &'a [Figures], axes: &Axes) -> Vec<EndLabel<'a>> {
    let mut labels: Vec<EndLabel<'a>> = shares
        .iter()
        .enumerate()
        .filter_map(|(position, share)| {
            let (_, value) = share.series.last()?;
            Some(EndLabel {
                y: axes.y(*value),
                position,
                symbol: &share.symbol,
                value: *value,
            })
        })
        .collect();
    labels.sort_unstable_by(|a, b| b.y.total_cmp(&a.y));
    let mut free = f64::INFINITY;
    for label in &mut labels {
        label.y = label.y.min(free);
        free = label.y - LABEL_GAP;
    }
    labels
}
