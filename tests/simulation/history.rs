//! What happened, line by line: hashed, so that two plays can be compared, and printed when one is
//! looked at. A play among thousands does neither: texts of what nobody reads cost half of its
//! time.

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    Quiet,
    Hashed,
    Printed,
}

#[derive(Debug)]
pub struct History {
    hash: u64,
    pub lines: u64,
    telling: Telling,
}

impl History {
    pub fn new(telling: Telling) -> History {
        History {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            telling,
        }
    }

    /// FNV-1a over the time and the text.
    pub fn note(&mut self, now: u64, what: &str, text: impl FnOnce() -> String) {
        self.lines += 1;
        if self.telling == Telling::Quiet {
            return;
        }
        let text = text();
        for byte in now
            .to_le_bytes()
            .iter()
            .chain(what.as_bytes())
            .chain(text.as_bytes())
        {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.telling == Telling::Printed {
            println!("{:>12.6} {what} {text}", now as f64 / 1e6);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
