//! What a guest tells while it runs. In stderr, lines that are directives are obeyed, and the rest
//! is the task's log. A component tells the same by calling functions.

use super::directive::{Directive, DirectiveError};
use super::follow_ups::FollowUps;
use super::live::{LiveEvent, LiveListener};
use std::fmt;
use std::time::{Duration, Instant};
use taskmaster_protocol::limits::{LOG_PART_BYTES_MAX, PARTIAL_BYTES_MAX};
use taskmaster_protocol::message::{Attempt, Log};
use taskmaster_protocol::{Json, TaskId};

/// A longer line is logged in pieces, and a longer directive is not obeyed, so that what a guest can
/// make us keep is bounded.
const LINE_BYTES_MAX: usize = 256 << 10;

/// Live text is told when this much has gathered.
const LIVE_BYTES: usize = 8 << 10;

/// Live text is told when it has waited this long, even if it is short. People read it; programs
/// wait for the result.
pub(super) const LIVE_EVERY: Duration = Duration::from_millis(100);

/// Bytes that one attempt may tell live in [`LIVE_EVERY`]. Beyond that watchers miss some, and read
/// the log instead; and of partial results the newest waits.
const LIVE_BYTES_MAX: usize = 256 << 10;

/// Bytes that a partial result counts for beside its own: 256 are told in [`LIVE_EVERY`], because
/// the master passes each on to all who follow it.
const PARTIAL_FIELDS_BYTES: usize = 1 << 10;

/// Collects one guest's log and obeys its directives.
pub struct LogCollector {
    attempt: Attempt,
    listener: LiveListener,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Whether the beginning of that line has been logged already, because it is long.
    torn: bool,
    /// That line, if it is a directive.
    too_long: Option<LongDirective>,
    log: BoundedLog,
    /// Bytes that the guest wrote, directives included.
    bytes: u64,
    /// Lines of the log that the listener has not been told yet.
    live: String,
    /// The newest progress that the listener has not been told yet.
    progress: Option<Json>,
    /// Partial results that the guest gave.
    partials: u64,
    /// The newest partial result, if it came too fast to be told at once.
    held_partial: Option<HeldPartial>,
    /// When the current span of [`LIVE_EVERY`] began.
    window: Option<Instant>,
    /// Bytes told live in the current span.
    told_bytes: usize,
    follow_ups: FollowUps,
}

/// A directive that is too long to be obeyed.
struct LongDirective {
    word: &'static str,
    /// Bytes so far of the whole line.
    bytes: usize,
}

/// A partial result that waits, and its number.
struct HeldPartial {
    n: u64,
    value: Json,
}

