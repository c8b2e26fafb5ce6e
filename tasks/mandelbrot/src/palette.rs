//! The colours: one byte for each pixel, 0 for the set itself, 1 to 255 round a wheel of colours.

/// Where the wheel has which colour; between them it is blended.
const STOPS: [(f64, [f64; 3]); 6] = [
    (0.0, [0.0, 7.0, 100.0]),
    (0.16, [32.0, 107.0, 203.0]),
    (0.42, [237.0, 255.0, 255.0]),
    (0.6425, [255.0, 170.0, 0.0]),
    (0.8575, [64.0, 2.0, 24.0]),
    (1.0, [0.0, 7.0, 100.0]),
];

const SET: [u8; 3] = [4, 4, 16];

/// How many of the 256 colours lie on the wheel.
const WHEEL: f64 = 255.0;

/// Turns of the wheel for each doubling of the iterations: the bands stay wide near the set, where
/// counts soar.
const TURNS: f64 = 0.33;

/// Where on the wheel the points furthest out begin: in the dark.
const START: f64 = 0.14;

/// The colour's number for a point that left after a smoothed number of iterations.
pub fn index(iterations: f64) -> u8 {
    let turn = (iterations.max(0.0) + 1.0).log2() * TURNS + START;
    1 + ((turn.fract() * WHEEL) as u8).min(254)
}

/// All 256 colours, red, green, blue.
pub fn colours() -> Vec<u8> {
    let wheel = (0..255).flat_map(|n| blend(f64::from(n) / WHEEL));
    SET.into_iter().chain(wheel).collect()
}

fn blend(position: f64) -> [u8; 3] {
    for pair in STOPS.windows(2) {
        if let [(start, from), (end, to)] = pair
            && position <= *end
        {
            let share = smooth((position - start) / (end - start));
            return [0, 1, 2].map(|channel| {
                (from[channel] + (to[channel] - from[channel]) * share).round() as u8
            });
        }
    }
    SET
}

/// Eases in and out, so that no stop shows as an edge.
fn smooth(share: f64) -> f64 {
    share * share * (3.0 - 2.0 * share)
}
