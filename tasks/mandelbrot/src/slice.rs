//! Some rows of the picture.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::progress::ProgressLog;
use crate::{PIXELS_MAX, palette};

/// Beyond this a single point takes milliseconds.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Squared distance from which a point counts as gone. More than the necessary 4: the smoothing is
/// exact only there.
const GONE: f64 = 65536.0;

/// Deflate's best effort costs little beside the iterations and makes results half as long.
const DEFLATE_LEVEL: u8 = 9;

/// What to compute: rows `from` to `from + rows` of a picture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Window {
    width: u32,
    height: u32,
    from: u32,
    rows: u32,
    max_iter: u32,
    /// The point in the middle of the picture.
    #[serde(default = "home")]
    center: [f64; 2],
    /// How much of the real axis the picture is wide.
    #[serde(default = "home_scale")]
    scale: f64,
}

/// The result: one byte for each pixel, deflated (zlib), in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Slice {
    pub width: u32,
    pub height: u32,
    pub from: u32,
    pub rows: u32,
    pub pixels: String,
}

fn home() -> [f64; 2] {
    [-0.65, 0.0]
}

fn home_scale() -> f64 {
    3.2
}

/// The slice as JSON.
pub fn compute(window: &Window) -> Result<Vec<u8>, String> {
    window.check()?;
    let slice = Slice {
        width: window.width,
        height: window.height,
        from: window.from,
        rows: window.rows,
        pixels: pack(&window.pixels()),
    };
    serde_json::to_vec(&slice).map_err(|error| error.to_string())
}

fn pack(pixels: &[u8]) -> String {
    BASE64.encode(miniz_oxide::deflate::compress_to_vec_zlib(
        pixels,
        DEFLATE_LEVEL,
    ))
}

impl Slice {
    /// The slice's pixels, exactly as many as it says.
    pub fn unpack(&self) -> Result<Vec<u8>, String> {
        let expected = self.width as usize * self.rows as usize;
        let packed = BASE64
            .decode(&self.pixels)
            .map_err(|error| format!("pixels: not base64: {error}"))?;
        let pixels = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, expected)
            .map_err(|error| format!("pixels: not deflated, or more than {expected}: {error}"))?;
        if pixels.len() == expected {
            Ok(pixels)
        } else {
            Err(format!(
                "pixels: {} of them, expected {expected}",
                pixels.len()
            ))
        }
    }
}

impl Window {
    fn check(&self) -> Result<(), String> {
        check_size(self.width, self.height)?;
        if self.rows == 0 || u64::from(self.from) + u64::from(self.rows) > u64::from(self.height) {
            let (from, rows, height) = (self.from, self.rows, self.height);
            return Err(format!(
                "params: from {from} and rows {rows}: \
                 expected at least one row, all within height {height}"
            ));
        }
        if !(1..=ITERATIONS_MAX).contains(&self.max_iter) {
            return Err(format!(
                "params: max_iter {}: expected 1 to {ITERATIONS_MAX}",
                self.max_iter
            ));
        }
        if self.scale <= 0.0 {
            return Err(format!(
                "params: scale {}: expected more than 0",
                self.scale
            ));
        }
        Ok(())
    }

    fn pixels(&self) -> Vec<u8> {
        let mut progress = ProgressLog::new(self.rows as usize, "rows");
        let mut pixels = Vec::with_capacity(self.width as usize * self.rows as usize);
        for row in 0..self.rows {
            pixels.extend((0..self.width).map(|column| self.pixel(column, self.from + row)));
            progress.reached(row as usize + 1);
        }
        pixels
    }

    /// The middle of a pixel lies half a pixel from its edge; the imaginary axis points up.
    fn pixel(&self, column: u32, row: u32) -> u8 {
        let step = self.scale / f64::from(self.width);
        let x = self.center[0] + (f64::from(column) + 0.5 - f64::from(self.width) / 2.0) * step;
        let y = self.center[1] - (f64::from(row) + 0.5 - f64::from(self.height) / 2.0) * step;
        if in_large_bulbs(x, y) {
            0
        } else {
            escape(x, y, self.max_iter).map_or(0, palette::index)
        }
    }
}

/// A picture's size that we are willing to hold.
pub fn check_size(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if (1..=PIXELS_MAX).contains(&pixels) {
        Ok(())
    } else {
        Err(format!(
            "params: width {width} and height {height}: expected 1 to {PIXELS_MAX} pixels in all"
        ))
    }
}

/// The cardioid and the disc left of it: most of the set, and the points that would take longest.
fn in_large_bulbs(x: f64, y: f64) -> bool {
    let q = (x - 0.25) * (x - 0.25) + y * y;
    q * (q + x - 0.25) <= 0.25 * y * y || (x + 1.0) * (x + 1.0) + y * y <= 0.0625
}

/// After how many iterations a point is gone, smoothed to a fraction; nothing for a point that
/// stays.
fn escape(x: f64, y: f64, max_iter: u32) -> Option<f64> {
    let mut re = 0.0_f64;
    let mut im = 0.0_f64;
    for iteration in 0..max_iter {
        let re2 = re * re;
        let im2 = im * im;
        if re2 + im2 > GONE {
            let doublings = ((re2 + im2).ln() / GONE.ln()).log2();
            return Some(f64::from(iteration) - doublings);
        }
        im = 2.0 * re * im + y;
        re = re2 - im2 + x;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: u32, rows: u32) -> Window {
        Window {
            width: 40,
            height: 30,
            from,
            rows,
            max_iter: 200,
            center: home(),
            scale: home_scale(),
        }
    }

    #[test]
    fn slices_join_to_the_whole() {
        let whole = window(0, 30).pixels();
        let parts: Vec<u8> = [(0, 7), (7, 20), (27, 3)]
            .iter()
            .flat_map(|&(a, b)| window(a, b).pixels())
            .collect();
        assert_eq!(whole, parts);
    }

    #[test]
    fn the_shortcut_agrees_with_the_iteration() {
        for (x, y) in [(0.0, 0.0), (-1.0, 0.1), (0.2, 0.3), (-0.5, 0.5)] {
            assert!(
                in_large_bulbs(x, y) && escape(x, y, 10_000).is_none(),
                "{x} {y}"
            );
        }
    }

    #[test]
    fn what_was_packed_unpacks() {
        let pixels = window(5, 4).pixels();
        let slice = Slice {
            width: 40,
            height: 30,
            from: 5,
            rows: 4,
            pixels: pack(&pixels),
        };
        assert_eq!(slice.unpack(), Ok(pixels));
    }

    #[test]
    fn a_window_outside_the_picture_is_refused() {
        assert!(window(29, 2).check().is_err());
        assert!(window(u32::MAX, u32::MAX).check().is_err());
        assert!(window(0, 0).check().is_err());
    }
}
