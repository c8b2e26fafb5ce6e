//! What the tasks of the templates must give, computed here by other means, and what they are
//! asked.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// A language, and what its project is asked.
pub struct Language {
    pub name: &'static str,
    /// What builds it, by the name that the script `toolchains` has for it; `None`: nothing is
    /// needed.
    pub toolchain: Option<&'static str>,
    /// What its template does, for the table.
    pub does: &'static str,
    pub kinds: &'static [&'static str],
    /// From the project's folder and the kind: params and result.
    pub cases: fn(&Path, &str) -> Vec<(Value, Value)>,
}

const BOTH: &[&str] = &["command", "component"];
const COMPONENT: &[&str] = &["component"];

pub const LANGUAGES: &[Language] = &[
    Language {
        name: "rust",
        toolchain: Some("rust"),
        does: "totals of a CSV file",
        kinds: BOTH,
        cases: totals,
    },
    Language {
        name: "c",
        toolchain: Some("zig"),
        does: "a smaller picture",
        kinds: BOTH,
        cases: pictures,
    },
    Language {
        name: "cpp",
        toolchain: Some("zig"),
        does: "what a regular expression finds",
        kinds: BOTH,
        cases: matches,
    },
    Language {
        name: "zig",
        toolchain: Some("zig"),
        does: "the root of a hash tree",
        kinds: BOTH,
        cases: roots,
    },
    Language {
        name: "go",
        toolchain: Some("go"),
        does: "durations in a log",
        kinds: BOTH,
        cases: durations,
    },
    Language {
        name: "assemblyscript",
        toolchain: Some("javascript"),
        does: "a matrix product",
        kinds: BOTH,
        cases: products,
    },
    Language {
        name: "javascript",
        toolchain: Some("javascript"),
        does: "what differs in two JSON documents",
        kinds: COMPONENT,
        cases: changes,
    },
    Language {
        name: "typescript",
        toolchain: Some("javascript"),
        does: "an order of building",
        kinds: COMPONENT,
        cases: orders,
    },
    Language {
        name: "python",
        toolchain: Some("python"),
        does: "the line that fits points best",
        kinds: COMPONENT,
        cases: lines,
    },
    Language {
        name: "wat",
        toolchain: None,
        does: "a CRC-32",
        kinds: BOTH,
        cases: checksums,
    },
];

/// Whether two results are the same; numbers may differ by what rounding does.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// By Python's own reader of CSV.
fn totals(project: &Path, _: &str) -> Vec<(Value, Value)> {
    const SCRIPT: &str = "
import csv, json, sys
groups, rows = {}, list(csv.DictReader(open(sys.argv[1])))
for row in rows:
    groups.setdefault(row[sys.argv[2]], []).append(float(row['amount']))
print(json.dumps({'rows': len(rows), 'groups':
    {name: {'count': len(all), 'sum': sum(all), 'largest': max(all)} for name, all in groups.items()}}))";
    let mut cases = Vec::new();
    for group in ["city", "item"] {
        let file = project.join("data/sales.csv");
        let ran = Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(file)
            .arg(group)
            .output()
            .unwrap();
        let params = json!({"file": "data/sales.csv", "group": group, "value": "amount"});
        cases.push((params, serde_json::from_slice(&ran.stdout).unwrap()));
    }
    cases
}

fn pictures(_: &Path, _: &str) -> Vec<(Value, Value)> {
    let case = |width: u64| {
        let params = json!({"file": "data/photo.ppm", "width": width});
        (
            params,
            json!({"width": width, "height": (32 * width / 48).max(1), "file": "small.ppm"}),
        )
    };
    [1, 5, 12, 31, 48].map(case).into()
}

/// The file that `pictures` must come with: the mean of the pixels, in whole numbers.
pub fn smaller(photo: &[u8], width: usize) -> Vec<u8> {
    let pixels = &photo[photo.len() - 48 * 32 * 3..];
    let height = (32 * width / 48).max(1);
    let mut out = format!("P6\n{width} {height}\n255\n").into_bytes();
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let part = |at: usize, of: usize, from: usize| at * from / of..(at + 1) * from / of;
                let inside: Vec<usize> = part(y, height, 32)
                    .flat_map(|row| {
                        part(x, width, 48).map(move |column| (row * 48 + column) * 3 + channel)
                    })
                    .map(|at| usize::from(pixels[at]))
                    .collect();
                out.push(u8::try_from(inside.iter().sum::<usize>() / inside.len()).unwrap());
            }
        }
    }
    out
}

