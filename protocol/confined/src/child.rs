//! The process that does a piece of work: it takes up its limits, reads its input to the end, and
//! answers.

use crate::{STACK_BYTES, Work};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Read, Write};
use std::process::ExitCode;

/// The first byte of an answer: the rest is the result.
pub(crate) const RESULT: u8 = 0;

/// The first byte of an answer: the rest is why there is no result.
pub(crate) const REFUSED: u8 = 1;

/// The process was started by something else than [`crate::run`].
const NOT_OURS: u8 = 2;

/// The thread that did the work panicked. Rust's own code of a panic.
pub(crate) const PANICKED: u8 = 101;

/// What a process is told by its arguments.
pub(crate) struct Order {
    pub(crate) work: String,
    pub(crate) parent: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) processor_s: u64,
    pub(crate) input_bytes: usize,
    pub(crate) arguments: Vec<String>,
}

impl Order {
    /// The order as arguments of the process.
    pub(crate) fn words(&self) -> Vec<String> {
        let numbers = [
            self.parent.to_string(),
            self.memory_bytes.to_string(),
            self.processor_s.to_string(),
            self.input_bytes.to_string(),
        ];
        let mut words = vec![self.work.clone()];
        words.extend(numbers);
        words.extend(self.arguments.iter().cloned());
        words
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Option<Order> {
        Some(Order {
            work: words.next()?,
            parent: words.next()?.parse().ok()?,
            memory_bytes: words.next()?.parse().ok()?,
            processor_s: words.next()?.parse().ok()?,
            input_bytes: words.next()?.parse().ok()?,
            arguments: words.collect(),
        })
    }
}

/// Does what the arguments say.
pub(crate) fn work(works: &[&Work], arguments: impl Iterator<Item = String>) -> ExitCode {
    let Some(order) = Order::parse(arguments) else {
        return ExitCode::from(NOT_OURS);
    };
    let Some(work) = works.iter().find(|work| work.name == order.work) else {
        return ExitCode::from(NOT_OURS);
    };
    match confine(&order).and_then(|()| answer(work, order)) {
        Ok(code) => code,
        Err(error) => {
            // Where nobody reads it, nobody wants to know.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes up the limits, and gives up what the work does not need.
fn confine(order: &Order) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    leave_before_others(order.parent)?;
    limit(Resource::Core, 0, 0)?;
    // Counts what is private and can be written, so reservations of address space cost nothing.
    limit(Resource::Data, order.memory_bytes, order.memory_bytes)?;
    // The first of the two limits ends the process with a signal of its own, the second with one
    // that somebody else may have sent.
    limit(Resource::Cpu, order.processor_s, order.processor_s + 5)?;
    Ok(())
}

/// This process ends with its parent, and before any other where the system is short of memory. No
/// other process of the same user can look into it.
#[cfg(target_os = "linux")]
fn leave_before_others(parent: u32) -> io::Result<()> {
    use rustix::process::{
        DumpableBehavior, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
    };
    // Where the system does not let it, this process is as likely to be ended as others.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before that.
    let now = getppid().and_then(|id| u32::try_from(id.as_raw_nonzero().get()).ok());
    if now != Some(parent) {
        return Err(io::Error::other("the parent has ended"));
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Sets a limit and the most to which it can be raised, or leaves lower ones that are there already.
fn limit(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum;
    let lower = |wanted: u64| Some(most.map_or(wanted, |most| most.min(wanted)));
    setrlimit(
        resource,
        Rlimit {
            current: lower(current),
            maximum: lower(maximum),
        },
    )?;
    Ok(())
}

fn answer(work: &Work, order: Order) -> io::Result<ExitCode> {
    let mut input = Vec::with_capacity(order.input_bytes);
    io::stdin().lock().read_to_end(&mut input)?;
    let run = work.run;
    let arguments = order.arguments;
    let worker = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run(&arguments, &input))?;
    let Ok(result) = worker.join() else {
        return Ok(ExitCode::from(PANICKED));
    };
    let mut stdout = io::stdout().lock();
    match result {
        Ok(bytes) => {
            stdout.write_all(&[RESULT])?;
            stdout.write_all(&bytes)?;
        }
        Err(sentence) => {
            stdout.write_all(&[REFUSED])?;
            stdout.write_all(sentence.as_bytes())?;
        }
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}
