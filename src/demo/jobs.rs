//! The two jobs of the demo; modules and prices are inside the binary.

use taskmaster_protocol::{Json, TaskId};

/// Modules, by the name of their file.
pub const MODULES: [(&str, &[u8]); 2] = [
    (
        "mandelbrot.wasm",
        include_bytes!("../../tasks/mandelbrot.wasm"),
    ),
    ("stocks.wasm", include_bytes!("../../tasks/stocks.wasm")),
];

/// Monthly closing prices of five shares, 2000 to 2010; see `tasks/stocks/README.md`.
const PRICES: &str = include_str!("../../tasks/stocks/stocks.csv");

/// A job: some tasks, and a last one that puts their results together.
pub struct Job {
    pub name: &'static str,
    pub tasks: Vec<Json>,
    /// The task whose result is the picture.
    pub last: TaskId,
    /// The picture's name.
    pub file: &'static str,
}

fn job(
    name: &'static str,
    file: &'static str,
    parts: Vec<serde_json::Value>,
    last: impl FnOnce(Vec<String>) -> serde_json::Value,
) -> Job {
    let ids: Vec<String> = (0..parts.len()).map(|n| format!("{name}-{n}")).collect();
    let document = |id: &str, params: serde_json::Value| {
        Json::of(&serde_json::json!({ "id": id, "module": name, "params": params }))
    };
    let mut tasks: Vec<Json> = ids
        .iter()
        .zip(parts)
        .map(|(id, params)| document(id, params))
        .collect();
    let picture = format!("{name}-picture");
    tasks.push(document(&picture, last(ids)));
    // The name is one of the two below, and fits.
    let last = TaskId::new(&picture).unwrap_or_else(|_| unreachable!());
    Job {
        name,
        tasks,
        last,
        file,
    }
}

/// A valley of the Mandelbrot set in 40 slices.
pub fn mandelbrot() -> Job {
    let (width, height, rows) = (1_200, 800, 20);
    let slice = |from: usize| {
        serde_json::json!({
            "width": width, "height": height, "from": from, "rows": rows, "max_iter": 1000,
            "center": [-0.745, 0.1127], "scale": 0.0065,
        })
    };
    let slices = (0..height).step_by(rows).map(slice).collect();
    job(
        "mandelbrot",
        "mandelbrot.png",
        slices,
        |ids| serde_json::json!({ "stitch": { "width": width, "height": height }, "slices": { "$results": ids } }),
    )
}

/// One analysis for each share, and a chart of all.
pub fn stocks() -> Result<Job, String> {
    let mut shares: Vec<(&str, Vec<serde_json::Value>)> = Vec::new();
    for line in PRICES.lines().skip(1).filter(|line| !line.is_empty()) {
        let row: Vec<&str> = line.split(',').collect();
        let [symbol, date, price] = row[..] else {
            return Err(format!("stocks.csv: {line:?} has not three columns"));
        };
        let price: f64 = price
            .parse()
            .map_err(|_| format!("stocks.csv: {price:?} is no price"))?;
        let point = serde_json::json!([date, price]);
        match shares.iter_mut().find(|(known, _)| *known == symbol) {
            Some((_, prices)) => prices.push(point),
            None => shares.push((symbol, vec![point])),
        }
    }
    let parts = shares
        .into_iter()
        .map(|(symbol, prices)| serde_json::json!({ "symbol": symbol, "prices": prices }))
        .collect();
    Ok(job(
        "stocks",
        "stocks.svg",
        parts,
        |ids| serde_json::json!({ "summary": { "$results": ids } }),
    ))
}
