//! What comes to an execution from outside: which signals and answers are
//! taken, and the signals that came too early.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

use crate::asl::program::Kind;
use crate::event::Callback;
use crate::execution::Asking;
use crate::machine::CALLBACKS;
use crate::machine::limits::{ANSWERED_TASKS, MAX_INBOX_BYTES, MAX_SIGNALS, SEEN_SIGNALS};
use crate::program::{HumanTask, Program, StateKind};
use crate::{Execution, ExecutionId, FrameId, Json, Status, Step, TaskId, Timestamp};

/// Signals that came before anybody waited for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inbox {
    /// The signals, the earliest first.
    pub signals: VecDeque<Signal>,
    /// Bytes of texts in them.
    pub bytes: u64,
    /// The latest signals with an id that were taken. They are kept beyond the
    /// end: who was not told that its signal came asks again.
    pub seen: VecDeque<Seen>,
    /// The latest answers to `HumanTask` states, kept for the same reason.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub answered: VecDeque<Answered>,
}

/// A signal with an id that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Of name and payload, to tell a repetition from a mistake.
    pub hash: u64,
}

/// A `HumanTask` that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The state entry.
    pub task: TaskId,
    /// Of who answered and what, to tell a repetition from another answer.
    pub hash: u64,
}

/// A signal that nobody waited for when it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// What it brings.
    pub payload: Json,
}

/// Why a signal is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum SignalRefused {
    /// The execution has ended, or is being compensated.
    Ended,
    /// No `EventTask` of the program waits for such a signal, ever.
    Unknown,
    /// This very signal was taken before.
    Repeated,
    /// Another signal with this id was taken before.
    Reused,
    /// Nobody waits for it now, and too many signals wait already.
    InboxFull,
}

impl SignalRefused {
    /// Why, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ended => "the execution has ended, or is about to",
            Self::Unknown => "the workflow has no EventTask for this signal",
            Self::Repeated => "a signal with this id was received before",
            Self::Reused => "another signal with this id was received before",
            Self::InboxFull => "too many signals wait in the inbox of the execution",
        }
    }
}

/// Why an answer to a `HumanTask` is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum AnswerRefused {
    /// This very answer was taken before.
    Repeated,
    /// Nobody is asked for this: not yet, not any more, or ever.
    NotAsked,
}

impl AnswerRefused {
    /// Why, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Repeated => "this answer was received before",
            Self::NotAsked => "nobody is asked for this any more",
        }
    }
}

/// Why what whoever has a token tells is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum CallbackRefused {
    /// This very outcome was taken before.
    Repeated,
    /// A heartbeat that moves nothing, or not enough to be worth an event.
    Needless,
    /// Nobody waits for it: it went otherwise, its time was up, or it never was.
    NotAwaited,
}

impl CallbackRefused {
    /// Why, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Repeated => "this outcome was received before",
            Self::Needless => "the task needs no heartbeat now",
            Self::NotAwaited => "nobody waits for the outcome of this task any more",
        }
    }
}

/// Names one try of a task whose outcome is told from outside; what a definition
/// sees at `$$.Task.Token`. It is a name and no secret: who uses it needs a key of
/// the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskToken {
    /// The execution.
    pub execution: ExecutionId,
    /// The state entry.
    pub task: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
}

impl fmt::Display for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.execution, self.task.0, self.attempt)
    }
}

/// The text is not a [`TaskToken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task token looks like EXECUTION:TASK:ATTEMPT")]
pub struct InvalidToken;

