//! What happened, line by line. The lines are hashed, so that two plays can be compared, or printed,
//! so that one play can be read. A play among thousands does neither, because making texts that
//! nobody reads would take half of its time.

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryMode {
    Quiet,
    Hashed,
    Printed,
}

#[derive(Debug)]
pub struct History {
    hash: u64,
    pub lines: u64,
    mode: HistoryMode,
}

impl History {
    pub fn new(mode: HistoryMode) -> History {
        History {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            mode,
        }
    }

    /// Adds a line. The hash is FNV-1a over the time in µs and the text.
    pub fn note(&mut self, now: u64, what: &str, text: impl FnOnce() -> String) {
        self.lines += 1;
        if self.mode == HistoryMode::Quiet {
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
        if self.mode == HistoryMode::Printed {
            println!("{:>12.6} {what} {text}", now as f64 / 1e6);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
