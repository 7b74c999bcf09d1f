//! The machine: one pure function over a program.

use std::sync::Arc;

use crate::program::Resource;
use crate::{Execution, Json, TaskId, Timestamp};

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The execution after the event.
    pub execution: Execution,
    /// What the shell must now do, in order.
    pub commands: Vec<Command>,
}

/// Something that the shell does on the machine's behalf. Timers are not
/// commands: [`Execution::timers`] says at any moment which are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run an attempt of an activity.
    ScheduleActivity(ActivityTask),
    /// Nobody waits for this attempt any more.
    CancelActivity {
        /// The state entry that asked for it.
        task: TaskId,
        /// Which try.
        attempt: u32,
    },
}

/// One request to run an activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityTask {
    /// The state entry that asks for it.
    pub task: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
    /// What to run.
    pub resource: Resource,
    /// Name of the Task state.
    pub state: Arc<str>,
    /// The activity's input.
    pub input: Json,
    /// When the attempt was scheduled.
    pub scheduled_at: Timestamp,
    /// Limit of the attempt, from its scheduling, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Longest silence of the running attempt, in milliseconds.
    pub heartbeat_ms: Option<u64>,
}
