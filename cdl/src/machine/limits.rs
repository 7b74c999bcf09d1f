//! Bounds of one execution.
//!
//! They are part of the machine's meaning: a history that ran into one must
//! run into it again when replayed. Changing one asks for a new
//! [`SEMANTICS`](super::SEMANTICS).

/// Most events of a history, those of compensations apart. Recovery replays them and a page shows them; a
/// workflow that needs more should hand over to a fresh execution.
pub const MAX_EVENTS: u64 = 25_000;

/// Most completed steps that wait for whether they have to be compensated: as
/// many as a Map state has items.
pub const MAX_COMPENSATIONS: usize = MAX_ITEMS as usize;

/// Events that a history may have beyond [`MAX_EVENTS`] to compensate: as many
/// again, so that all that was done can be undone, with an attempt or two.
pub const COMPENSATION_EVENTS: u64 = MAX_EVENTS;

/// Most failed compensations that are named in the details of a failure; the
/// others are counted.
pub const MAX_NAMED_FAILURES: usize = 100;

/// Most steps that one event may cause: each state entered costs one, an
/// expression one for every [`EXPRESSION_STEPS`] of its own, and data one for every
/// [`STEP_BYTES`] copied, written, measured or read. A shard handles one event
/// at a time, so this bounds for how long a workflow can keep its neighbours
/// waiting (some tens of milliseconds).
pub const MAX_STEPS: u64 = 4_096;

/// Steps of an expression that take as long as entering a state, about.
pub const EXPRESSION_STEPS: u64 = 64;

/// Bytes of data that take as long as entering a state, about. One event moves
/// at most 16 MiB: four contexts of the largest size.
pub const STEP_BYTES: u64 = 4_096;

/// Most JSON text in the context, in bytes. The context is written out for every
/// snapshot and for each task without `parameters`; at 4 MiB that takes
/// milliseconds. Larger data belongs outside, with its name in the context.
pub const MAX_CONTEXT_BYTES: u64 = 4 * 1024 * 1024;

/// Most JSON text that frames hold as task inputs, branch outputs, and items
/// and outputs of Map states, in bytes: eight whole contexts.
pub const MAX_HELD_BYTES: u64 = 8 * MAX_CONTEXT_BYTES;

/// Frames that hold up to this size are not counted against [`MAX_HELD_BYTES`], so that
/// usually nothing is summed up: [`MAX_FRAMES`] of them make one such limit.
pub const SMALL_BYTES: u64 = MAX_HELD_BYTES / MAX_FRAMES as u64;

/// Most frames of an execution at a time. Each may hold one outstanding task
/// and one timer.
pub const MAX_FRAMES: usize = 1_024;

/// Most branches of one Parallel state. More, or a number that depends on
/// data, is what Map is for.
pub const MAX_BRANCHES: usize = 256;

/// Most items of a Map state. Each takes at least an event of [`MAX_EVENTS`],
/// and each waits in every snapshot; what has more belongs into executions of
/// its own.
pub const MAX_ITEMS: u32 = 10_000;

/// Most iterations of a Map state at a time: as many as branches.
pub const MAX_CONCURRENCY: u32 = 256;

/// Iterations at a time of a Map state that does not say. A Map in a Map, each
/// iteration of which has a Parallel with two branches, fits [`MAX_FRAMES`].
pub const DEFAULT_CONCURRENCY: u32 = 16;

/// Frames up to which a Map state opens more than one iteration: half of them,
/// so that each of those may open one of its own.
pub const MAP_FRAMES: usize = MAX_FRAMES / 2;

/// Most signals that wait for an `EventTask`; who sends more than are asked for
/// has to be told.
pub const MAX_SIGNALS: usize = 100;

/// Most bytes of JSON text that they bring, as much as a context.
pub const MAX_INBOX_BYTES: u64 = MAX_CONTEXT_BYTES;

/// Ids of signals that are known to have come: a sender that tries again does
/// so before a hundred others have.
pub const SEEN_SIGNALS: usize = 100;

/// Answers of people that are known to have come, for the same reason.
pub const ANSWERED_TASKS: usize = 100;

/// Deepest nesting of frames: several times what a person can follow.
pub const MAX_DEPTH: usize = 16;

/// Most executions above one, a child of a child and so on: as deep as frames.
/// A workflow that starts itself without end fails here, and so does whoever
/// waits for it, before its tenant's executions are used up.
pub const MAX_NESTING: u32 = 16;

/// Longest wait, in milliseconds: ten years, as for durations in CDL. What
/// exceeds it is a mistake in units.
pub const MAX_WAIT_MS: u64 = 3_650 * 24 * 60 * 60 * 1_000;
