//! The state of one run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::program::{ScopeId, StateId};
use crate::{ExecutionId, Json, TenantId, Timestamp};

/// One state entry that asked for an activity; unique within its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

/// One timer; unique within its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimerId(pub u64);

/// One frame; unique within its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameId(pub u64);

impl FrameId {
    /// The frame of the workflow itself.
    pub const ROOT: Self = Self(0);
}

/// The state of one run of a program. Holds all that [`crate::apply`] needs;
/// serialised, it is the snapshot that bounds recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Number of events applied; the next event has `seq == version + 1`.
    pub version: u64,
    /// Where it stands.
    pub status: Status,
    /// When its first event was recorded.
    pub started_at: Timestamp,
    /// Number of shards for the `shard` filter.
    pub shards: u32,
    /// The JSON tree that results accumulate in; `workflow` is reserved.
    pub context: Value,
    /// Upper bound of the context's size as JSON text, in bytes.
    pub context_bytes: u64,
    /// The tree of scopes being run, by id; the root is [`FrameId::ROOT`].
    pub frames: BTreeMap<FrameId, Frame>,
    /// Timers that have not fired.
    pub timers: BTreeMap<TimerId, Timer>,
    /// Next task, timer or frame number.
    pub next_id: u64,
}

/// Whether an execution runs, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Status {
    /// Not ended.
    Running,
    /// Ended well.
    Completed {
        /// Its output.
        output: Json,
    },
    /// Ended by an error that nothing caught.
    Failed {
        /// The error.
        failure: Failure,
    },
    /// Ended because somebody asked for it.
    Cancelled {
        /// Why, in their words.
        reason: String,
    },
    /// Ended by the workflow's own `timeout`.
    TimedOut {
        /// The limit, in milliseconds.
        timeout_ms: u64,
    },
}

/// An error of a state or an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Error name.
    pub error: String,
    /// For people.
    pub message: String,
    /// The state that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Further data of the activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

/// One scope being run: the workflow itself, a branch, later an iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The frame that waits for this one; `None` for the root.
    pub parent: Option<FrameId>,
    /// Which scope of the program.
    pub scope: ScopeId,
    /// The state that it is in.
    pub state: StateId,
    /// What that state is doing.
    pub step: Step,
}

/// What a frame's state is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// An attempt of an activity is scheduled or runs.
    Activity {
        /// The state entry.
        task: TaskId,
        /// Which try, from 1.
        attempt: u32,
        /// The activity's input, the same for every attempt.
        input: Json,
        /// When this attempt was scheduled.
        scheduled_at: Timestamp,
        /// Timer of the attempt's `timeout`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<TimerId>,
    },
    /// Between two attempts.
    BackingOff {
        /// The state entry.
        task: TaskId,
        /// The try that comes next.
        attempt: u32,
        /// The activity's input.
        input: Json,
        /// Timer that ends the pause.
        timer: TimerId,
    },
    /// In a Wait state.
    Waiting {
        /// Timer that ends it.
        timer: TimerId,
    },
    /// In a Parallel state: its branches are the frames whose parent this is.
    Joining {},
    /// The frame reached its end; its parent has not joined yet.
    Done {
        /// Output of its last state.
        output: Value,
    },
    /// The frame failed or was cancelled, and nothing caught it. Kept so that
    /// a retry goes on from here.
    Stopped {},
}

/// A point in time that an execution waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// When it is due.
    pub at: Timestamp,
    /// What for.
    pub kind: TimerKind,
}

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerKind {
    /// End of a pause between attempts, or of a Wait state.
    Resume(FrameId),
    /// An attempt's `timeout`.
    AttemptTimeout(FrameId),
    /// The workflow's `timeout`.
    WorkflowTimeout,
}

impl Execution {
    /// When this execution must next be woken, if it waits for time.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.timers.values().map(|timer| timer.at).min()
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        !matches!(self.status, Status::Running)
    }
}
