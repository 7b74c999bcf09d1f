//! The Cascade Definition Language and the machine that runs it.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async. A front
//! end turns a file into a [`program::Program`]; [`apply`] moves an [`Execution`] of it
//! by one [`Event`]. Replaying a history through [`apply`] rebuilds the exact
//! execution, which is what recovery, `cascade replay`, the simulator and the
//! tests all rely on.

pub mod asl;
pub mod coverage;
pub mod csv;
pub mod diagnostic;
pub mod errors;
mod event;
mod execution;
pub mod expression;
mod front;
mod ids;
mod import;
mod inbox;
mod json;
mod machine;
mod placing;
pub mod plan;
pub mod program;
pub mod schedule;
pub mod schema;
pub mod spread;
pub mod tags;

pub use diagnostic::{Code, Diagnostic, Severity};
pub use event::{ActivityFailure, Callback, Event, EventKind, Parent, Receipt};
pub use execution::{
    Asked, Asking, Borne, Completed, Done, Execution, Failure, Frame, FrameId, Iteration, Mapping,
    Paused, Saga, Spreading, Status, Step, TaskId, Terms, Timer, TimerId, TimerKind, Uncompensated,
};
pub use front::editor;
pub use front::{
    AslOptions, MAX_FILE_BYTES, Parsed, ParsedBindings, Source, json_schema, parse, parse_bindings,
    parse_with,
};
pub use ids::{BUCKETS, ExecutionId, InvalidTenant, TenantId, Timestamp, bucket_of, fnv1a32};
pub use import::{Imported, RENAMED_ERRORS, Unexpressed, import_asl};
pub use inbox::{
    AnswerRefused, Answered, CallbackRefused, Inbox, InvalidToken, Seen, Signal, SignalRefused,
    TaskToken,
};
pub use json::Json;
pub use machine::{
    ActivityTask, ApplyError, Command, Place, Record, SEMANTICS, Transition, apply, apply_traced,
    limits, migrate, outcome_of_child, replay, replay_moved,
};
pub use placing::{Beginning, MAX_SHARD_KEY_BYTES, NoShardKey};
pub use tags::Tags;