impl fmt::Debug for LogCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCollector")
            .field("attempt", &self.attempt)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl LogCollector {
    /// An empty log of `attempt`.
    pub fn new(attempt: Attempt, listener: LiveListener) -> LogCollector {
        LogCollector {
            attempt,
            listener,
            line: Vec::new(),
            torn: false,
            too_long: None,
            log: BoundedLog::default(),
            bytes: 0,
            live: String::new(),
            progress: None,
            partials: 0,
            held_partial: None,
            window: None,
            told_bytes: 0,
            follow_ups: FollowUps::default(),
        }
    }

    /// Takes in what the guest wrote.
    pub fn write(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() && !self.torn {
                self.take_line(line);
            } else {
                self.line.extend_from_slice(line);
                self.end_line();
            }
        }
        self.line.extend_from_slice(bytes);

        if self.line.len() > LINE_BYTES_MAX {
            let piece = std::mem::take(&mut self.line);
            self.take_piece(&piece);
            self.torn = true;
        }
        if self.live.len() >= LIVE_BYTES {
            self.flush_live(None);
        }
    }

    /// Tells the listener now.
    pub fn tell(&self, event: LiveEvent) {
        (self.listener)(&self.attempt, event);
    }

    /// Tells what waits. With `now`, only if it has waited long enough by then.
    pub fn flush_live(&mut self, now: Option<Instant>) {
        if !self.has_untold() {
            return;
        }
        let is_new = self.begin_window(now.unwrap_or_else(Instant::now));
        if now.is_some() && !is_new {
            return;
        }

        if let Some(held) = self.held_partial.take() {
            let HeldPartial { n, value } = held;
            self.may_tell(PARTIAL_FIELDS_BYTES + value.get().len());
            self.tell(LiveEvent::Partial { n, value });
        }
        if let Some(progress) = self.progress.take() {
            self.tell(LiveEvent::Progress(progress));
        }
        let live = std::mem::take(&mut self.live);
        if !live.is_empty() && self.may_tell(live.len()) {
            let lines = Json::of(&serde_json::json!({ "text": live }));
            self.tell(LiveEvent::Log(lines));
        }
    }

    /// Whether something waits to be told.
    pub fn has_untold(&self) -> bool {
        !self.live.is_empty() || self.progress.is_some() || self.held_partial.is_some()
    }

    /// Begins a new span of [`LIVE_EVERY`] if the last one is over. Returns whether it does.
    fn begin_window(&mut self, now: Instant) -> bool {
        let is_over = self
            .window
            .is_none_or(|begin| now.duration_since(begin) >= LIVE_EVERY);
        if is_over {
            self.window = Some(now);
            self.told_bytes = 0;
        }
        is_over
    }

    /// Ends the log and takes it, with the number of bytes that the guest wrote.
    pub fn finish(&mut self) -> (Log, u64) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.flush_live(None);
        (std::mem::take(&mut self.log).into_log(), self.bytes)
    }

    /// Takes the tasks that the guest asked for.
    pub fn take_follow_ups(&mut self) -> FollowUps {
        std::mem::take(&mut self.follow_ups)
    }

    /// Logs a line that is no directive, whatever it looks like.
    pub fn log_plain(&mut self, text: &str) {
        self.bytes += text.len() as u64 + 1;
        self.log_line(text);
    }

    /// Does what a directive says, and returns the id of a task that it adds.
    pub fn obey(&mut self, directive: Directive) -> Result<Option<TaskId>, DirectiveError> {
        match directive {
            Directive::Progress(progress) => {
                // Only the newest one counts.
                self.progress = Some(progress);
                if self.window.is_none() {
                    self.flush_live(None);
                }
            }
            Directive::Partial(partial) => {
                self.give_partial(partial);
            }
            Directive::Add(task) => return self.follow_ups.add(&self.attempt.id, &task).map(Some),
            // The last one counts, as with `exec`.
            Directive::Then(task) => self.follow_ups.then = Some(task),
            // The last one counts here, too.
            Directive::Cache(seconds) => self.follow_ups.cache_s = Some(seconds),
        }
        Ok(None)
    }

    /// Does what a directive says, for a guest that gets no answer: a mistake becomes a warning in
    /// the log.
    pub fn obey_or_warn(&mut self, directive: Result<Directive, DirectiveError>) {
        if let Err(warning) = directive.and_then(|directive| self.obey(directive)) {
            self.log_line(&format!("taskmaster: {warning}"));
        }
    }

    /// Tells a partial result at once, or holds it where results come too fast: a newer one replaces
    /// it then.
    fn give_partial(&mut self, value: Json) {
        self.partials += 1;
        let n = self.partials;
        let is_new = self.begin_window(Instant::now());
        let may_tell = self.may_tell(PARTIAL_FIELDS_BYTES + value.get().len());
        if may_tell && (is_new || self.held_partial.is_none()) {
            self.held_partial = None;
            self.tell(LiveEvent::Partial { n, value });
        } else {
            self.held_partial = Some(HeldPartial { n, value });
        }
    }

    fn may_tell(&mut self, bytes: usize) -> bool {
        self.told_bytes += bytes;
        self.told_bytes <= LIVE_BYTES_MAX
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !std::mem::take(&mut self.torn) {
            self.take_line(&line);
            return;
        }
        self.take_piece(&line);
        if let Some(LongDirective { word, bytes }) = self.too_long.take() {
            let max = match word {
                "partial" => PARTIAL_BYTES_MAX,
                _ => LINE_BYTES_MAX,
            };
            self.obey_or_warn(Err(DirectiveError::TooLong { word, bytes, max }));
        } else {
            self.append("\n");
        }
    }

    /// Takes in a piece of a line that is too long. A directive is counted, anything else is logged.
    fn take_piece(&mut self, piece: &[u8]) {
        let word = Directive::word_of(piece).filter(|_| !self.torn && self.too_long.is_none());
        if let Some(word) = word {
            self.too_long = Some(LongDirective { word, bytes: 0 });
        }
        match &mut self.too_long {
            Some(long) => long.bytes += piece.len(),
            None => self.append(&String::from_utf8_lossy(piece)),
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        match Directive::parse(line.trim_end_matches('\r')) {
            None => self.log_line(&line),
            Some(directive) => self.obey_or_warn(directive),
        }
    }

    fn log_line(&mut self, line: &str) {
        self.append(line);
        self.append("\n");
    }

    fn append(&mut self, text: &str) {
        self.log.append(text);
        // What is more than may be told is not gathered either.
        if self.live.len() < LIVE_BYTES_MAX {
            self.live.push_str(text);
        }
    }
}

