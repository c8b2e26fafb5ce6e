//! What a guest says while it runs. Of stderr, lines that are directives are obeyed, the rest is
//! the task's log; a component says the same by calling functions.

use super::directive::{self, Directive};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmaster_protocol::limits::LOG_PART_BYTES_MAX;
use taskmaster_protocol::message::{Attempt, Log};
use taskmaster_protocol::{Json, TaskId, limits};

/// A line longer than this is no directive, and is logged in pieces: what a guest can make us keep
/// is bounded. As long as the largest partial result that is worth a line.
const LINE_BYTES_MAX: usize = 256 << 10;

/// Live text is told when so much has gathered,
const LIVE_BYTES: usize = 8 << 10;

/// or when it has waited so long: people read it, programs wait for the result.
const LIVE_EVERY: Duration = Duration::from_millis(100);

/// Bytes that one attempt may tell live in [`LIVE_EVERY`]; beyond that watchers miss some, and read
/// the log instead.
const LIVE_BYTES_MAX: usize = 256 << 10;

/// Something a running task says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Utterance {
    /// Guest code started, µs since 1970.
    Started(i64),
    /// `{"fraction":0.4,"note":"…"}`.
    Progress(Json),
    /// A partial result.
    Partial(Json),
    /// `{"text":"…"}`: lines of the log.
    Log(Json),
}

/// Hears what attempts say while they run. Called on the thread that runs the task; must not wait.
pub type Listener = Arc<dyn Fn(&Attempt, Utterance) + Send + Sync>;

/// One guest's stderr.
pub struct Collector {
    attempt: Attempt,
    listener: Listener,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Whether the beginning of that line has been logged already, because it is long.
    torn: bool,
    log: Kept,
    bytes: u64,
    live: String,
    progress: Option<Json>,
    window: Option<Instant>,
    told_bytes: usize,
    wishes: Wishes,
}

/// What a guest wants of the master when it has ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Task documents to add, each with an id.
    pub adds: Vec<Json>,
    /// Go on as this task.
    pub then: Option<Json>,
    /// Why they cannot be told: there are too many. The attempt fails of it, as nothing may be lost
    /// in silence.
    pub excess: Option<String>,
    bytes: usize,
}

