//! A guest's stderr: whatever it writes, and in whatever pieces, what is kept is bounded and every
//! byte is counted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use taskmaster_fuzz::log::LogCollector;
use taskmaster_protocol::message::Attempt;
use taskmaster_protocol::{AttemptId, TaskId, limits};

fuzz_target!(|data: &[u8]| {
    let Some((times, data)) = data.split_first() else {
        return;
    };
    let attempt = Attempt {
        id: TaskId::new("t").expect("a name"),
        attempt: AttemptId { epoch: 1, n: 1 },
    };
    let mut collector = LogCollector::new(attempt, Arc::new(|_, _| {}));
    // Now and then enough of it to fill what is kept.
    let times = if *times == 255 { 2_000 } else { 1 };
    for _ in 0..times {
        data.chunks(1 + data.len() / 3)
            .for_each(|part| collector.write(part));
    }
    let (log, bytes) = collector.finish();
    assert_eq!(bytes, (data.len() * times) as u64);
    assert!(
        log.head.len() <= limits::LOG_PART_BYTES_MAX
            && log.tail.len() <= limits::LOG_PART_BYTES_MAX
    );
});
