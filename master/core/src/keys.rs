//! The numbers by which the core names what it holds. They mean nothing outside of one master's
//! life.

/// Names a task that the core holds. The engine chooses a free number, and may use the number again
/// after [`Effect::Forget`](crate::Effect::Forget).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(pub u32);

/// Names a runner's connection. A number is never used twice in a master's life, and a later
/// connection has a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerKey(pub u64);

/// Names a job that the core holds. A number is used again after its job was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey(pub(crate) u32);

/// Names a class: a module together with requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassKey(pub(crate) u32);

/// Names a run that equal tasks share. The engine chooses it, and uses no number twice in a master's
/// life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedRunKey(pub u64);

/// Names a group: the runners that serve the same classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey(pub u32);
