//! The lines, their axes and their legend.

use crate::analysis::Figures;
use crate::axes::Axes;
use crate::summary::{WIDTH, colour, escaped, put};

/// Labels nearer to one another than this could not be read.
const LABEL_GAP: f64 = 16.0;

const TITLE: &str = "Share prices, indexed to 100";

pub fn draw(svg: &mut String, shares: &[Figures], axes: &Axes) {
    let note = "monthly, logarithmic scale; each line begins at 100 with its first price";
    put(
        svg,
        format_args!("<text class=\"title\" x=\"24\" y=\"40\">{TITLE}</text>\n"),
    );
    put(
        svg,
        format_args!("<text class=\"soft\" x=\"24\" y=\"62\">{note}</text>\n"),
    );
    legend(svg, shares);
    value_axis(svg, axes);
    time_axis(svg, axes);
    for (position, share) in shares.iter().enumerate() {
        line(svg, share, axes, colour(position));
    }
    end_labels(svg, shares, axes);
}

fn legend(svg: &mut String, shares: &[Figures]) {
    let mut x = 64.0;
    let mut y = 86.0;
    svg.push_str("<g>\n");
    for (position, share) in shares.iter().enumerate() {
        let width = 40.0 + 9.0 * share.symbol.chars().count() as f64;
        if x + width > WIDTH - 24.0 {
            (x, y) = (64.0, y + 16.0);
        }
        let (from, to, text, level) = (x, x + 18.0, x + 24.0, y - 4.0);
        let colour = colour(position);
        put(
            svg,
            format_args!("<path class=\"line\" stroke=\"{colour}\" d=\"M{from} {level}H{to}\"/>"),
        );
        put(
            svg,
            format_args!(
                "<text x=\"{text}\" y=\"{y}\">{}</text>\n",
                escaped(&share.symbol)
            ),
        );
        x += width;
    }
    svg.push_str("</g>\n");
}

fn value_axis(svg: &mut String, axes: &Axes) {
    let (left, right, text) = (axes.left(), axes.right(), axes.left() - 8.0);
    for tick in axes.value_ticks() {
        let y = axes.y(tick);
        let class = if tick == 100.0 { "base" } else { "grid" };
        put(
            svg,
            format_args!("<path class=\"{class}\" d=\"M{left} {y:.1}H{right}\"/>"),
        );
        put(
            svg,
            format_args!(
                "<text class=\"soft end\" x=\"{text}\" y=\"{:.1}\">{tick}</text>\n",
                y + 4.5
            ),
        );
    }
    let middle = (axes.top() + axes.bottom()) / 2.0;
    let place = format!("transform=\"translate(20 {middle}) rotate(-90)\"");
    put(
        svg,
        format_args!("<text class=\"soft middle\" {place}>index</text>\n"),
    );
}

fn time_axis(svg: &mut String, axes: &Axes) {
    let (left, right, top, bottom) = (axes.left(), axes.right(), axes.top(), axes.bottom());
    for (month, year) in axes.year_ticks() {
        let x = axes.x(month);
        put(
            svg,
            format_args!("<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/>"),
        );
        put(
            svg,
            format_args!(
                "<text class=\"soft middle\" x=\"{x:.1}\" y=\"{}\">{year}</text>\n",
                bottom + 20.0
            ),
        );
    }
    put(
        svg,
        format_args!("<path class=\"rule\" d=\"M{left} {bottom}H{right}\"/>\n"),
    );
    let middle = (left + right) / 2.0;
    put(
        svg,
        format_args!(
            "<text class=\"soft middle\" x=\"{middle}\" y=\"{}\">year</text>\n",
            bottom + 40.0
        ),
    );
}

fn line(svg: &mut String, share: &Figures, axes: &Axes, colour: &str) {
    put(
        svg,
        format_args!("<path class=\"line\" stroke=\"{colour}\" d=\""),
    );
    for (at, (date, value)) in share.series.iter().enumerate() {
        let pen = if at == 0 { "M" } else { "L" };
        put(
            svg,
            format_args!("{pen}{:.1} {:.1}", axes.x(date.months()), axes.y(*value)),
        );
    }
    svg.push_str("\"/>\n");
}

/// Name and last value where each line ends, pushed apart where they would overlap.
fn end_labels(svg: &mut String, shares: &[Figures], axes: &Axes) {
    let x = axes.right() + 8.0;
    for (y, position, value) in places(shares, axes) {
        if let Some(share) = shares.get(position) {
            let (name, colour) = (escaped(&share.symbol), colour(position));
            put(
                svg,
                format_args!(
                    "<text class=\"bold\" style=\"fill:{colour}\" x=\"{x}\" y=\"{:.1}\">",
                    y + 4.5
                ),
            );
            put(svg, format_args!("{name} {value:.0}</text>\n"));
        }
    }
}

/// From the bottom up: each label at its line's height, or just above the label below it.
fn places(shares: &[Figures], axes: &Axes) -> Vec<(f64, usize, f64)> {
    let ends = shares.iter().enumerate();
    let mut places: Vec<_> = ends
        .filter_map(|(position, share)| {
            share
                .series
                .last()
                .map(|(_, value)| (axes.y(*value), position, *value))
        })
        .collect();
    places.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut free = f64::INFINITY;
    for (y, _, _) in &mut places {
        *y = y.min(free);
        free = *y - LABEL_GAP;
    }
    places
}
