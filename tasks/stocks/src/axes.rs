//! Where a month and a value lie on the page.

use crate::analysis::Figures;
use crate::summary::WIDTH;

const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 130.0;
const TOP: f64 = 116.0;
const BOTTOM: f64 = 516.0;

/// More labels than this would touch one another.
const YEARS_MAX: i32 = 14;

/// Months from left to right, values upwards on a logarithmic scale.
pub struct Axes {
    months: (i32, i32),
    values: (f64, f64),
}

impl Axes {
    /// Just large enough for all lines, with some air above and below.
    pub fn of(shares: &[Figures]) -> Self {
        let points = || shares.iter().flat_map(|share| &share.series);
        let start = points().map(|(date, _)| date.months()).min().unwrap_or(0);
        let end = points().map(|(date, _)| date.months()).max().unwrap_or(0);
        let low = points().map(|(_, value)| *value).fold(100.0, f64::min);
        let high = points().map(|(_, value)| *value).fold(100.0, f64::max);
        Self {
            months: (start, end.max(start + 1)),
            values: (low / 1.15, high * 1.15),
        }
    }

    pub fn x(&self, month: i32) -> f64 {
        let (start, end) = self.months;
        LEFT + (RIGHT - LEFT) * f64::from(month - start) / f64::from(end - start)
    }

    pub fn y(&self, value: f64) -> f64 {
        let (low, high) = self.values;
        BOTTOM - (BOTTOM - TOP) * (value / low).ln() / (high / low).ln()
    }

    /// The round values 1, 2, 5, 10, 20… that lie on the axis; powers of ten alone if there would
    /// be too many.
    pub fn value_ticks(&self) -> Vec<f64> {
        let (low, high) = self.values;
        let steps: &[f64] = if high / low > 1e5 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let ticks =
            decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        ticks.filter(|tick| (low..=high).contains(tick)).collect()
    }

    /// Januaries, as months and years.
    pub fn year_ticks(&self) -> Vec<(i32, i32)> {
        let (start, end) = self.months;
        let (first, last) = (start.div_euclid(12), end.div_euclid(12));
        let step = [1, 2, 5, 10, 20, 50]
            .into_iter()
            .find(|step| (last - first) / step < YEARS_MAX)
            .unwrap_or(100);
        let years = (first..=last).filter(|year| year % step == 0);
        years
            .map(|year| (year * 12, year))
            .filter(|(month, _)| (start..=end).contains(month))
            .collect()
    }

    pub fn left(&self) -> f64 {
        LEFT
    }

    pub fn right(&self) -> f64 {
        RIGHT
    }

    pub fn top(&self) -> f64 {
        TOP
    }

    pub fn bottom(&self) -> f64 {
        BOTTOM
    }
}
