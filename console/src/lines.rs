//! Lines for people on stderr, written by a thread of its own: whoever says something never waits
//! for the reader of stderr, and never fails because there is none.
//!
//! A master or a runner lives for months, and whoever started it may close stderr or stop to read
//! it. So everything that such a process tells people goes through [`say`] or [`LogLine`]. The
//! queue has a bound: what comes while it is full is dropped, and counted. A command that ends by
//! itself waits for its reader, as other programs do, and loses no line: it uses [`tell`].

use crate::terminal;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 4_096;

/// Bytes that may wait to be written.
const BYTES_WAITING_MAX: usize = 1 << 20;

/// How long the end of the process waits for lines that are not written yet. A reader that reads
/// takes them in a moment; one that does not must not hold up the end.
const FINISH_WITHIN: Duration = Duration::from_millis(500);

/// The pause before a write is tried again where the descriptor does not block and is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The lines of this process. `None`: the system gives no thread, and nothing is written.
static LINES: LazyLock<Option<Arc<LineQueue>>> = LazyLock::new(start);

/// Says a line to people. Never waits, never fails.
pub fn say(line: impl Display) {
    push(for_stderr(&format!("{line}\n")).into_bytes());
}

/// Tells people a line, and waits until it is written. Never fails: a closed stderr is no reason to
/// end.
pub fn tell(line: impl Display) {
    tell_raw(for_stderr(&format!("{line}\n")).as_bytes());
}

/// Writes bytes to stderr as they are, such as those that move the cursor of a terminal.
pub fn tell_raw(bytes: &[u8]) {
    let mut stderr = std::io::stderr().lock();
    write_line(&mut stderr, bytes);
}

/// Text as it goes to stderr.
pub fn for_stderr(text: &str) -> String {
    if std::io::stderr().is_terminal() {
        terminal::plain(text).into_owned()
    } else {
        text.to_owned()
    }
}

/// Waits until everything that was said is written, but not for a reader that does not read.
pub fn finish() {
    if let Some(lines) = LINES.as_ref() {
        lines.wait_until_written(FINISH_WITHIN);
    }
}

/// Ends the process at once, but for what was said.
pub fn exit(code: i32) -> ! {
    finish();
    process::exit(code)
}

/// Where the log writes: one write is one event.
#[derive(Debug, Clone, Copy)]
pub struct LogLine;

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn push(line: Vec<u8>) {
    if let Some(lines) = LINES.as_ref() {
        lines.push(line);
    }
}

fn start() -> Option<Arc<LineQueue>> {
    let lines = Arc::new(LineQueue::default());
    let writer = lines.clone();
    let started = thread::Builder::new()
        .name("lines".into())
        .spawn(move || writer.write_all_to(|line| write_line(&mut std::io::stderr(), line)));
    started.is_ok().then_some(lines)
}

/// Writes a line, as much of it as can be written.
fn write_line(out: &mut impl Write, line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return,
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            // Nobody reads any more.
            Err(_) => return,
        }
    }
}

/// Lines on their way to a writer.
#[derive(Default)]
struct LineQueue {
    waiting: Mutex<WaitingLines>,
    /// Told when a line comes, and when all are written.
    changed: Condvar,
}

#[derive(Default)]
struct WaitingLines {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of all lines that wait.
    bytes: usize,
    /// Lines that were dropped and not told of yet.
    dropped: u64,
    is_writing: bool,
}

impl WaitingLines {
    fn add(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn has_room(&self) -> bool {
        self.lines.len() < LINES_WAITING_MAX && self.bytes < BYTES_WAITING_MAX
    }

    /// Says how many lines were dropped, where some were.
    fn tell_dropped(&mut self) {
        let count = std::mem::take(&mut self.dropped);
        let lines = if count == 1 { "line was" } else { "lines were" };
        if count > 0 {
            self.add(
                format!("{count} {lines} dropped here: stderr was not read fast enough\n")
                    .into_bytes(),
            );
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.lines.is_empty() {
            self.tell_dropped();
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        // The queue is whole between two statements.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut waiting = self.lock();
        if waiting.has_room() {
            waiting.tell_dropped();
            waiting.add(line);
            self.changed.notify_all();
        } else {
            waiting.dropped += 1;
        }
    }

    /// Gives each line to `write`, for ever.
    fn write_all_to(&self, mut write: impl FnMut(&[u8])) {
        loop {
            let line = self.take();
            write(&line);
        }
    }

    /// Waits for a line. The line before it is written by now.
    fn take(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        loop {
            if let Some(line) = waiting.next() {
                waiting.is_writing = true;
                return line;
            }
            self.changed.notify_all();
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all lines are written, for at most `limit`. Gives whether they are.
    fn wait_until_written(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut waiting = self.lock();
        loop {
            if waiting.lines.is_empty() && waiting.dropped == 0 && !waiting.is_writing {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(waiting, left);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A reader that takes a line when it is told to, and the queue that it reads.
    fn slow_reader() -> (Arc<LineQueue>, mpsc::SyncSender<()>, mpsc::Receiver<String>) {
        let queue = Arc::new(LineQueue::default());
        let (go, may_go) = mpsc::sync_channel::<()>(LINES_WAITING_MAX * 2);
        let (written, lines) = mpsc::channel();
        let writer = queue.clone();
        thread::spawn(move || {
            writer.write_all_to(|line| {
                if may_go.recv().is_ok() {
                    drop(written.send(String::from_utf8_lossy(line).into_owned()));
                }
            });
        });
        (queue, go, lines)
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_counted_and_holds_up_nobody() {
        let (queue, go, lines) = slow_reader();
        let said = LINES_WAITING_MAX + 100;
        for n in 0..said {
            queue.push(format!("{n}\n").into_bytes());
        }
        assert!(!queue.wait_until_written(Duration::from_millis(1)));
        let dropped = queue.lock().dropped;
        // The writer holds one line in its hands.
        assert!((99..=100).contains(&dropped), "{dropped}");

        let kept = said - dropped as usize;
        for n in 0..kept {
            go.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), format!("{n}\n"));
        }
        go.send(()).unwrap();
        let told = lines.recv().unwrap();
        assert!(told.starts_with(&format!("{dropped} lines were dropped here")));
        queue.push(b"later\n".to_vec());
        go.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), "later\n");
        assert!(queue.wait_until_written(Duration::from_secs(20)));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (queue, _go, _lines) = slow_reader();
        for _ in 0..20 {
            queue.push(vec![b'x'; BYTES_WAITING_MAX / 4]);
        }
        let waiting = queue.lock();
        // Four lines fit, one may be in the writer's hands, and one is let in beyond the bound.
        assert!(waiting.dropped >= 12, "{}", waiting.dropped);
        assert!(waiting.bytes < 2 * BYTES_WAITING_MAX);
    }

    #[test]
    fn a_writer_that_fails_ends_nobody() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        write_line(&mut Gone, b"nobody hears this\n");
        let mut heard = Vec::new();
        write_line(&mut heard, b"this is heard\n");
        assert_eq!(heard, b"this is heard\n");
    }
}
