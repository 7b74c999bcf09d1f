//! The state of one run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::inbox::Inbox;
use crate::machine::{ActivityTask, spread_task};
use crate::program::{
    Attempted, Priority, Program, RetryPolicy, ScopeId, State, StateId, StateKind, Tolerance,
};
use crate::schedule::Scheduled;
use crate::spread::{self, Batches, ChunkTask, Origin, Portion};
use crate::{ExecutionId, Json, Parent, Tags, TenantId, Timestamp, asl};

/// One state entry that asked for an activity or a person; unique within its execution.
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
    /// The semantics that it started with; see [`crate::SEMANTICS`].
    #[serde(default)]
    pub machine: u32,
    /// The application's version that it was started with, if it has been moved
    /// to another one since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<u32>,
    /// Where it stands.
    pub status: Status,
    /// There while nothing new begins; never of one that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// When its first event was recorded.
    pub started_at: Timestamp,
    /// When its latest event was recorded. Time never runs backwards for an
    /// execution, even if the clocks of two servers differ.
    pub updated_at: Timestamp,
    /// Whose child it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Which schedule started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Scheduled>,
    /// How urgent its attempts are, where their Tasks do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What it is found by.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Number of shards for the `shard` filter.
    pub shards: u32,
    /// The JSON tree that results accumulate in; `workflow` is reserved.
    /// `null` before the start, and once completed, cancelled or compensated.
    pub context: Value,
    /// Size of the texts that went into the context, in bytes. What was
    /// overwritten still counts, so it is only ever too large; it is measured
    /// afresh when it reaches the limit.
    pub context_bytes: u64,
    /// The tree of scopes being run, by id; the root is [`FrameId::ROOT`], and
    /// a child has a greater id than its parent. Empty before the start, and
    /// once completed, cancelled or compensated; while it is compensated, one
    /// frame stands for the step that is undone.
    pub frames: BTreeMap<FrameId, Frame>,
    /// Timers that have not fired.
    pub timers: BTreeMap<TimerId, Timer>,
    /// What may have to be compensated, and how far that is.
    #[serde(default, skip_serializing_if = "Saga::is_empty")]
    pub saga: Saga,
    /// Signals that came before anybody waited for them.
    #[serde(default, skip_serializing_if = "Inbox::is_empty")]
    pub inbox: Inbox,
    /// Next number for a task, timer, frame or evaluation.
    pub next_id: u64,
}

/// The steps of an execution that have something which undoes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Those that have completed, in the order in which they did. While they are
    /// compensated the last is the one that is being undone.
    pub completed: Vec<Completed>,
    /// Bytes of texts in them.
    pub bytes: u64,
    /// Number of those that have been undone.
    pub compensated: u32,
    /// Number of those whose compensation failed.
    pub failures: u32,
    /// The first of them.
    pub failed: Vec<Uncompensated>,
}

impl Saga {
    fn is_empty(&self) -> bool {
        self.completed.is_empty() && !self.has_run()
    }

    /// Whether anything was compensated, well or not.
    pub(crate) fn has_run(&self) -> bool {
        self.compensated > 0 || self.failures > 0
    }
}

/// A completed step that has something which undoes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The Task.
    pub state: StateId,
    /// Where it ran, as [`Place::path`](crate::Place::path).
    pub path: String,
    /// What its compensation is given.
    pub input: Json,
}

/// A step whose compensation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncompensated {
    /// The Task, with where it ran before it: `Orders/3/Reserve`.
    pub state: String,
    /// Name of the compensation's error, shortened.
    pub error: String,
    /// For people, shortened.
    pub message: String,
}

/// Whether an execution runs, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Status {
    /// Not ended.
    Running,
    /// Not ended: it will, with `outcome`, when what was done is undone.
    Compensating {
        /// The status that follows, one that ends it without success.
        outcome: Box<Status>,
    },
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

/// That nothing new begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub at: Timestamp,
    /// Why, in the words of who asked for it.
    pub reason: String,
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

impl Failure {
    /// An error of a state that is yet to be named.
    pub(crate) fn new(error: &str, message: impl Into<String>) -> Self {
        Self {
            error: error.to_owned(),
            message: message.into(),
            state: None,
            details: None,
        }
    }
}

/// One scope being run: the workflow itself, a branch or an iteration.
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
    /// What an iteration has of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<Box<Iteration>>,
    /// What a frame of an ASL definition knows; CDL keeps all in the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<asl::Data>>,
}

/// What one iteration of a Map state has of its own. The frames beneath it see
/// it, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// Its place among the items, or batches, from 0.
    pub index: u32,
    /// Length of the item's text, in bytes.
    pub bytes: u64,
    /// The word `map` of expressions: `{item, index}`.
    pub map: Value,
    /// What it has written: an object whose keys hide those of the context.
    pub context: Value,
}

