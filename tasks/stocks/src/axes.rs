//! Where a month and a value lie on the page.

use crate::analysis::Figures;
use crate::svg::WIDTH;

/// The borders of the chart, in pixels from the left and from the top of the page.
pub const LEFT: f64 = 64.0;
pub const RIGHT: f64 = WIDTH - 130.0;
pub const TOP: f64 = 116.0;
pub const BOTTOM: f64 = 516.0;

/// More labels than this would touch one another.
const YEARS_MAX: i32 = 14;

/// Beyond this ratio of the highest to the lowest value only powers of ten are labelled.
const DENSE_RATIO_MAX: f64 = 1e5;

/// By which the values reach beyond the lines, upwards and downwards.
const MARGIN_FACTOR: f64 = 1.15;

/// Months from left to right, values upwards on a logarithmic scale.
pub struct Axes {
    first_month: i32,
    last_month: i32,
    lowest: f64,
    highest: f64,
}

/// A label on the time axis.
pub struct YearTick {
    /// The month of its January, counted from the year 0.
    pub month: i32,
    pub year: i32,
}

impl Axes {
    /// Just large enough for all lines, with some air above and below.
    pub fn of(shares: &[Figures]) -> Self {
        let points = || shares.iter().flat_map(|share| &share.series);
        let months = || points().map(|(date, _)| date.months());
        let values = || points().map(|(_, value)| *value);
        let first_month = months().min().unwrap_or(0);
        let last_month = months().max().unwrap_or(0);
        Self {
            first_month,
            // A chart of one month would have no width.
            last_month: last_month.max(first_month + 1),
            lowest: values().fold(100.0, f64::min) / MARGIN_FACTOR,
            highest: values().fold(100.0, f64::max) * MARGIN_FACTOR,
        }
    }

    pub fn x(&self, month: i32) -> f64 {
        let all = f64::from(self.last_month - self.first_month);
        LEFT + (RIGHT - LEFT) * f64::from(month - self.first_month) / all
    }

    pub fn y(&self, value: f64) -> f64 {
        let all = (self.highest / self.lowest).ln();
        BOTTOM - (BOTTOM - TOP) * (value / self.lowest).ln() / all
    }

    /// The round values 1, 2, 5, 10, 20… that lie on the axis; powers of ten alone if there would
    /// be too many.
    pub fn value_ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.highest / self.lowest > DENSE_RATIO_MAX {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let first = self.lowest.log10().floor() as i32;
        let last = self.highest.log10().ceil() as i32;
        (first..=last)
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(|tick| (self.lowest..=self.highest).contains(tick))
            .collect()
    }

    /// The Januaries that are labelled.
    pub fn year_ticks(&self) -> Vec<YearTick> {
        let first = self.first_month.div_euclid(12);
        let last = self.last_month.div_euclid(12);
        let step = [1, 2, 5, 10, 20, 50]
            .into_iter()
            .find(|step| (last - first) / step < YEARS_MAX)
            .unwrap_or(100);
        (first..=last)
            .filter(|year| year % step == 0)
            .map(|year| YearTick {
                month: year * 12,
                year,
            })
            .filter(|tick| (self.first_month..=self.last_month).contains(&tick.month))
            .collect()
    }
}
