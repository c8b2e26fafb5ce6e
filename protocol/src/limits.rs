//! Every limit of the wire and of the task document, with the reason for its value. The unit of a
//! limit is in its name; without one it counts things.

/// Bytes of an id, a job or a module's name. Names are keys in memory and on disk, by the million.
pub const NAME_BYTES_MAX: usize = 128;

/// Bytes of one WebSocket message: four times the largest inline params, so that a task with such
/// params travels beside others; and so small that a hundred messages at once take less than 4 GiB.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Bytes of the head of a request over HTTP. Nobody knows its sender yet, and the heads of our own
/// clients have less than 1 KiB.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes of a `hello`. Nobody knows its sender yet, and a runner's labels and modules are kept as
/// long as it is connected.
pub const HELLO_BYTES_MAX: usize = 64 << 10;

/// Connections whose peers have shown neither a token nor a role. With the bytes of each, all of
/// them take less than 256 MiB.
pub const STRANGERS_MAX: usize = 1_024;

/// Tasks in one `task:add`. A batch is handled in one turn of the master's loop. 4,096 adds take
/// about 10 ms; more would delay everything else.
pub const BATCH_TASKS_MAX: usize = 4_096;

/// Bytes of params in a task document. Longer params are put as a blob first, so that no message is
/// long.
pub const PARAMS_INLINE_BYTES_MAX: usize = 8 << 20;

/// Bytes of params that stay in memory while the task is open, and stand in the journal. Longer
/// params become a blob. To write and sync a blob costs about as much as this many bytes in the
/// journal, which are written twice.
pub const PARAMS_KEPT_BYTES_MAX: usize = 256 << 10;

/// Bytes of params that are a blob. The master has them in memory once, when the task is added, and
/// the runner has them in memory beside the guest that reads them. Larger input belongs in a file.
pub const PARAMS_BYTES_MAX: usize = 64 << 20;

/// Objects inside each other in params with placeholders: the reader remembers each until it ends.
pub const PARAMS_DEPTH_MAX: usize = 1_000;

/// Bytes of a result that travels and is stored inline. A larger result, or one that is not text,
/// is a blob.
pub const RESULT_INLINE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a partial result, as many as of a result that travels inline. The newest one of each open
/// task is in the master's memory.
pub const PARTIAL_BYTES_MAX: usize = RESULT_INLINE_BYTES_MAX;

/// Bytes of one blob that a runner or client may send. It bounds what one upload takes from the
/// disk.
pub const BLOB_BYTES_MAX: u64 = 4 << 30;

/// Bytes of one module file. The largest known one (Ruby) has 32 MB, Python has 18 MB.
pub const MODULE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of one path in a task's folder. With the folder before it, a path stays within the 4,096
/// bytes that a system takes.
pub const PATH_BYTES_MAX: usize = 512;

/// Bytes of one part of a path, which every common file system takes.
pub const PATH_PART_BYTES_MAX: usize = 255;

/// Entries of `inputs`, which stand in the task's record. A folder counts once.
pub const INPUTS_MAX: usize = 1_000;

/// Files in one input folder. A link is made for each file and each task, in 20 to 40 µs on ext4.
pub const FOLDER_FILES_MAX: usize = 10_000;

/// Bytes of a folder's listing, enough for the most files with paths of 300 bytes.
pub const LISTING_BYTES_MAX: usize = 4 << 20;

/// Patterns in `outputs`. Each is compared with every file of the task's folder.
pub const OUTPUT_GLOBS_MAX: usize = 100;

/// Files that one task may give back. They stand in its record, by path and hash.
pub const OUTPUT_FILES_MAX: usize = 4_096;

/// Bytes of the paths of all files that one task gives back, which stand in its record.
pub const OUTPUT_PATHS_BYTES_MAX: usize = 256 << 10;

/// Results that one question may ask for. With the longest inline results the answer has half the
/// bytes of a message.
pub const RESULTS_MAX: usize = 256;

/// Tasks that one message may cancel, open again or follow. A longer list goes in several messages.
pub const IDS_MAX: usize = 4_096;

/// Kept answers that one message may drop. More go in several messages, so that no turn of the
/// master is long.
pub const KEYS_DROPPED_MAX: usize = 1_000;

/// Bytes of one page of a list: a thousand tasks with their results and errors, or a thousand runners
/// with their labels, may have more than a message. A page ends with the row that reaches this.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// Bytes of a task's log that are kept from its beginning, and as many from its end.
pub const LOG_PART_BYTES_MAX: usize = 32 << 10;

/// Tasks that one attempt may add. They are added with its report, in one turn, as a batch is.
pub const ADDS_MAX: usize = BATCH_TASKS_MAX;

/// Bytes of the documents that one attempt adds. They travel with the report in one message, and
/// the runner keeps them until the report is acknowledged.
pub const ADDS_BYTES_MAX: usize = 8 << 20;

