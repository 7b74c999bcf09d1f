//! What happened to an execution: the history is a list of these.
//!
//! Only causes are recorded. What follows from them (states entered, tasks
//! scheduled, timers set) is derived again by replay, so a history is short
//! and cannot contradict itself. The encoding is JSON with external tags;
//! fields are only ever added, with defaults, so old histories read for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::program::{ParentClose, Priority};
use crate::schedule::Scheduled;
use crate::{ExecutionId, Json, TaskId, TimerId, Timestamp};

/// One entry of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the history, from 1.
    pub seq: u64,
    /// When it was recorded. The only time that the machine knows.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of [`Event`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// Always the first event.
    ExecutionStarted {
        /// The workflow's input.
        input: Json,
        /// Number of shards that the `shard` filter counts modulo.
        shards: u32,
        /// The [`SEMANTICS`](crate::SEMANTICS) that this execution keeps to
        /// until it ends, whatever later versions of the machine do.
        #[serde(default)]
        machine: u32,
        /// Whose child it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
        /// Which schedule started it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<Scheduled>,
        /// What it is placed by, if not by its id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shard_key: Option<Arc<str>>,
        /// How urgent it is, if anybody said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        /// What it is found by, if anybody said so.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
    },
    /// An attempt returned.
    ActivityCompleted {
        /// The state entry that asked for it.
        task: TaskId,
        /// Which try, from 1.
        attempt: u32,
        /// What it returned.
        output: Json,
        /// What ran and what it cost.
        receipt: Receipt,
    },
    /// An attempt did not return an output.
    ActivityFailed {
        /// The state entry that asked for it.
        task: TaskId,
        /// Which try, from 1.
        attempt: u32,
        /// Why.
        failure: ActivityFailure,
        /// What ran and what it cost; absent if nothing ran.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Receipt>,
    },
    /// A timer of the execution came due.
    TimerFired {
        /// Which.
        timer: TimerId,
    },
    /// A signal came for an `EventTask`, which may be yet to come.
    SignalReceived {
        /// The signal's name.
        name: String,
        /// What it brings.
        payload: Json,
        /// What makes it one of a kind: a second one with this id is not taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// Somebody did what a `HumanTask` asked for.
    HumanTaskCompleted {
        /// The state entry that asked for it.
        task: TaskId,
        /// The answer, which fits the schema.
        output: Json,
        /// Who.
        by: String,
    },
    /// Whoever has the token of a task told how it goes.
    CallbackReceived {
        /// The state entry.
        task: TaskId,
        /// Which try, from 1.
        attempt: u32,
        /// What they told.
        callback: Callback,
    },
    /// Somebody asked for the execution to stop.
    CancelRequested {
        /// Why, in their words.
        reason: String,
    },
    /// Somebody asked for a failed execution to go on from where it failed.
    RetryRequested {},
    /// Somebody asked for nothing new to begin.
    ExecutionPaused {
        /// Why, in their words.
        reason: String,
    },
    /// Somebody asked for a paused execution to go on.
    ExecutionResumed {},
    /// The execution goes on under another version of its workflow: what follows in
    /// the history belongs to that one. Applied by [`migrate`](crate::migrate).
    ExecutionMigrated {
        /// The application's version that it ran.
        from: u32,
        /// The one that it runs now.
        to: u32,
        /// The new paths of states that were renamed, by the old ones.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        states: BTreeMap<String, String>,
    },
}

/// What whoever has a task's token tells of it, as `SendTaskSuccess`,
/// `SendTaskFailure` and `SendTaskHeartbeat` do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Callback {
    /// It is done.
    Succeeded {
        /// The result of the state.
        output: Json,
    },
    /// It failed.
    Failed {
        /// Error name, as `Retry` and `Catch` match it.
        error: String,
        /// For people.
        cause: String,
    },
    /// It goes on.
    Heartbeat {},
}

/// The attempt of another execution that started this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The other execution.
    pub execution: ExecutionId,
    /// The state entry that asked for it.
    pub task: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
    /// How many executions are above this one, the parent included; from 1.
    pub depth: u32,
    /// What becomes of this execution if the attempt is given up.
    pub on_close: ParentClose,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityFailure {
    /// Error name, as `catch` and retry rules match it: `PaymentDeclined`, `FuelExhausted`.
    pub error: String,
    /// For people.
    pub message: String,
    /// What the activity or the sandbox says about trying again; `None` leaves
    /// it to the rules for the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// Further data of the activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

/// What an attempt ran and cost. With the input, enough to run it again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// SHA-256 of the module, in hexadecimal.
    pub digest: String,
    /// Whether the activity was pure, so that running it again gives the same.
    pub pure: bool,
    /// Fuel used.
    pub fuel: u64,
    /// Fuel that it was allowed.
    pub fuel_limit: u64,
    /// Memory that it was allowed, in bytes.
    pub memory_limit: u64,
    /// Wall-clock time, in microseconds.
    pub duration_us: u64,
}
