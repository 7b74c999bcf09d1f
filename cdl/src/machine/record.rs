//! What follows from events, told to whoever watches.

use std::sync::Arc;

use serde::Serialize;

use crate::program::StateId;
use crate::{Failure, FrameId, Json, TaskId, TimerId, TimerKind, Timestamp};

/// A fact that the machine derives from an event. Histories hold causes only;
/// these are the consequences, for `cascade replay`, live histories and
/// traces. They are told in the order in which they come about, and are never
/// stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Record {
    /// A state was entered.
    StateEntered {
        /// Where and which.
        place: Place,
    },
    /// A state ended well.
    StateExited {
        /// Where and which.
        place: Place,
        /// Its output.
        output: Json,
    },
    /// An attempt of an activity was scheduled.
    ActivityScheduled {
        /// Where and which.
        place: Place,
        /// The state entry.
        task: TaskId,
        /// Which try, from 1.
        attempt: u32,
        /// The activity's input.
        input: Json,
    },
    /// The outcome of an attempt is no longer awaited.
    ActivityCancelled {
        /// The state entry.
        task: TaskId,
        /// Which try.
        attempt: u32,
    },
    /// An attempt failed and another one follows.
    RetryScheduled {
        /// Where and which.
        place: Place,
        /// The state entry.
        task: TaskId,
        /// The try that comes next.
        attempt: u32,
        /// When it comes.
        at: Timestamp,
        /// Name of the error of the failed attempt.
        error: String,
    },
    /// A `catch` or an `on_timeout` took over.
    Caught {
        /// The state that has it.
        place: Place,
        /// Name of the error.
        error: String,
        /// The state that follows.
        next: Arc<str>,
    },
    /// A signal was taken.
    SignalReceived {
        /// Its name.
        name: String,
        /// Whether nobody waited for it, so that it waits itself.
        buffered: bool,
    },
    /// Somebody is asked to do something, or somebody else to do it instead.
    PersonAsked {
        /// Where and which.
        place: Place,
        /// The state entry.
        task: TaskId,
        /// Who.
        assignee: String,
    },
    /// Somebody did what they were asked for, or somebody else did.
    PersonAnswered {
        /// Where and which.
        place: Place,
        /// The state entry.
        task: TaskId,
        /// Who.
        by: String,
    },
    /// The activity has passed a token on; what becomes of it is awaited.
    CallbackAwaited {
        /// Where and which.
        place: Place,
        /// The state entry.
        task: TaskId,
        /// Which try.
        attempt: u32,
    },
    /// Whoever has the token told how it went.
    CallbackTaken {
        /// Where and which.
        place: Place,
        /// The state entry.
        task: TaskId,
        /// Which try.
        attempt: u32,
    },
    /// A timer was set.
    TimerSet {
        /// Which.
        timer: TimerId,
        /// When it is due.
        at: Timestamp,
        /// What for.
        kind: TimerKind,
    },
    /// A branch or iteration reached its end.
    BranchEnded {
        /// The Parallel or Map state.
        place: Place,
        /// The branch, or the index of the iteration.
        branch: String,
        /// How many of them it still waits for.
        open: u32,
    },
    /// A branch or iteration failed, and the state that it belongs to goes on.
    BranchFailed {
        /// The Parallel or Map state.
        place: Place,
        /// The branch, or the index of the iteration.
        branch: String,
        /// Name of the error.
        error: String,
        /// How many of them it still waits for.
        open: u32,
    },
    /// The event changed nothing.
    EventIgnored {
        /// Why.
        reason: &'static str,
    },
    /// What was done is going to be undone; then the execution ends.
    CompensationStarted {
        /// How many steps.
        steps: u32,
        /// Why: the name of the error, `cancelled` or `timed out`.
        cause: String,
    },
    /// A step was undone.
    StepCompensated {
        /// Where and which.
        place: Place,
        /// Output of the compensation.
        output: Json,
    },
    /// A step could not be undone.
    CompensationFailed {
        /// Where and which.
        place: Place,
        /// Name of the error.
        error: String,
        /// For people.
        message: String,
    },
    /// The execution goes on after a failure.
    ExecutionRetried {},
    /// Nothing new begins in the execution.
    ExecutionPaused {
        /// Why.
        reason: String,
    },
    /// The execution goes on after it was paused.
    ExecutionResumed {},
    /// The execution goes on under another version of its workflow.
    ExecutionMigrated {
        /// The application's version that it ran.
        from: u32,
        /// The one that it runs now.
        to: u32,
    },
    /// The execution ended well.
    ExecutionCompleted {
        /// Its output.
        output: Json,
    },
    /// The execution ended by an error.
    ExecutionFailed {
        /// The error.
        failure: Failure,
    },
    /// The execution was cancelled.
    ExecutionCancelled {
        /// Why.
        reason: String,
    },
    /// The execution ended by its `timeout`.
    ExecutionTimedOut {
        /// The limit, in milliseconds.
        timeout_ms: u64,
    },
}

/// A state as a frame runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The frame.
    pub frame: FrameId,
    /// The Parallel states and branches, and the Map states and indexes, around
    /// it, from the outside in, as in `Checks/us` or `Orders/3`; empty at the top.
    pub path: String,
    /// The state's name.
    pub state: Arc<str>,
    /// Which state of the program it is. Not told to others: other versions of
    /// the program have other numbers.
    #[serde(skip)]
    pub id: StateId,
}