/// Tasks one after the other, each added by the one before. A task that adds its successor once an hour
/// gets there in eleven years, one that does so without end within minutes.
pub const ADDED_DEPTH_MAX: u32 = 100_000;

/// Open tasks that descend from one task, which a feeder had added. It bounds what one mistake may
/// queue beside the work of others.
pub const ADDED_OPEN_MAX: usize = 1_000_000;

/// Dependencies of one task. All are looked up in the turn in which the task is added.
pub const DEPENDENCIES_MAX: usize = 10_000;

/// Dependencies of all tasks of one batch. All are looked up in the turn in which the batch is
/// added. The batches of a feed have 1 MiB and cannot name more.
pub const BATCH_DEPENDENCIES_MAX: usize = 300_000;

/// Jobs whose results one task may ask for. Each is looked up in the turn in which the task is added.
pub const RESULT_JOBS_MAX: usize = 16;

/// Tasks of the jobs whose results one task asks for. Their ids travel with the attempt, and with the
/// longest ids they have half the bytes of a message.
pub const JOB_RESULTS_MAX: usize = 100_000;

/// Bytes of `args`, and of `env`, together. Operating systems have such a limit, too.
pub const ARGS_BYTES_MAX: usize = 128 << 10;

/// Names in `requires.env`, and labels in `requires.labels`. Each distinct set is a class of its
/// own.
pub const REQUIRES_MAX: usize = 32;

/// Names of each kind that a manifest may ask for. The person who approves them must be able to
/// read them all.
pub const CAPABILITIES_MAX: usize = 100;

/// Bytes of a file with secrets.
pub const SECRETS_BYTES_MAX: u64 = 1 << 20;

/// Classes (module and requirements) with open tasks. Each new class is compared with every kind of
/// runner.
pub const CLASSES_MAX: usize = 10_000;

/// Slots of one runner, and so of one task: more than any machine has, and few enough to add
/// without overflow.
pub const SLOTS_MAX: u32 = 4_096;

/// Attempts that one runner may hold, running and waiting. It bounds the memory of the runner,
/// whatever the master sends.
pub const CREDITS_MAX: u32 = 8_192;

/// The largest memory of one attempt, in MiB: what a 32-bit module can address.
pub const MEMORY_MB_MAX: u32 = 4_096;

/// The memory of one attempt in MiB, where neither task nor master says.
pub const MEMORY_MB_DEFAULT: u32 = 512;

/// The timeout of one attempt, where neither task nor master says: an hour.
pub const TIMEOUT_MS_DEFAULT: u64 = 3_600_000;

/// The longest timeout, delay and back-off: 366 days. A longer one is a mistake in the unit.
pub const DURATION_MS_MAX: u64 = 366 * 86_400_000;

/// Attempts after which a task whose runners keep dying fails, because the task is the likely cause
/// (a "poison task").
pub const RUNNER_LOST_MAX: u32 = 5;

/// Lines of a feed that the client holds back, because it has not read their dependencies yet.
pub const FEED_HELD_MAX: usize = 100_000;

/// Batches of a session that are not answered yet. The master reads no further from a session that
/// has reached this number.
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// The time within which `hello` must come, or the connection is closed. Opening connections costs
/// a stranger nothing.
pub const HELLO_MS_MAX: u64 = 5_000;

/// How often both sides ping, also while they send messages. A side that only listens is heard of
/// by its answers.
pub const PING_MS: u64 = 3_000;

/// The silence after which a connection is dead: three missed pings, noticed within 10 s.
pub const SILENT_MS_MAX: u64 = 9_500;

/// The time for which a peer may leave a body half sent, or what is written to it untaken.
pub const STALLED_MS_MAX: u64 = 60_000;

/// The time in which a runner whose connection closed may come back, before its attempts run
/// elsewhere, too.
pub const RUNNER_GRACE_MS: u64 = 1_000;

/// The time for which a restarted master waits for the runners that it knew, before it assigns
/// anything.
pub const ROSTER_WAIT_MS: u64 = 2_000;

/// The time for which a job stays held after the connection of its holder has dropped.
pub const JOB_HOLD_GRACE_MS: u64 = 60_000;

/// A runner is sent more attempts than it has free slots for, as many as it will start within this
/// time, by the measured run times.
pub const PREFETCH_US: u64 = 5_000;

/// The time after which attempts that wait on a runner are recalled, if no slot of it becomes free.
pub const RECALL_AFTER_MS: u64 = 50;

/// Bytes that kept answers and their blobs have together, unless the master is told otherwise: 1 GiB,
/// which a small disk can spare.
pub const ANSWERS_BYTES_DEFAULT: u64 = 1 << 30;

/// Seconds for which an answer may be kept: 366 days, like all durations.
pub const CACHE_TTL_S_MAX: u64 = DURATION_MS_MAX / 1_000;

/// Rows in one page of a list. A longer list is fetched page by page.
pub const PAGE_ROWS_MAX: usize = 1_000;
