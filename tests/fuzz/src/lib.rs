//! What the targets share: the decoders that live in large crates, compiled in as files, and a few
//! words.

#![allow(dead_code, reason = "a target uses a part of each file")]

#[path = "../../../runner/src/sandbox/directive.rs"]
pub mod directive;
#[path = "../../../runner/src/sandbox/follow_ups.rs"]
pub mod follow_ups;
#[path = "../../../feeder/src/feed/line.rs"]
pub mod line;
#[path = "../../../runner/src/sandbox/live.rs"]
pub mod live;
#[path = "../../../runner/src/sandbox/log.rs"]
pub mod log;
#[path = "../../../master/engine/src/prepare.rs"]
pub mod prepare;
#[path = "../../../feeder/src/feed/splitter.rs"]
pub mod splitter;
#[path = "../../../feeder/src/cli/values.rs"]
pub mod values;
#[path = "../../../feeder/src/wire.rs"]
pub mod wire;

#[path = "."]
pub mod cache {
    #[path = "../../../master/engine/src/cache/key.rs"]
    pub mod key;
}

pub mod output {
    pub mod moments {
        use taskmaster_protocol::Wall;

        /// The same moment each time: an input must do the same whenever it is played.
        pub fn now() -> Wall {
            Wall(0)
        }
    }
}

pub use taskmaster_store::{body, codec, packed, record};

/// The input as text, as far as it is some.
pub fn text(data: &[u8]) -> &str {
    match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&data[..error.valid_up_to()]).unwrap_or_default(),
    }
}
