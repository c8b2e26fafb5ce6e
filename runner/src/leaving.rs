//! How this process leaves its threads when it ends.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long threads may take that were told to end. A guest takes 100 ms. A thread that takes
/// longer waits for something that may never come, such as a disk that does not answer; it ends with
/// the process.
const WITHIN: Duration = Duration::from_secs(2);

/// How often a thread is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits a little for threads that were told to end. Returns whether all of them have.
pub fn leave(threads: impl IntoIterator<Item = JoinHandle<()>>) -> bool {
    leave_within(threads, WITHIN)
}

fn leave_within(threads: impl IntoIterator<Item = JoinHandle<()>>, within: Duration) -> bool {
    let until = Instant::now() + within;
    let mut all = true;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        // These threads catch their panics, so the result of a join says nothing.
        all &= thread.is_finished() && thread.join().is_ok();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        let (release, held) = channel::<()>();
        let hangs = std::thread::spawn(move || {
            let _ = held.recv();
        });
        let ends = std::thread::spawn(|| {});
        let began = Instant::now();
        assert!(!leave_within([hangs, ends], Duration::from_millis(50)));
        assert!(began.elapsed() < Duration::from_secs(1));
        release.send(()).unwrap();
        assert!(leave([std::thread::spawn(|| {})]));
    }
}