impl FromStr for TaskToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.split(':');
        let mut part = || parts.next().ok_or(InvalidToken);
        let (execution, task, attempt) = (part()?, part()?, part()?);
        let token = Self {
            execution: execution.parse().map_err(|_| InvalidToken)?,
            task: TaskId(task.parse().map_err(|_| InvalidToken)?),
            attempt: attempt.parse().map_err(|_| InvalidToken)?,
        };
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(InvalidToken),
        }
    }
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.signals.is_empty() && self.seen.is_empty() && self.answered.is_empty()
    }

    pub(crate) fn put(&mut self, signal: Signal) {
        self.bytes += signal.payload.len() as u64;
        self.signals.push_back(signal);
    }

    /// Takes out the earliest signal of this name.
    pub(crate) fn take(&mut self, name: &str) -> Option<Signal> {
        let at = self.signals.iter().position(|signal| signal.name == name)?;
        let signal = self.signals.remove(at)?;
        self.bytes = self.bytes.saturating_sub(signal.payload.len() as u64);
        Some(signal)
    }

    /// Drops what nobody will take any more.
    pub(crate) fn close(&mut self) {
        self.signals.clear();
        self.bytes = 0;
    }

    /// Notes a signal that was taken.
    pub(crate) fn note(&mut self, id: &str, name: &str, payload: &Json) {
        if self.seen.len() >= SEEN_SIGNALS {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen {
            id: id.to_owned(),
            hash: hash(name, payload),
        });
    }

    /// Notes an answer that was taken.
    pub(crate) fn note_answer(&mut self, task: TaskId, output: &Json, by: &str) {
        if self.answered.len() >= ANSWERED_TASKS {
            self.answered.pop_front();
        }
        let hash = hash(by, output);
        self.answered.push_back(Answered { task, hash });
    }

    /// Notes a callback that was taken, as an answer.
    pub(crate) fn note_callback(&mut self, task: TaskId, attempt: u32, callback: &Callback) {
        if self.answered.len() >= ANSWERED_TASKS {
            self.answered.pop_front();
        }
        let hash = hash_callback(attempt, callback);
        self.answered.push_back(Answered { task, hash });
    }

    /// Whether a signal with this id was taken, and if so, whether it was this one.
    fn has_seen(&self, id: &str, name: &str, payload: &Json) -> Option<bool> {
        let seen = self.seen.iter().find(|seen| seen.id == id)?;
        Some(seen.hash == hash(name, payload))
    }
}

/// Tells apart what was given one id by mistake; it protects nothing.
fn hash(name: &str, payload: &Json) -> u64 {
    let mut hash = FnvHasher::default();
    hash.write(name.as_bytes());
    // No name has it, so no two give the same bytes.
    hash.write(&[0]);
    hash.write(payload.as_str().as_bytes());
    hash.finish()
}

fn hash_callback(attempt: u32, callback: &Callback) -> u64 {
    let text = |text: &str| Json::from_value(&text.into());
    match callback {
        Callback::Succeeded { output } => hash(&format!("succeeded {attempt}"), output),
        Callback::Failed { error, cause } => {
            hash(&format!("failed {attempt} {error}"), &text(cause))
        }
        Callback::Heartbeat {} => hash(&format!("heartbeat {attempt}"), &text("")),
    }
}

impl Execution {
    /// Whether a signal would be taken now.
    ///
    /// To be asked before it is recorded: a signal that is not taken would only
    /// lengthen the history. One that was taken before is told as such whatever
    /// has become of the execution since.
    ///
    /// # Errors
    ///
    /// [`SignalRefused`] says why it would not be.
    pub fn accepts_signal(
        &self,
        program: &Program,
        name: &str,
        payload: &Json,
        id: Option<&str>,
    ) -> Result<(), SignalRefused> {
        match id.and_then(|id| self.inbox.has_seen(id, name, payload)) {
            Some(true) => return Err(SignalRefused::Repeated),
            Some(false) => return Err(SignalRefused::Reused),
            None => {}
        }
        if self.status != Status::Running {
            return Err(SignalRefused::Ended);
        }
        let waits =
            |kind: &StateKind| matches!(kind, StateKind::Event(task) if *task.event == *name);
        if !program.states.iter().any(|state| waits(&state.kind)) {
            return Err(SignalRefused::Unknown);
        }
        let full = self.inbox.signals.len() >= MAX_SIGNALS
            || self.inbox.bytes + payload.len() as u64 > MAX_INBOX_BYTES;
        if full && self.listening(program, name).is_none() {
            return Err(SignalRefused::InboxFull);
        }
        Ok(())
    }

    /// Whether an answer to a `HumanTask` would be taken now; that it fits the
    /// schema is for who asks to see to.
    ///
    /// # Errors
    ///
    /// [`AnswerRefused`] says why it would not be.
    pub fn accepts_answer(
        &self,
        task: TaskId,
        output: &Json,
        by: &str,
    ) -> Result<(), AnswerRefused> {
        if self.frame_asking(task).is_some() {
            return Ok(());
        }
        let mut answered = self.inbox.answered.iter();
        let hash = hash(by, output);
        if answered.any(|answered| answered.task == task && answered.hash == hash) {
            return Err(AnswerRefused::Repeated);
        }
        Err(AnswerRefused::NotAsked)
    }