impl Iteration {
    /// Its item, or batch of items.
    pub fn item(&self) -> &Value {
        &self.map["item"]
    }
}

/// What a `HumanTask` asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// The state entry.
    pub task: TaskId,
    /// Who is asked.
    pub assignee: String,
    /// What they are shown.
    pub input: Json,
    /// When the state was entered.
    pub opened_at: Timestamp,
    /// Timer of the state's `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimerId>,
    /// Timer of the next escalation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<TimerId>,
    /// How often it has escalated.
    pub escalated: u32,
}

/// How far a Map state is. Iterations that run are the frames whose parent it
/// is; all others are here, by index.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    /// Number of items.
    pub items: u32,
    /// Number of iterations that run.
    pub open: u32,
    /// Bytes of the texts below, and of the items of those that run.
    pub bytes: u64,
    /// Items, or batches of them, whose iterations have not begun.
    pub waiting: BTreeMap<u32, Json>,
    /// Outputs of those that have ended.
    pub done: BTreeMap<u32, Json>,
    /// Those whose failure the state bears.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<u32, Borne>,
    /// What an ASL Map state found in its data; a CDL one has it in the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}

/// What an ASL Map state asks for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Most iterations at a time, at least 1.
    pub max_concurrency: u32,
    /// Failures that it bears; `None` makes the first one its own.
    pub tolerance: Option<Tolerance>,
}

impl Mapping {
    /// Number of iterations that have not ended.
    pub fn left(&self) -> u32 {
        self.open
            .saturating_add(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX))
    }
}

/// An iteration whose failure its Map state bears.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Borne {
    /// Its item, or batch of items.
    pub item: Json,
    /// `{error, message, state, details}`, as a `catch` gives it.
    pub error: Json,
    /// Number of items in it.
    pub items: u32,
}

/// How far a distributed Map is: see [`crate::spread`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spreading {
    /// Number of items; 0 while that is not known.
    pub items: u64,
    /// Items that are done and did not fail.
    pub succeeded: u64,
    /// Items that failed.
    pub failed: u64,
    /// Bytes of the texts below, less those of what is asked for.
    pub bytes: u64,
    /// What the shell was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<TaskId, Asked>,
    /// The chunks that wait, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<u32, Portion>,
    /// Those that are done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub done: BTreeMap<u32, Done>,
    /// The object that has the items; absent for those of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Iterations at a time, and how many may fail.
    pub terms: Terms,
    /// How items are put together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Batches>,
    /// Where results are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<spread::Place>,
    /// What iterations see besides their items.
    pub shared: Json,
}

impl Spreading {
    /// Number of chunks that are not done.
    pub fn left(&self) -> u32 {
        let left = self.waiting.len() + self.asked.len();
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

/// Something that the shell was asked for, for a distributed Map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What it is.
    pub work: spread::Work,
    /// What it takes.
    pub input: Json,
    /// When it was asked for.
    pub scheduled_at: Timestamp,
}

impl Asked {
    /// The chunk that it is.
    pub(crate) fn chunk(&self) -> Option<ChunkTask> {
        match self.work {
            spread::Work::Chunk => serde_json::from_str(self.input.as_str()).ok(),
            spread::Work::Read | spread::Work::Write => None,
        }
    }
}

/// A chunk that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Its items, to be run again if too many failed.
    pub portion: Portion,
    /// How many of them failed.
    pub failed: u64,
    /// What it gave: a [`spread::ChunkOutput`].
    pub output: Json,
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
    /// In an `EventTask`, whose signal has not come.
    Listening {
        /// Timer of the state's `timeout`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<TimerId>,
    },
    /// In a `HumanTask` that nobody has done.
    Asking(Box<Asking>),
    /// The activity has passed the token of the task on; how it went is told from
    /// outside.
    Calling {
        /// The state entry.
        task: TaskId,
        /// Which try, from 1.
        attempt: u32,
        /// Timer of the attempt's timeout.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<TimerId>,
        /// Timer of the longest silence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heartbeat: Option<TimerId>,
    },
    /// In a Parallel state: its branches are the frames whose parent this is.
    Joining {
        /// Number of branches that have neither reached their end nor failed.
        open: u32,
        /// Number of branches whose failure the state bears.
        #[serde(default, skip_serializing_if = "is_zero")]
        failed: u32,
    },
    /// In a Map state.
    Mapping(Box<Mapping>),
    /// In a distributed Map state: the shell runs its chunks.
    Spreading(Box<Spreading>),
    /// Between two tries of an ASL state, which is evaluated anew.
    Retrying {
        /// Timer that ends the pause.
        timer: TimerId,
    },
    /// About to enter its state: that is held until the execution is resumed.
    Held {
        /// Timer that enters it, due since the moment when it would have.
        timer: TimerId,
    },
    /// The frame reached its end; its parent has not joined yet.
    Done {
        /// Output of its last state.
        output: Json,
    },
    /// The frame failed, and its parent bears that.
    Failed {
        /// `{error, message, state, details}`, as a `catch` gives it.
        error: Json,
    },
    /// Nothing: the execution failed or timed out. A retry enters the state
    /// anew.
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
    /// End of a pause between attempts, or of a Wait state, or the entry of a
    /// state that was held.
    Resume(FrameId),
    /// An attempt's `timeout`.
    AttemptTimeout(FrameId),
    /// The `timeout` of an `EventTask` or a `HumanTask`.
    WaitTimeout(FrameId),
    /// A `HumanTask`'s next escalation.
    Escalation(FrameId),
    /// The longest silence of whoever has a task's token.
    Heartbeat(FrameId),
    /// The workflow's `timeout`.
    WorkflowTimeout,
}

