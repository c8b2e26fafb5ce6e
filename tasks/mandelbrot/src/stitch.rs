//! The picture of all slices.

use serde::Deserialize;

use crate::progress::ProgressLog;
use crate::slice::{Slice, check_size};
use crate::{palette, png};

/// Params that ask for a picture: its slices, in any order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct StitchParams {
    stitch: PictureSize,
    slices: Vec<Slice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct PictureSize {
    width: u32,
    height: u32,
}

/// The picture as a PNG file.
pub fn picture(params: &StitchParams) -> Result<Vec<u8>, String> {
    let PictureSize { width, height } = params.stitch;
    check_size(width, height)?;
    let mut canvas = Canvas::new(width, height);
    let mut progress = ProgressLog::new(params.slices.len(), "slices");
    for (position, slice) in params.slices.iter().enumerate() {
        canvas
            .place(slice)
            .map_err(|problem| format!("params: slices[{position}]: {problem}"))?;
        progress.reached(position + 1);
    }
    let pixels = canvas.finish()?;
    Ok(png::encode(width, height, &palette::colours(), &pixels))
}

/// A picture to which slices are added, each row once.
struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    /// Which rows are there.
    painted: Vec<bool>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        let pixels = vec![0; width as usize * height as usize];
        Self {
            width,
            height,
            pixels,
            painted: vec![false; height as usize],
        }
    }

    fn place(&mut self, slice: &Slice) -> Result<(), String> {
        if (slice.width, slice.height) != (self.width, self.height) {
            let (width, height) = (slice.width, slice.height);
            return Err(format!(
                "of a picture of {width}x{height}, expected {}x{}",
                self.width, self.height
            ));
        }
        let width = self.width as usize;
        let start = slice.from as usize;
        let end = start.saturating_add(slice.rows as usize);
        let below = || {
            let height = self.height;
            format!("rows {start} to {end} reach below the picture's {height}")
        };
        let painted = self.painted.get_mut(start..end).ok_or_else(below)?;
        let range = start.saturating_mul(width)..end.saturating_mul(width);
        let pixels = self.pixels.get_mut(range).ok_or_else(below)?;
        if painted.contains(&true) {
            return Err(format!("rows {start} to {end} are there already in part"));
        }
        pixels.copy_from_slice(&slice.unpack()?);
        painted.fill(true);
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        match self.painted.iter().position(|painted| !painted) {
            Some(row) => Err(format!("params: slices: row {row} is in none of them")),
            None => Ok(self.pixels),
        }
    }
}
