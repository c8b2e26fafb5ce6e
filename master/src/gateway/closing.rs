//! How a session is closed, and what is said to a message that no session understands.

use axum::extract::ws::{CloseFrame, Utf8Bytes};
use std::time::Duration;
use taskmaster_protocol::{Refusal, RefusalCode, limits};

/// Time for a last message to arrive before the connection is cut.
pub(super) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that the reason of a close frame may have.
const REASON_BYTES_MAX: usize = 123;

/// Close codes of WebSockets (RFC 6455, section 7.4).
pub(super) mod code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    /// A message is above the limit. Its rest cannot be read, so the connection is left open for a
    /// moment, and the code is seen before the reset.
    pub const TOO_LARGE: u16 = 1009;
}

pub(super) fn frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame {
        code,
        reason: shortened(reason),
    }
}

/// The close frame for a connection that cannot be read any further.
pub(super) fn frame_for_read_error(error: &str) -> CloseFrame {
    // axum hides the kind of the error. The codec's text is stable within the version that we pin.
    if error.contains("too long") || error.contains("too large") || error.contains("too big") {
        let most = limits::MESSAGE_BYTES_MAX;
        let reason = format!("a message may have at most {most} bytes");
        return frame(code::TOO_LARGE, &reason);
    }
    if error.contains("UTF-8") || error.contains("utf-8") {
        return frame(code::NOT_UTF8, "text messages must be UTF-8");
    }
    frame(code::PROTOCOL_ERROR, error)
}

/// As much of `reason` as a close frame holds.
fn shortened(reason: &str) -> Utf8Bytes {
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    reason.get(..end).unwrap_or_default().into()
}

/// The answer to a binary message.
pub(super) fn binary_refusal() -> Refusal {
    let text = "binary messages are not understood: messages are JSON in text; bytes go to \
                PUT /blobs/SHA256 on this port";
    Refusal::new(RefusalCode::MalformedJson, text)
}