impl TimerKind {
    /// Whether it makes something new begin, so that it is held while the
    /// execution is paused. The others bound what runs already.
    fn begins_something(&self) -> bool {
        match self {
            Self::Resume(_) | Self::WaitTimeout(_) | Self::Escalation(_) => true,
            Self::AttemptTimeout(_) | Self::Heartbeat(_) | Self::WorkflowTimeout => false,
        }
    }
}

impl Execution {
    /// An execution before its first event.
    pub fn new(id: ExecutionId, tenant: TenantId) -> Self {
        Self {
            id,
            tenant,
            version: 0,
            machine: 0,
            origin: None,
            status: Status::Running,
            paused: None,
            started_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            parent: None,
            schedule: None,
            priority: None,
            tags: Tags::default(),
            shards: 0,
            context: Value::Null,
            context_bytes: 0,
            frames: BTreeMap::new(),
            timers: BTreeMap::new(),
            saga: Saga::default(),
            inbox: Inbox::default(),
            next_id: FrameId::ROOT.0 + 1,
        }
    }

    /// Drops what only a running execution needs, or one that may be retried.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.timers.clear();
        self.inbox.close();
        self.context = Value::Null;
        self.context_bytes = 0;
    }

    /// Whether what was done is being undone.
    pub fn is_compensating(&self) -> bool {
        matches!(self.status, Status::Compensating { .. })
    }

    /// When this execution must next be woken, if it waits for time.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let timers = self.timers.values().filter(|timer| self.runs(timer));
        timers.map(|timer| timer.at).min()
    }

    /// Whether a timer fires when it is due: while the execution is paused, what
    /// would begin something waits until it is resumed.
    pub(crate) fn runs(&self, timer: &Timer) -> bool {
        self.paused.is_none() || !timer.kind.begins_something()
    }

    /// The timers that are due at `now`, the earliest first. Each is owed a
    /// `TimerFired`; one may undo another, which then changes nothing.
    pub fn due_timers(&self, now: Timestamp) -> Vec<TimerId> {
        let mut due: Vec<_> = self
            .timers
            .iter()
            .filter(|(_, timer)| timer.at <= now && self.runs(timer))
            .map(|(id, timer)| (timer.at, *id))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        !matches!(self.status, Status::Running | Status::Compensating { .. })
    }

    /// Whether it waits for nothing but time, signals and people, so that it can
    /// leave memory until [`Execution::wake_at`].
    pub fn is_idle(&self) -> bool {
        let busy = |frame: &Frame| match &frame.step {
            Step::Activity { .. } => true,
            Step::Spreading(spreading) => !spreading.asked.is_empty(),
            _ => false,
        };
        !self.is_closed() && !self.frames.values().any(busy)
    }

    /// Whether the outcome of this attempt is awaited. If not, recording it
    /// would change nothing: it came twice, too late, or for another attempt.
    pub fn awaits(&self, task: TaskId, attempt: u32) -> bool {
        self.frame_awaiting(task, attempt).is_some()
    }

    /// The same of the attempt that was scheduled at this time: an earlier life of a shard may
    /// have asked for another one by the same numbers, which was never durable.
    pub fn awaits_since(&self, task: TaskId, attempt: u32, at: Timestamp) -> bool {
        let awaits = |step: &Step| match step {
            Step::Activity {
                task: awaited,
                attempt: number,
                scheduled_at,
                ..
            } => *awaited == task && *number == attempt && *scheduled_at == at,
            Step::Spreading(spreading) => {
                let asked = spreading.asked.get(&task);
                attempt == 1 && asked.is_some_and(|asked| asked.scheduled_at == at)
            }
            _ => false,
        };
        self.frames.values().any(|frame| awaits(&frame.step))
    }

    /// The attempts whose outcome is awaited, as they were scheduled: what
    /// must be dispatched again after a crash.
    pub fn pending_tasks(&self, program: &Program) -> Vec<ActivityTask> {
        let mut pending = Vec::new();
        for frame in self.frames.values() {
            let Some(state) = program.states.get(frame.state.0 as usize) else {
                continue;
            };
            if let Step::Spreading(spreading) = &frame.step {
                let asked = spreading.asked.iter();
                pending.extend(asked.map(|(task, asked)| {
                    spread_task(program, frame.state, *task, asked, self.priority)
                }));
            } else if let Some(attempted) = frame.attempted(state, self.is_compensating()) {
                pending.extend(frame.step.activity_task(state, attempted, self.priority));
            }
        }
        pending
    }

    /// The iterations around a frame, from the inside out, its own included.
    pub(crate) fn iterations(&self, id: FrameId) -> impl Iterator<Item = &Iteration> {
        self.around(id)
            .filter_map(|(_, frame)| frame.iteration.as_deref())
    }

    /// The frame of the innermost iteration around a frame.
    pub(crate) fn iteration_of(&self, id: FrameId) -> Option<FrameId> {
        self.around(id)
            .find_map(|(id, frame)| frame.iteration.is_some().then_some(id))
    }

    /// A frame and the frames around it, from the inside out.
    fn around(&self, id: FrameId) -> impl Iterator<Item = (FrameId, &Frame)> {
        let frame = |id: FrameId| self.frames.get(&id).map(|frame| (id, frame));
        std::iter::successors(frame(id), move |(_, inner)| inner.parent.and_then(frame))
    }

    /// The frame that waits for the outcome of this attempt.
    pub(crate) fn frame_awaiting(&self, task: TaskId, attempt: u32) -> Option<FrameId> {
        let awaits = |step: &Step| match step {
            Step::Activity {
                task: t,
                attempt: a,
                ..
            } => *t == task && *a == attempt,
            Step::Spreading(spreading) => attempt == 1 && spreading.asked.contains_key(&task),
            _ => false,
        };
        let mut frames = self.frames.iter();
        frames.find_map(|(id, frame)| awaits(&frame.step).then_some(*id))
    }
}

