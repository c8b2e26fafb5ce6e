//! Starts the process that does a piece of work, and reads its end.

use crate::child::{Order, PANICKED, REFUSED, RESULT};
use crate::failure::{Excess, Failure};
use crate::{COMMAND, ProcessLimits, Work};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// The file of this program, also where it was replaced or removed meanwhile.
const OWN_FILE: &str = "/proc/self/exe";

/// The allocator of this program would take a gibibyte at its start, which the system counts before
/// anything of it is used.
const SETTINGS: [(&str, &str); 1] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0")];

/// Bytes of what a process complains of that are read. Only its last words are used.
const COMPLAINTS_BYTES_MAX: u64 = 64 << 10;

/// Characters of such a complaint that people are shown.
const SHOWN_MAX: usize = 300;

/// What Rust's own code writes before it gives up, where no memory is to be had.
const NO_MEMORY: &str = "memory allocation of";

/// What the system says where it has no more memory for a process, as in a result of `mmap`.
const NO_MEMORY_ERROR: &str = "os error 12";

/// What Rust's own code writes before it gives up, where a stack is full.
const NO_STACK: &str = "has overflowed its stack";

/// How often the end of a process is looked for that has answered already.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// What a process said, and how it ended.
struct Ended {
    output: Vec<u8>,
    complaints: String,
    status: ExitStatus,
    /// The limit for which this process ended it.
    stopped_for: Option<Excess>,
}

/// Does `work` in a process of its own.
pub(crate) fn run(
    work: &Work,
    arguments: &[String],
    input: &[u8],
    limits: &ProcessLimits,
) -> Result<Vec<u8>, Failure> {
    let order = Order {
        work: work.name.to_owned(),
        parent: std::process::id(),
        memory_bytes: limits.memory_bytes,
        processor_s: limits.processor_s,
        input_bytes: input.len(),
        arguments: arguments.to_vec(),
    };
    let not_started = |error: std::io::Error| Failure::NotStarted(error.to_string());
    let child = start(&order).map_err(not_started)?;
    let ended = exchange(child, input, limits).map_err(not_started)?;
    judge(ended, limits)
}

fn start(order: &Order) -> std::io::Result<Child> {
    Command::new(own_file()?)
        .arg0("taskmaster")
        .arg(COMMAND)
        .args(order.words())
        // Variables may hold secrets.
        .env_clear()
        .envs(SETTINGS)
        // Ctrl-C on a terminal is for this process, which decides what ends.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn own_file() -> std::io::Result<OsString> {
    if Path::new(OWN_FILE).exists() {
        return Ok(OWN_FILE.into());
    }
    std::env::current_exe().map(OsString::from)
}

/// Passes the input, and takes what comes back. The process is gone when this returns.
fn exchange(mut child: Child, input: &[u8], limits: &ProcessLimits) -> std::io::Result<Ended> {
    let deadline = Instant::now() + limits.clock();
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    std::thread::scope(|scope| {
        // A process that ends early reads no further, and then there is nobody to write to.
        scope.spawn(move || stdin.map(|mut stdin| drop(stdin.write_all(input))));
        let complaints = scope.spawn(move || stderr.map_or_else(String::new, last_words));
        let (answered, answer) = channel();
        scope.spawn(move || read_answer(stdout, limits.output_bytes, answered));

        let patience = deadline.saturating_duration_since(Instant::now());
        let clock = Some(Excess::Clock(limits.clock().as_secs()));
        let (output, mut stopped_for) = match answer.recv_timeout(patience) {
            Ok(output) if output.len() > limits.output_bytes => {
                (Vec::new(), Some(Excess::Output(limits.output_bytes)))
            }
            Ok(output) => (output, None),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => (Vec::new(), clock),
        };
        if stopped_for.is_none() && !ends_by(&mut child, deadline)? {
            stopped_for = clock;
        }
        if stopped_for.is_some() {
            child.kill()?;
        }
        Ok(Ended {
            output,
            status: child.wait()?,
            complaints: complaints.join().unwrap_or_default(),
            stopped_for,
        })
    })
}

/// Reads one byte more than is allowed, so that whoever hears of it sees the excess.
fn read_answer(stdout: Option<ChildStdout>, bytes_max: usize, answered: Sender<Vec<u8>>) {
    let mut output = Vec::new();
    if let Some(stdout) = stdout {
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        // What was read before an error is no whole answer, which the end of the process tells.
        let _ = stdout.take(most.saturating_add(1)).read_to_end(&mut output);
    }
    // Nobody hears of it who has lost patience.
    let _ = answered.send(output);
}

fn last_words(stderr: std::process::ChildStderr) -> String {
    let mut words = Vec::new();
    let mut stderr = stderr;
    let _ = (&mut stderr)
        .take(COMPLAINTS_BYTES_MAX)
        .read_to_end(&mut words);
    // A process that goes on complaining must not wait for a reader.
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    String::from_utf8_lossy(&words).into_owned()
}

/// Waits for the end of a process that has nothing more to say.
fn ends_by(child: &mut Child, deadline: Instant) -> std::io::Result<bool> {
    let mut pause = LOOK_AGAIN;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(true)
}

fn judge(ended: Ended, limits: &ProcessLimits) -> Result<Vec<u8>, Failure> {
    let Ended {
        mut output,
        complaints,
        status,
        stopped_for,
    } = ended;
    if let Some(excess) = stopped_for {
        return Err(Failure::Exceeded(excess));
    }
    let memory = Failure::Exceeded(Excess::Memory(limits.memory_bytes));
    if let Some(signal) = status.signal() {
        return Err(match signal {
            signal if signal == Signal::XCPU.as_raw() => {
                Failure::Exceeded(Excess::Processor(limits.processor_s))
            }
            _ if complaints.contains(NO_MEMORY) => memory,
            _ if complaints.contains(NO_STACK) => Failure::Exceeded(Excess::Stack),
            // A stack of a thread that does not know of its end.
            signal if signal == Signal::SEGV.as_raw() || signal == Signal::BUS.as_raw() => {
                Failure::Exceeded(Excess::Stack)
            }
            signal if signal == Signal::ABORT.as_raw() => Failure::Broken(shown(&complaints)),
            signal => Failure::Killed(signal),
        });
    }
    match (status.code(), output.first().copied()) {
        (Some(0), Some(RESULT)) => {
            output.remove(0);
            Ok(output)
        }
        (Some(0), Some(REFUSED)) => {
            let sentence = String::from_utf8_lossy(output.get(1..).unwrap_or_default());
            if sentence.contains(NO_MEMORY_ERROR) {
                return Err(memory);
            }
            Err(Failure::Refused(sentence.into_owned()))
        }
        (Some(code), _) if code == i32::from(PANICKED) && complaints.contains(NO_MEMORY_ERROR) => {
            Err(memory)
        }
        (Some(code), _) if code == i32::from(PANICKED) => Err(Failure::Broken(shown(&complaints))),
        (code, _) => Err(Failure::NotStarted(format!(
            "it ended with {code:?}: {}",
            shown(&complaints)
        ))),
    }
}

/// The last line of a complaint, as far as people read.
fn shown(complaints: &str) -> String {
    let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with("note:");
    let last = complaints
        .lines()
        .rev()
        .find(is_said)
        .unwrap_or("it said nothing");
    last.trim().chars().take(SHOWN_MAX).collect()
}