/// Words with a capital, found letter by letter.
fn matches(_: &Path, _: &str) -> Vec<(Value, Value)> {
    let texts = [
        "Anna met Otto, and Otto met Ida.",
        "nobody",
        "Zoë \"Quoted\" and\nBack\\slash Ab",
        "",
    ];
    let case = |text: &&str| {
        let mut counts = BTreeMap::<String, u32>::new();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let length = bytes[at + 1..]
                .iter()
                .take_while(|byte| byte.is_ascii_lowercase())
                .count();
            if bytes[at].is_ascii_uppercase() && length > 0 {
                *counts.entry(text[at..=at + length].to_owned()).or_default() += 1;
                at += length;
            }
            at += 1;
        }
        let all: u32 = counts.values().sum();
        (
            json!({"pattern": "[A-Z][a-z]+", "text": text}),
            json!({"matches": all, "counts": counts}),
        )
    };
    texts.iter().map(case).collect()
}

/// From the root down, where the template goes from the leaves up.
fn roots(_: &Path, _: &str) -> Vec<(Value, Value)> {
    fn root(chunks: &[&[u8]]) -> Vec<u8> {
        if let [one] = chunks {
            return Sha256::digest(one).to_vec();
        }
        // The left half is the largest power of two that leaves something for the right.
        let left = chunks.len().next_power_of_two() / 2;
        let mut both = Sha256::new();
        both.update(root(&chunks[..left]));
        both.update(root(&chunks[left..]));
        both.finalize().to_vec()
    }
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(9);
    let case = |chunk: usize| {
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(chunk).collect();
        let hex: String = root(&chunks)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (
            json!({"text": text, "chunk": chunk}),
            json!({"chunks": chunks.len(), "root": hex}),
        )
    };
    [1, 7, 64, 405, 1_000].map(case).into()
}

fn durations(_: &Path, _: &str) -> Vec<(Value, Value)> {
    let case = |count: u64| {
        let mut lines = Vec::new();
        let mut paths = BTreeMap::<String, (Vec<u64>, u64, Vec<u64>)>::new();
        for n in 0..count {
            let (path, ms, second) = (format!("/{}", n % 3), n * 37 % 101, n * 7 % 60);
            let status = if n % 5 == 0 { 503 } else { 200 };
            lines.push(format!(
                "2026-01-31T12:00:{second:02}Z {path} {status} {ms}ms"
            ));
            let entry = paths.entry(path).or_default();
            entry.0.push(ms);
            entry.1 += u64::from(status == 503);
            entry.2.push(second);
        }
        let result: BTreeMap<String, Value> = paths
            .into_iter()
            .map(|(path, (mut ms, errors, seconds))| {
                ms.sort_unstable();
                let span = seconds.iter().max().unwrap() - seconds.iter().min().unwrap();
                let per_second = ms.len() as f64 / (span.max(1)) as f64;
                let value = json!({"requests": ms.len(), "errors": errors, "median_ms": ms[(ms.len() - 1) / 2],
                    "slowest_ms": ms.last(), "per_second": per_second});
                (path, value)
            })
            .collect();
        (json!({"lines": lines}), json!(result))
    };
    [0, 1, 7, 50].map(case).into()
}

fn products(_: &Path, _: &str) -> Vec<(Value, Value)> {
    let case = |n: usize| {
        let a: Vec<Vec<f64>> = (0..n)
            .map(|i| (0..n + 1).map(|j| i as f64 - j as f64 / 4.0).collect())
            .collect();
        let b: Vec<Vec<f64>> = (0..n + 1)
            .map(|i| (0..2).map(|j| (i * j) as f64 * 1.5 - 2.0).collect())
            .collect();
        let cell = |i: usize, j: usize| {
            a[i].iter()
                .zip(&b)
                .map(|(left, row)| left * row[j])
                .sum::<f64>()
        };
        let product: Vec<Vec<f64>> = (0..n)
            .map(|i| (0..2).map(|j| cell(i, j)).collect())
            .collect();
        (json!({"a": a, "b": b}), json!(product))
    };
    [1, 2, 3, 20].map(case).into()
}

