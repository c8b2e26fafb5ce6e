//! Cases in a small language, which tell the core something and ask it questions. Each file in
//! `cases/` holds several. A case begins with `# ` and a sentence that is its name. Its lines tell
//! something, and under each line, indented, stands what the core answered. `UPDATE=1` writes the
//! answers anew: read the difference before you believe it.
//!
//! | line | what it tells |
//! |---|---|
//! | `add a after=b,c:failed prio=5 job=x module=m slots=2 label=k:v env=X os=l arch=a mem=64 memory=64 delay=1s at=5s retries=max/backoff/factor/longest on=trap jitter` | a task is added; `add a*9` adds `a0` to `a8`; `at` is by the wall clock, counted from the start of the case |
//! | `reopen a` · `cancel a` · `cancel-job j` · `set a prio=1 delay=2s` | what clients ask for |
//! | `runner r slots=2 credits=8 process=2 held=a@1.1 …` · `late r` | a runner joined or came back; a runner joined late over a connection that it has replaced |
//! | `ask r credits=1 drain` · `heard r` · `answered r` · `cut r` | about the newest connection of a runner; `r'` is the connection before that |
//! | `done r a 1.1 us=900` · `error r a exit=1` · `error r a kind=trap chance=0` · `return r a` | a report of an attempt; without a number, of the newest one that was sent; without a run time, of one that took 10 ms |
//! | `continue r a 1.1 after=b module=n …` | the attempt ended, and its task goes on as another one; the options are those of `add` |
//! | `hold j by` · `release j by` · `gone by` · `pause j` · `resume j` · `pause-done j` (the job is paused while the core does not hold it) · `open m` · `close m` · `needs m secret=K folder=d http=h` (`runner` has the options `secret` and `folder`, too; a runner with `old=yes` offers nothing) | about jobs and modules |
//! | `end` · `tick 1s` · `wall 1s` · `back 1s` · `run` | the turn ends; time passes and the turn ends; only the wall clock goes on; both clocks run backwards; turns end until no work is left over |
//! | `restart` | the master dies, and another one starts |
//! | `state a b` · `why a` · `job j` · `next` · `facts r` | questions |

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "script/answers.rs"]
mod answers;
#[path = "script/diagram.rs"]
mod diagram;
mod harness;
#[path = "script/line.rs"]
mod line;
#[path = "script/play.rs"]
mod play;

use play::{Outcome, Play};
use std::fmt::Write as _;
use std::path::Path;

/// Plays a case and returns it with the core's answers under each line.
fn play(script: &str) -> String {
    let mut play = Play::new();
    let mut played = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        let _ = writeln!(played, "{line}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let answers = match play.line(line) {
            Outcome::Effects(effects) => play.show(&effects),
            Outcome::Answer(answer) => vec![answer],
        };
        if !answers.is_empty() {
            let _ = writeln!(played, "    {}", answers.join("; "));
        }
    }
    let broken = play.world.core.check();
    assert!(broken.is_empty(), "{broken:#?}");
    played
}

/// Plays a case and compares what the core answered.
fn check(script: &str, expected: &str) {
    let played = play(script);
    if played == expected {
        return;
    }
    let title = script.lines().next().unwrap_or_default();
    let (line, got) = played
        .lines()
        .chain([""])
        .enumerate()
        .find(|(i, line)| expected.lines().nth(*i) != Some(line))
        .unwrap_or_default();
    let wanted = expected.lines().nth(line).unwrap_or_default();
    panic!("{title}\nline {line}: expected\n{wanted}\ngot\n{got}\n\nthe whole:\n{played}");
}

/// Plays every case of a file.
fn check_file(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut cases: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("# ") || cases.is_empty() {
            cases.push(String::new());
        }
        if let Some(case) = cases.last_mut() {
            let _ = writeln!(case, "{line}");
        }
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the switch of a test, not of the core"
    )]
    if std::env::var("UPDATE").is_ok() {
        let played: String = cases.iter().map(|case| play(case)).collect();
        std::fs::write(&path, played).expect("the cases are written");
        return;
    }
    cases.iter().for_each(|case| check(case, case));
}

macro_rules! files {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            check_file(concat!(stringify!($name), ".txt"));
        }
    )* };
}

files! {
    states dependencies retries continues cancels runners restarts fairness slots classes capabilities prefetch jobs clocks memory priorities sharing
}