    /// Whether what whoever has a token tells would be taken at `now`.
    ///
    /// A heartbeat that would move the end of the longest silence by less than a
    /// quarter of it is not: each is an event, and a history has room for so many.
    ///
    /// # Errors
    ///
    /// [`CallbackRefused`] says why it would not be.
    pub fn accepts_callback(
        &self,
        program: &Program,
        task: TaskId,
        attempt: u32,
        callback: &Callback,
        now: Timestamp,
    ) -> Result<(), CallbackRefused> {
        if let Some(id) = self.frame_calling(program, task, attempt) {
            return match callback {
                Callback::Heartbeat {} if !self.needs_heartbeat(id, now) => {
                    Err(CallbackRefused::Needless)
                }
                _ => Ok(()),
            };
        }
        let hash = hash_callback(attempt, callback);
        let mut answered = self.inbox.answered.iter();
        if answered.any(|answered| answered.task == task && answered.hash == hash) {
            return Err(CallbackRefused::Repeated);
        }
        Err(CallbackRefused::NotAwaited)
    }

    fn needs_heartbeat(&self, id: FrameId, now: Timestamp) -> bool {
        let Some(frame) = self.frames.get(&id) else {
            return false;
        };
        let Step::Calling {
            heartbeat: Some(timer),
            ..
        } = &frame.step
        else {
            return false;
        };
        let data = frame.data.as_ref();
        let limit = data.and_then(|data| data.heartbeat_ms).unwrap_or_default();
        let due = self.timers.get(timer).map(|timer| timer.at);
        due.is_some_and(|at| at.since(now) <= limit - limit / 4)
    }

    /// The tasks whose outcome is told from outside, in the order of the frames.
    pub fn called(&self) -> impl Iterator<Item = (FrameId, TaskToken)> {
        self.frames.iter().filter_map(|(id, frame)| {
            let Step::Calling { task, attempt, .. } = &frame.step else {
                return None;
            };
            let token = TaskToken {
                execution: self.id,
                task: *task,
                attempt: *attempt,
            };
            Some((*id, token))
        })
    }

    /// Whether the state that a frame is in ends with a callback.
    pub(crate) fn waits_for_callback(&self, program: &Program, id: FrameId) -> bool {
        let frame = self.frames.get(&id);
        let state = frame.and_then(|frame| program.states.get(frame.state.0 as usize));
        let Some(StateKind::Asl(state)) = state.map(|state| &state.kind) else {
            return false;
        };
        let calls = matches!(&state.kind, Kind::Task(task) if task.waits_for_callback());
        calls && self.machine >= CALLBACKS
    }

    /// The frame that waits for what becomes of this token.
    pub(crate) fn frame_calling(
        &self,
        program: &Program,
        task: TaskId,
        attempt: u32,
    ) -> Option<FrameId> {
        let calls = |id: FrameId, step: &Step| match step {
            Step::Calling {
                task: t,
                attempt: a,
                ..
            } => (*t, *a) == (task, attempt),
            // Whoever got the token may be faster than who gave it.
            Step::Activity {
                task: t,
                attempt: a,
                ..
            } => (*t, *a) == (task, attempt) && self.waits_for_callback(program, id),
            _ => false,
        };
        let mut frames = self.frames.iter();
        frames.find_map(|(id, frame)| calls(*id, &frame.step).then_some(*id))
    }

    /// What people are asked for, in the order of the frames.
    pub fn asked<'a>(
        &'a self,
        program: &'a Program,
    ) -> impl Iterator<Item = (FrameId, &'a Asking, &'a HumanTask)> {
        self.frames.iter().filter_map(|(id, frame)| {
            let state = program.states.get(frame.state.0 as usize)?;
            match (&frame.step, &state.kind) {
                (Step::Asking(asking), StateKind::Human(human)) => Some((*id, &**asking, human)),
                _ => None,
            }
        })
    }

    /// The frame whose `HumanTask` asks for this.
    pub(crate) fn frame_asking(&self, task: TaskId) -> Option<FrameId> {
        let asks = |step: &Step| matches!(step, Step::Asking(asking) if asking.task == task);
        let mut frames = self.frames.iter();
        frames.find_map(|(id, frame)| asks(&frame.step).then_some(*id))
    }

    /// The frame that has waited longest for a signal of this name.
    pub(crate) fn listening(&self, program: &Program, name: &str) -> Option<FrameId> {
        let mut frames = self.frames.iter();
        frames.find_map(|(id, frame)| {
            let state = program.states.get(frame.state.0 as usize)?;
            let waits = match (&frame.step, &state.kind) {
                (Step::Listening { .. }, StateKind::Event(task)) => *task.event == *name,
                _ => false,
            };
            waits.then_some(*id)
        })
    }
}