impl Wishes {
    fn add(&mut self, parent: &TaskId, task: &Json) -> Result<TaskId, String> {
        let (id, task) = directive::child(parent, self.adds.len() + 1, task)?;
        self.bytes += task.get().len();
        if self.adds.len() >= limits::ADDS_MAX {
            self.excess = Some(format!("it added more than {} tasks", limits::ADDS_MAX));
        } else if self.bytes > limits::ADDS_BYTES_MAX {
            self.excess = Some(format!(
                "the tasks that it added have more than {} bytes",
                limits::ADDS_BYTES_MAX
            ));
        }
        match &self.excess {
            Some(excess) => Err(excess.clone()),
            None => {
                self.adds.push(task);
                Ok(id)
            }
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("attempt", &self.attempt)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Collector {
    /// An empty log of `attempt`.
    pub fn new(attempt: Attempt, listener: Listener) -> Collector {
        Collector {
            attempt,
            listener,
            line: Vec::new(),
            torn: false,
            log: Kept::default(),
            bytes: 0,
            live: String::new(),
            progress: None,
            window: None,
            told_bytes: 0,
            wishes: Wishes::default(),
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
                self.take_held_line();
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LINE_BYTES_MAX {
            let piece = std::mem::take(&mut self.line);
            self.append(&String::from_utf8_lossy(&piece));
            self.torn = true;
        }
        if self.live.len() >= LIVE_BYTES {
            self.flush_live(None);
        }
    }

    /// Tells the listener now.
    pub fn say(&self, utterance: Utterance) {
        (self.listener)(&self.attempt, utterance);
    }

    /// Tells what waits: all of it, or only if at `now` it has waited long enough.
    pub fn flush_live(&mut self, now: Option<Instant>) {
        if self.live.is_empty() && self.progress.is_none() {
            return;
        }
        let at = now.unwrap_or_else(Instant::now);
        let new_window = self
            .window
            .is_none_or(|begin| at.duration_since(begin) >= LIVE_EVERY);
        if now.is_some() && !new_window {
            return;
        }
        if new_window {
            self.window = Some(at);
            self.told_bytes = 0;
        }
        if let Some(progress) = self.progress.take() {
            self.say(Utterance::Progress(progress));
        }
        let live = std::mem::take(&mut self.live);
        if !live.is_empty() && self.may_tell(live.len()) {
            self.say(Utterance::Log(Json::of(
                &serde_json::json!({ "text": live }),
            )));
        }
    }

    /// Ends the log and takes it.
    pub fn finish(&mut self) -> (Log, u64) {
        if !self.line.is_empty() {
            self.take_held_line();
        }
        self.flush_live(None);
        (std::mem::take(&mut self.log).into_log(), self.bytes)
    }

    /// What it wants of the master.
    pub fn take_wishes(&mut self) -> Wishes {
        std::mem::take(&mut self.wishes)
    }

    /// A line for the log that is no directive, whatever it says.
    pub fn say_line(&mut self, text: &str) {
        self.bytes += text.len() as u64 + 1;
        self.log_line(text);
    }

    /// Does what a directive says; of a task that it adds, the id.
    pub fn obey(&mut self, directive: Directive) -> Result<Option<TaskId>, String> {
        match directive {
            Directive::Progress(progress) => {
                // Only the newest counts.
                self.progress = Some(progress);
                if self.window.is_none() {
                    self.flush_live(None);
                }
            }
            Directive::Partial(partial) => {
                if !self.may_tell(partial.get().len()) {
                    return Err("`::partial` results come too fast, one was not passed on".into());
                }
                self.say(Utterance::Partial(partial));
            }
            Directive::Add(task) => return self.wishes.add(&self.attempt.id, &task).map(Some),
            // The last one counts, as with `exec`.
            Directive::Then(task) => self.wishes.then = Some(task),
            // Answers are not kept yet: what was computed is computed again.
            Directive::Cache(_) => {}
        }
        Ok(None)
    }

    /// The same for what has nobody to answer to: a mistake is a warning in the log.
    pub fn try_obey(&mut self, directive: Result<Directive, String>) {
        if let Err(warning) = directive.and_then(|directive| self.obey(directive)) {
            self.log_line(&format!("taskmaster: {warning}"));
        }
    }

    fn may_tell(&mut self, bytes: usize) -> bool {
        self.told_bytes += bytes;
        self.told_bytes <= LIVE_BYTES_MAX
    }

    fn take_held_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.torn) {
            self.append(&String::from_utf8_lossy(&line));
            self.append("\n");
        } else {
            self.take_line(&line);
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        match Directive::parse(line.trim_end_matches('\r')) {
            None => self.log_line(&line),
            Some(directive) => self.try_obey(directive),
        }
    }

    fn log_line(&mut self, line: &str) {
        self.append(line);
        self.append("\n");
    }

    fn append(&mut self, text: &str) {
        self.log.append(text);
        // More than can be told is not gathered either.
        if self.live.len() < LIVE_BYTES_MAX {
            self.live.push_str(text);
        }
    }
}

/// The beginning and the end of a log.
#[derive(Debug, Default)]
struct Kept {
    head: String,
    head_full: bool,
    /// Up to twice what is kept, so that it is moved once per 32 KiB and not once per line.
    tail: String,
    dropped: u64,
}

impl Kept {
    fn append(&mut self, mut text: &str) {
        if !self.head_full {
            let room = LOG_PART_BYTES_MAX - self.head.len();
            let (fits, rest) = text.split_at(text.floor_char_boundary(room));
            self.head.push_str(fits);
            self.head_full = !rest.is_empty();
            text = rest;
        }
        self.tail.push_str(text);
        if self.tail.len() > 2 * LOG_PART_BYTES_MAX {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let extra = self.tail.len().saturating_sub(LOG_PART_BYTES_MAX);
        let cut = self.tail.ceil_char_boundary(extra);
        self.tail.drain(..cut);
        self.dropped += cut as u64;
    }

    fn into_log(mut self) -> Log {
        self.trim();
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
    use std::sync::Mutex;
    use taskmaster_protocol::{AttemptId, TaskId};

    fn collector() -> (Collector, Arc<Mutex<Vec<Utterance>>>) {
        let heard: Arc<Mutex<Vec<Utterance>>> = Arc::default();
        let sink = heard.clone();
        let attempt = Attempt {
            id: TaskId::new("t").unwrap(),
            attempt: AttemptId { epoch: 1, n: 1 },
        };
        (
            Collector::new(
                attempt,
                Arc::new(move |_, utterance| sink.lock().unwrap().push(utterance)),
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
        assert!(heard.contains(&Utterance::Progress(
            Json::parse(r#"{"fraction":0.4,"note":"half way"}"#).unwrap()
        )));
        assert!(heard.contains(&Utterance::Partial(Json::parse(r#"{"a": 1}"#).unwrap())));
        let text: String = heard
            .iter()
            .filter_map(|u| {
                if let Utterance::Log(json) = u {
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
            .map(|u| {
                if let Utterance::Log(json) = u {
                    json.get().len()
                } else {
                    0
                }
            })
            .sum();
        assert!(told < 4 * LIVE_BYTES_MAX, "{told}");
    }
}