/// The beginning and the end of a log, each at most [`LOG_PART_BYTES_MAX`] bytes long.
#[derive(Debug, Default)]
struct BoundedLog {
    head: String,
    head_full: bool,
    /// Grows to twice its bound before it is cut, so that text is moved once per
    /// [`LOG_PART_BYTES_MAX`] and not once per line.
    tail: String,
    /// Bytes between `head` and `tail` that are not kept.
    dropped: u64,
}

impl BoundedLog {
    fn append(&mut self, mut text: &str) {
        if !self.head_full {
            let free = LOG_PART_BYTES_MAX - self.head.len();
            let (fits, rest) = text.split_at(text.floor_char_boundary(free));
            self.head.push_str(fits);
            self.head_full = !rest.is_empty();
            text = rest;
        }
        self.tail.push_str(text);
        if self.tail.len() > 2 * LOG_PART_BYTES_MAX {
            self.cut_tail();
        }
    }

    fn cut_tail(&mut self) {
        let extra = self.tail.len().saturating_sub(LOG_PART_BYTES_MAX);
        let cut = self.tail.ceil_char_boundary(extra);
        self.tail.drain(..cut);
        self.dropped += cut as u64;
    }

    fn into_log(mut self) -> Log {
        self.cut_tail();
        Log {
            head: self.head,
            tail: self.tail,
            dropped: self.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use taskmaster_protocol::{AttemptId, TaskId};

    fn collector() -> (LogCollector, Arc<Mutex<Vec<LiveEvent>>>) {
        let heard: Arc<Mutex<Vec<LiveEvent>>> = Arc::default();
        let sink = heard.clone();
        let attempt = Attempt {
            id: TaskId::new("t").unwrap(),
            attempt: AttemptId { epoch: 1, n: 1 },
        };
        (
            LogCollector::new(
                attempt,
                Arc::new(move |_, event| sink.lock().unwrap().push(event)),
            ),
            heard,
        )
    }

    #[test]
    fn directives_are_told_and_left_out_of_the_log() {
        let (mut collector, heard) = collector();
        collector.write(b"begin\n::progr");
        collector.write(b"ess 0.4 half way\n::partial {\"a\": 1}\n::std::vector\nend");
        let (log, bytes) = collector.finish();
        assert_eq!(log.head, "begin\n::std::vector\nend\n");
        assert_eq!(bytes, 66);
        let heard = heard.lock().unwrap();
        assert!(heard.contains(&LiveEvent::Progress(
            Json::parse(r#"{"fraction":0.4,"note":"half way"}"#).unwrap()
        )));
        assert!(heard.contains(&LiveEvent::Partial {
            n: 1,
            value: Json::parse(r#"{"a": 1}"#).unwrap()
        }));
        let text: String = heard
            .iter()
            .filter_map(|event| {
                if let LiveEvent::Log(json) = event {
                    Some(json.get())
                } else {
                    None
                }
            })
            .collect();
        assert!(text.contains("begin") && text.contains("end"), "{text}");
    }

    #[test]
    fn a_wrong_directive_is_a_warning_in_the_log() {
        for (line, words) in [
            ("::progress much", "between 0 and 1"),
            ("::progress 40", "between 0 and 1"),
            ("::progress NaN", "between 0 and 1"),
            ("::progress", "between 0 and 1"),
            ("::partial {", "not JSON"),
            ("::add {}", "the field `module` is missing"),
            ("::add [1]", "is an object"),
            ("::then echo", "not JSON"),
            (
                "::then {\"module\":\"echo\",\"prams\":1}",
                "did you mean `params`",
            ),
            ("::cache soon", "a number of seconds"),
        ] {
            let (mut collector, _) = collector();
            collector.write(format!("{line}\n").as_bytes());
            let (log, _) = collector.finish();
            assert!(
                log.head.starts_with("taskmaster: ") && log.head.contains(words),
                "{line}: {}",
                log.head
            );
        }
    }

    #[test]
    fn a_partial_result_that_is_too_long_is_a_warning_and_not_the_log() {
        for length in [
            PARTIAL_BYTES_MAX - 1,
            PARTIAL_BYTES_MAX,
            LINE_BYTES_MAX,
            9 * LINE_BYTES_MAX,
        ] {
            let (mut collector, heard) = collector();
            let line = format!("::partial \"{}\"\nnext\n", "x".repeat(length - 1));
            for piece in line.as_bytes().chunks(50_000) {
                collector.write(piece);
            }
            let (log, _) = collector.finish();
            let is_told = |it: &LiveEvent| matches!(it, LiveEvent::Partial { .. });
            let told = heard.lock().unwrap().iter().any(is_told);
            assert_eq!(told, length < PARTIAL_BYTES_MAX, "{length}");
            if told {
                assert_eq!(log.head, "next\n");
            } else {
                let begins = log.head.starts_with("taskmaster: `::partial`: ");
                let ends = log
                    .head
                    .ends_with(" bytes, at most 65536 are allowed\nnext\n");
                assert!(begins && ends && log.tail.is_empty(), "{}", log.head);
            }
        }
    }

    #[test]
    fn of_partial_results_that_come_too_fast_the_newest_is_told() {
        let (mut collector, heard) = collector();
        let all = 30_000;
        for n in 1..=all {
            collector.write(format!("::partial {n}\n").as_bytes());
        }
        let (log, _) = collector.finish();
        assert!(log.is_empty(), "{}", log.head);
        let heard = heard.lock().unwrap();
        let told: Vec<u64> = heard
            .iter()
            .filter_map(|event| match event {
                LiveEvent::Partial { n, value } => {
                    assert_eq!(value.get(), n.to_string());
                    Some(*n)
                }
                LiveEvent::Started(_) | LiveEvent::Progress(_) | LiveEvent::Log(_) => None,
            })
            .collect();
        assert!(told.is_sorted_by(|a, b| a < b));
        assert!(told.starts_with(&[1, 2, 3]) && told.last() == Some(&all));
        assert!(told.len() < all as usize, "{}", told.len());
    }

    #[test]
    fn a_long_log_keeps_its_two_ends() {
        let (mut collector, _) = collector();
        for i in 0..20_000 {
            collector.write(format!("line {i} ü\n").as_bytes());
        }
        let (log, bytes) = collector.finish();
        assert!(log.head.starts_with("line 0 ü\n") && log.head.len() <= LOG_PART_BYTES_MAX);
        assert!(log.tail.ends_with("line 19999 ü\n") && log.tail.len() <= LOG_PART_BYTES_MAX);
        assert_eq!(
            log.head.len() as u64 + log.tail.len() as u64 + log.dropped,
            bytes
        );
    }

    #[test]
    fn a_line_without_end_is_bounded_and_bad_bytes_are_replaced() {
        let (mut collector, _) = collector();
        for _ in 0..100 {
            collector.write(&[b'x'; 10_000]);
        }
        assert!(collector.line.len() <= LINE_BYTES_MAX + 10_000);
        collector.write(b"\n\xff\n");
        let (log, _) = collector.finish();
        assert!(log.tail.ends_with("x\n\u{fffd}\n"));
    }

    #[test]
    fn a_flood_is_logged_but_not_all_told() {
        let (mut collector, heard) = collector();
        for _ in 0..1_000 {
            collector.write(&[[b'y'; 9_999].as_slice(), b"\n"].concat());
        }
        collector.finish();
        let told: usize = heard
            .lock()
            .unwrap()
            .iter()
            .map(|event| {
                if let LiveEvent::Log(json) = event {
                    json.get().len()
                } else {
                    0
                }
            })
            .sum();
        assert!(told < 4 * LIVE_BYTES_MAX, "{told}");
    }
}