/// Written down by hand.
fn changes(_: &Path, _: &str) -> Vec<(Value, Value)> {
    vec![
        (
            json!({"from": {"a": 1, "b": [1, 2]}, "to": {"a": 2, "b": [1]}}),
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "remove", "path": "/b/1"}]),
        ),
        (
            json!({"from": {"x/y": null, "~": [true]}, "to": {"x/y": "ü", "~": [true, {"z": 1}]}}),
            json!([{"op": "replace", "path": "/x~1y", "value": "ü"}, {"op": "add", "path": "/~0/1", "value": {"z": 1}}]),
        ),
        (
            json!({"from": [1, 2, 3], "to": [1]}),
            json!([{"op": "remove", "path": "/2"}, {"op": "remove", "path": "/1"}]),
        ),
        (
            json!({"from": {"a": []}, "to": {"a": {}}}),
            json!([{"op": "replace", "path": "/a", "value": {}}]),
        ),
        (json!({"from": 3, "to": 3}), json!([])),
    ]
}

/// Again and again the first name of which all needs are there.
fn orders(_: &Path, _: &str) -> Vec<(Value, Value)> {
    let case = |needs: Value| {
        let graph: BTreeMap<String, BTreeSet<String>> =
            serde_json::from_value(needs.clone()).unwrap();
        let mut order: Vec<String> = Vec::new();
        while order.len() < graph.len() {
            let may = |(name, needs): &(&String, &BTreeSet<String>)| {
                !order.contains(name) && needs.iter().all(|need| order.contains(need))
            };
            let next = graph.iter().find(may).unwrap().0.clone();
            order.push(next);
        }
        (json!({"needs": needs}), json!({"order": order}))
    };
    let chain: serde_json::Map<String, Value> = (0..30)
        .map(|n| {
            (
                format!("n{:02}", n * 7 % 30),
                json!(if n > 0 {
                    vec![format!("n{:02}", (n - 1) * 7 % 30)]
                } else {
                    vec![]
                }),
            )
        })
        .collect();
    vec![
        case(json!({})),
        case(json!({"app": ["lib", "assets"], "lib": ["core"], "assets": [], "core": []})),
        case(json!({"c": [], "b": [], "a": ["c"]})),
        case(Value::Object(chain)),
    ]
}

/// By the sums of the textbook.
fn lines(_: &Path, _: &str) -> Vec<(Value, Value)> {
    let case = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        let (mx, my) = (
            points.iter().map(|p| p.0).sum::<f64>() / n,
            points.iter().map(|p| p.1).sum::<f64>() / n,
        );
        let sum = |f: &dyn Fn(f64, f64) -> f64| {
            points.iter().map(|(x, y)| f(x - mx, y - my)).sum::<f64>()
        };
        let (xy, xx, yy) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
        let slope = xy / xx;
        let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        (
            json!({"x": x, "y": y}),
            json!({"slope": slope, "intercept": my - slope * mx, "correlation": xy / (xx * yy).sqrt()}),
        )
    };
    let wave: Vec<(f64, f64)> = (0..40)
        .map(|n| (f64::from(n), f64::from(n * 13 % 17) + f64::from(n) / 2.0))
        .collect();
    vec![
        case(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.5), (4.0, 7.0)]),
        case(&[(0.0, 1.0), (10.0, -4.0)]),
        case(&wave),
    ]
}

/// The command reads the JSON text, the component the string that it stands for.
fn checksums(_: &Path, kind: &str) -> Vec<(Value, Value)> {
    let case = |text: &String| {
        let params = json!(text);
        let bytes = if kind == "command" {
            params.to_string()
        } else {
            text.clone()
        };
        (params, json!(crc32fast::hash(bytes.as_bytes())))
    };
    [
        "".to_owned(),
        "The quick brown fox".to_owned(),
        "ü".repeat(40_000),
    ]
    .iter()
    .map(case)
    .collect()
}
