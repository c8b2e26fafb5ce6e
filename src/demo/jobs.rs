//! The two jobs of the demo; modules and prices are inside the binary.

use super::errors::DemoError;
use serde_json::{Value, json};
use taskmaster_protocol::{Json, TaskId};

/// Modules, by the name of their file.
pub const MODULES: [(&str, &[u8]); 2] = [
    (
        "mandelbrot.wasm",
        include_bytes!("../../tasks/mandelbrot.wasm"),
    ),
    ("stocks.wasm", include_bytes!("../../tasks/stocks.wasm")),
];

/// Monthly closing prices of five shares from 2000 to 2010. `tasks/stocks/README.md` says where
/// they come from.
const PRICES: &str = include_str!("../../tasks/stocks/stocks.csv");

/// A job: some tasks, and one that makes a picture of their results.
pub struct DemoJob {
    pub name: &'static str,
    pub tasks: Vec<Json>,
    /// The task whose result is the picture. It is the last of `tasks`.
    pub picture_task: TaskId,
    /// The name of the picture's file.
    pub picture_file: &'static str,
}

/// A job with one task for each of `parts`, and the task that `picture` makes of their ids.
fn job(
    name: &'static str,
    picture_file: &'static str,
    parts: Vec<Value>,
    picture: impl FnOnce(Vec<String>) -> Value,
) -> DemoJob {
    let ids: Vec<String> = (0..parts.len()).map(|n| format!("{name}-{n}")).collect();
    let document =
        |id: &str, params: Value| Json::of(&json!({ "id": id, "module": name, "params": params }));
    let mut tasks: Vec<Json> = ids
        .iter()
        .zip(parts)
        .map(|(id, params)| document(id, params))
        .collect();
    let picture_id = format!("{name}-picture");
    tasks.push(document(&picture_id, picture(ids)));
    #[expect(
        clippy::expect_used,
        reason = "the names of the two jobs below are short and plain"
    )]
    let picture_task = TaskId::new(&picture_id).expect("a plain name is an id");
    DemoJob {
        name,
        tasks,
        picture_task,
        picture_file,
    }
}

/// A valley of the Mandelbrot set in 40 slices.
pub fn mandelbrot() -> DemoJob {
    let width = 1_200;
    let height = 800;
    let rows = 20;
    let slice = |from: usize| {
        json!({
            "width": width, "height": height, "from": from, "rows": rows, "max_iter": 1000,
            "center": [-0.745, 0.1127], "scale": 0.0065,
        })
    };
    let slices = (0..height).step_by(rows).map(slice).collect();
    job(
        "mandelbrot",
        "mandelbrot.png",
        slices,
        |ids| json!({ "stitch": { "width": width, "height": height }, "slices": { "$results": ids } }),
    )
}

/// The prices of one share.
struct Share {
    symbol: &'static str,
    /// Pairs of a date and a price.
    prices: Vec<Value>,
}

/// One analysis for each share, and a chart of all.
pub fn stocks() -> Result<DemoJob, DemoError> {
    let parts = shares()?
        .into_iter()
        .map(|share| json!({ "symbol": share.symbol, "prices": share.prices }))
        .collect();
    Ok(job(
        "stocks",
        "stocks.svg",
        parts,
        |ids| json!({ "summary": { "$results": ids } }),
    ))
}

fn shares() -> Result<Vec<Share>, DemoError> {
    let mut shares: Vec<Share> = Vec::new();
    for line in PRICES.lines().skip(1).filter(|line| !line.is_empty()) {
        let row: Vec<&'static str> = line.split(',').collect();
        let [symbol, date, price] = row[..] else {
            return Err(DemoError::Prices(format!("{line:?} has not three columns")));
        };
        let price: f64 = price
            .parse()
            .map_err(|_| DemoError::Prices(format!("{price:?} is no price")))?;
        let point = json!([date, price]);
        match shares.iter_mut().find(|share| share.symbol == symbol) {
            Some(share) => share.prices.push(point),
            None => shares.push(Share {
                symbol,
                prices: vec![point],
            }),
        }
    }
    Ok(shares)
}