impl Frame {
    /// What the attempts of the frame run, `state` being the one that it is in.
    pub(crate) fn attempted<'p>(
        &self,
        state: &'p State,
        compensating: bool,
    ) -> Option<Attempted<'p>> {
        match (&state.kind, &self.data) {
            (StateKind::Task(task), _) => task.attempted(compensating),
            (StateKind::Asl(asl), Some(data)) => Some(Attempted {
                resource: asl.activity()?,
                secrets: None,
                timeout_ms: data.timeout_ms,
                heartbeat_ms: data.heartbeat_ms,
                priority: None,
                rate_limit: None,
                // `Retry` is evaluated with the state.
                retries: &RetryPolicy::ONCE,
            }),
            _ => None,
        }
    }
}

impl Step {
    /// The request to run an activity that this step stands for, `state` being
    /// the state that it is a step of, in an execution of this `priority`.
    pub(crate) fn activity_task(
        &self,
        state: &State,
        attempted: Attempted<'_>,
        priority: Option<Priority>,
    ) -> Option<ActivityTask> {
        let Self::Activity {
            task,
            attempt,
            input,
            scheduled_at,
            timeout: _,
        } = self
        else {
            return None;
        };
        Some(ActivityTask {
            task: *task,
            attempt: *attempt,
            resource: attempted.resource.clone(),
            state: state.name.clone(),
            input: input.clone(),
            secrets: attempted.secrets.cloned(),
            scheduled_at: *scheduled_at,
            timeout_ms: attempted.timeout_ms,
            heartbeat_ms: attempted.heartbeat_ms,
            priority: attempted.priority.or(priority).unwrap_or_default(),
            rate_limit: attempted.rate_limit,
        })
    }

    /// The timers that this step waits for.
    pub(crate) fn timers(&self) -> impl Iterator<Item = TimerId> + use<> {
        let (first, second) = match self {
            Self::Activity { timeout, .. } | Self::Listening { timeout } => (*timeout, None),
            Self::BackingOff { timer, .. }
            | Self::Waiting { timer }
            | Self::Retrying { timer }
            | Self::Held { timer } => (Some(*timer), None),
            Self::Asking(asking) => (asking.timeout, asking.escalation),
            Self::Calling {
                timeout, heartbeat, ..
            } => (*timeout, *heartbeat),
            Self::Joining { .. }
            | Self::Mapping(_)
            | Self::Spreading(_)
            | Self::Done { .. }
            | Self::Failed { .. }
            | Self::Stopped {} => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// Whether a count can be left out of a snapshot.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
