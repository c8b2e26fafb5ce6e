//! The figures of one symbol, from its monthly prices.

use serde::{Deserialize, Serialize};

use crate::date::Date;
use crate::report;

const MONTHS_PER_YEAR: f64 = 12.0;

/// Fewer than two changes of the price have no deviation.
const PRICES_MIN: usize = 3;

/// Characters of a ticker symbol: it must fit into a legend.
const SYMBOL_MAX: usize = 12;

/// Params that ask for figures: one price for each month, oldest first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Prices {
    symbol: String,
    prices: Vec<(Date, f64)>,
}

/// The result. Percentages are of a hundred: 12.5 means 12.5 %.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Figures {
    pub symbol: String,
    /// How many prices there are.
    pub months: usize,
    pub first: f64,
    pub last: f64,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub return_pct: f64,
    /// The yearly growth that leads from the first price to the last.
    pub cagr_pct: f64,
    /// Standard deviation of the monthly logarithmic returns, for a year.
    pub volatility_pct: f64,
    /// The deepest fall below an earlier price; positive.
    pub max_drawdown_pct: f64,
    /// The prices, with the first as 100.
    pub series: Vec<(Date, f64)>,
}

/// The figures as JSON.
pub fn figures(params: &Prices) -> Result<String, String> {
    check_symbol(&params.symbol).map_err(|problem| format!("params: symbol: {problem}"))?;
    check_prices(&params.prices)?;
    report(&format!(
        "::progress 0.5 {} has {} prices",
        params.symbol,
        params.prices.len()
    ));
    serde_json::to_string(&compute(params)).map_err(|error| error.to_string())
}

pub fn check_symbol(symbol: &str) -> Result<(), String> {
    if symbol.is_empty()
        || symbol.chars().count() > SYMBOL_MAX
        || symbol.chars().any(char::is_control)
    {
        return Err(format!(
            "{symbol:?}: expected 1 to {SYMBOL_MAX} printable characters"
        ));
    }
    Ok(())
}

/// Gaps are refused: the yearly figures would silently be wrong.
fn check_prices(prices: &[(Date, f64)]) -> Result<(), String> {
    if prices.len() < PRICES_MIN {
        return Err(format!(
            "params: prices: {} of them, expected at least {PRICES_MIN}",
            prices.len()
        ));
    }
    if let Some((at, (_, price))) = prices
        .iter()
        .enumerate()
        .find(|(_, (_, price))| *price <= 0.0)
    {
        return Err(format!(
            "params: prices[{at}][1]: {price}, expected more than 0"
        ));
    }
    for (index, pair) in prices.windows(2).enumerate() {
        if let [(before, _), (date, _)] = pair
            && date.months() != before.months() + 1
        {
            let at = index + 1;
            return Err(format!(
                "params: prices[{at}][0]: {date}, expected a day in the month after {before}"
            ));
        }
    }
    Ok(())
}

fn compute(params: &Prices) -> Figures {
    let prices: Vec<f64> = params.prices.iter().map(|(_, price)| *price).collect();
    let first = prices.first().copied().unwrap_or(1.0);
    let last = prices.last().copied().unwrap_or(1.0);
    let years = (prices.len() - 1) as f64 / MONTHS_PER_YEAR;
    Figures {
        symbol: params.symbol.clone(),
        months: prices.len(),
        first,
        last,
        min: prices.iter().copied().fold(f64::INFINITY, f64::min),
        max: prices.iter().copied().fold(0.0, f64::max),
        mean: rounded(mean(&prices)),
        return_pct: rounded(100.0 * (last / first - 1.0)),
        cagr_pct: rounded(100.0 * ((last / first).powf(1.0 / years) - 1.0)),
        volatility_pct: rounded(100.0 * volatility(&prices)),
        max_drawdown_pct: rounded(100.0 * max_drawdown(&prices)),
        series: params
            .prices
            .iter()
            .map(|(date, price)| (*date, rounded(100.0 * price / first)))
            .collect(),
    }
}

fn volatility(prices: &[f64]) -> f64 {
    let returns: Vec<f64> = prices
        .iter()
        .zip(prices.iter().skip(1))
        .map(|(a, b)| (b / a).ln())
        .collect();
    let mean = mean(&returns);
    let squares: f64 = returns.iter().map(|change| (change - mean).powi(2)).sum();
    (squares / (returns.len() - 1) as f64 * MONTHS_PER_YEAR).sqrt()
}

fn max_drawdown(prices: &[f64]) -> f64 {
    let mut peak = 0.0_f64;
    let mut deepest = 0.0_f64;
    for price in prices {
        peak = peak.max(*price);
        deepest = deepest.max(1.0 - price / peak);
    }
    deepest
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Four decimals: more would be noise, and longer results.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_fall_counts_from_the_highest_price_before_it() {
        assert_eq!(max_drawdown(&[10.0, 20.0, 15.0, 30.0, 12.0, 40.0]), 0.6);
        assert_eq!(max_drawdown(&[1.0, 2.0, 3.0]), 0.0);
    }

    #[test]
    fn steady_growth_has_no_volatility() {
        assert!(volatility(&[1.0, 2.0, 4.0, 8.0]).abs() < 1e-12);
    }

    #[test]
    fn a_gap_is_refused_by_its_place() {
        let json =
            r#"{"symbol":"A","prices":[["2000-01-01",1],["Feb 1 2000",2],["2000-04-01",3]]}"#;
        let params: Prices = serde_json::from_str(json).unwrap();
        assert!(
            figures(&params)
                .unwrap_err()
                .starts_with("params: prices[2][0]: 2000-04-01")
        );
    }
}
