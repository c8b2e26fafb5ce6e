//! Every limit of the wire and of the task document, with its reason. Limits of time are in the
//! unit of their name.

/// Length of ids, jobs and module names: they are keys in memory and on disk, by the million.
pub const NAME_BYTES_MAX: usize = 128;

/// One WebSocket message. Four times the largest params, so that such a task travels beside others;
/// small enough that a hundred clients who each send one at once cost less than 4 GiB.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Tasks in one `task:add`. A batch is handled in one turn of the master's loop: 4,096 adds take
/// about 10 ms, more would delay everybody else.
pub const BATCH_TASKS_MAX: usize = 4_096;

/// Bytes of params as they stand in a task document; longer ones are put as a blob first, so that
/// no message is long.
pub const PARAMS_INLINE_BYTES_MAX: usize = 8 << 20;

/// Bytes of params that are held in memory while the task is open, and stand in the journal; longer
/// ones become a blob. Writing and syncing such a file costs about as much as so many bytes in the
/// journal, which are written twice.
pub const PARAMS_KEPT_BYTES_MAX: usize = 256 << 10;

/// Bytes of params as a blob. They are whole in the memory of whoever reads them: the master once,
/// when the task is added, and the runner, beside the guest that reads them. Larger input belongs
/// in a file.
pub const PARAMS_BYTES_MAX: usize = 64 << 20;

/// Objects inside each other in params that ask for results: each is remembered until it ends.
pub const PARAMS_DEPTH_MAX: usize = 1_000;

/// Bytes of a result that travels and is stored inline; a larger one, or one that is not text, is a
/// blob.
pub const RESULT_INLINE_BYTES_MAX: usize = 64 << 10;

/// Bytes of one blob that a runner or client may send: bounds what one upload may take from the
/// disk.
pub const BLOB_BYTES_MAX: u64 = 4 << 30;

/// Bytes of one module file: the largest real one known (Ruby's) has 32 MB, Python's 18 MB.
pub const MODULE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of one path in a task's folder: a path of the host below it stays within the 4,096 that a
/// system takes.
pub const PATH_BYTES_MAX: usize = 512;

/// Bytes of one part of a path: what every common file system takes.
pub const PATH_PART_BYTES_MAX: usize = 255;

/// Entries of `inputs`: they stand in the task's record. A folder is one.
pub const INPUTS_MAX: usize = 1_000;

/// Files in one input folder: each is a link that is made for every task: 20 to 40 µs each on ext4.
pub const FOLDER_FILES_MAX: usize = 10_000;

/// Bytes of a folder's listing: the most files, with paths of 300 bytes.
pub const LISTING_BYTES_MAX: usize = 4 << 20;

/// Globs of `outputs`: each is compared with every file of the task's folder.
pub const OUTPUT_GLOBS_MAX: usize = 100;

/// Files that one task may give back: they stand in its record, by name and hash.
pub const OUTPUT_FILES_MAX: usize = 4_096;

/// Bytes of the paths of all files that one task gives back, for the same reason.
pub const OUTPUT_PATHS_BYTES_MAX: usize = 256 << 10;

/// Bytes of a task's log kept from its beginning, and again from its end.
pub const LOG_PART_BYTES_MAX: usize = 32 << 10;

/// Tasks that one attempt may add: they are taken in with its report, in one turn, as a batch of a
/// feeder is.
pub const ADDS_MAX: usize = BATCH_TASKS_MAX;

/// Bytes of their documents: they travel with the report in one message, and are held in the runner
/// until it is acknowledged.
pub const ADDS_BYTES_MAX: usize = 8 << 20;

/// Dependencies of one task: each is touched when the task is added, in one turn.
pub const DEPENDENCIES_MAX: usize = 10_000;

/// Dependencies of all tasks of one batch: each is looked up when the batch is taken, in one turn.
/// A feed's batches, of 1 MiB, cannot have more.
pub const BATCH_DEPENDENCIES_MAX: usize = 300_000;

/// Bytes of `args`, of `env` together, as a system has such a limit too.
pub const ARGS_BYTES_MAX: usize = 128 << 10;

/// Keys of `requires` (labels, env): each distinct set is a class of its own.
pub const REQUIRES_MAX: usize = 32;

/// Names of each kind that a manifest may ask for: they are shown to whoever approves them, who
/// must be able to read them.
pub const CAPABILITIES_MAX: usize = 100;

/// Bytes of a file with secrets.
pub const SECRETS_BYTES_MAX: u64 = 1 << 20;

/// Distinct classes (module and requirements) with open tasks: each new one is compared with every
/// kind of runner.
pub const CLASSES_MAX: usize = 10_000;

/// Slots of one runner, and so of one task: more than any machine has, and small enough to add
/// without overflow.
pub const SLOTS_MAX: u32 = 4_096;

/// Attempts that one runner may hold, running and waiting: bounds its memory whatever the master
/// sends.
pub const CREDITS_MAX: u32 = 8_192;

/// Memory of one attempt, MiB: what a 32-bit module can address.
pub const MEMORY_MB_MAX: u32 = 4_096;

/// Memory of one attempt where neither task nor master says, MiB.
pub const MEMORY_MB_DEFAULT: u32 = 512;

/// Timeout of one attempt where neither task nor master says.
pub const TIMEOUT_MS_DEFAULT: u64 = 3_600_000;

/// The longest timeout, delay and back-off: 366 days. Anything longer is a mistake in the unit.
pub const DURATION_MS_MAX: u64 = 366 * 86_400_000;

/// Tries after which a task whose runners keep dying is failed: it is the likely cause ("poison
/// task").
pub const RUNNER_LOST_MAX: u32 = 5;

/// Lines of a feed held back by the client because their dependency has not been seen yet.
pub const FEED_HELD_MAX: usize = 100_000;

/// Batches that a feeder may have sent without an answer; the master reads no further from a
/// session that has more.
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// `hello` must come within this time after a connection, or it is closed: it costs nothing to open
/// one.
pub const HELLO_MS_MAX: u64 = 5_000;

/// Both sides ping this often, also while they say other things: whoever only listens is heard of
/// by the answers.
pub const PING_MS: u64 = 3_000;

/// A connection from which nothing has come for this long is dead (three pings missed, noticed
/// within 10 s).
pub const SILENT_MS_MAX: u64 = 9_500;

/// How long a runner whose socket closed may take to come back before its attempts are run
/// elsewhere too.
pub const RUNNER_GRACE_MS: u64 = 1_000;

/// How long a restarted master waits for the runners it knew before it sends anything.
pub const ROSTER_WAIT_MS: u64 = 2_000;

/// How long a job stays held when its feeder's link drops.
pub const JOB_HOLD_GRACE_MS: u64 = 60_000;

/// Beyond its free slots a runner is sent what it will start within this time, by measured work.
pub const PREFETCH_US: u64 = 5_000;

/// Attempts that have waited on a runner this long without one of its slots becoming free are taken
/// back.
pub const RECALL_AFTER_MS: u64 = 50;

/// Rows in one page of a list; a longer list is fetched page by page.
pub const PAGE_ROWS_MAX: usize = 1_000;
