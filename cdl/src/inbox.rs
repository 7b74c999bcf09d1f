//! Signals for an execution: which are taken, and those that came too early.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::machine::limits::{MAX_INBOX_BYTES, MAX_SIGNALS, SEEN_SIGNALS};
use crate::program::{Program, StateKind};
use crate::{Execution, FrameId, Json, Status, Step};

/// Signals that came before anybody waited for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inbox {
    /// The signals, the earliest first.
    pub signals: VecDeque<Signal>,
    /// Bytes of texts in them.
    pub bytes: u64,
    /// Ids of the latest signals that were taken.
    pub seen: VecDeque<String>,
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
    /// A signal with this id was taken before.
    Repeated,
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
            Self::InboxFull => "too many signals wait in the inbox of the execution",
        }
    }
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.signals.is_empty() && self.seen.is_empty()
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

    /// Notes the id of a signal that was taken.
    pub(crate) fn note(&mut self, id: &str) {
        if self.seen.len() >= SEEN_SIGNALS {
            self.seen.pop_front();
        }
        self.seen.push_back(id.to_owned());
    }
}

impl Execution {
    /// Whether a signal with a payload of so many bytes would be taken now.
    ///
    /// To be asked before it is recorded: a signal that is not taken would only
    /// lengthen the history.
    ///
    /// # Errors
    ///
    /// [`SignalRefused`] says why it would not be.
    pub fn accepts_signal(
        &self,
        program: &Program,
        name: &str,
        bytes: usize,
        id: Option<&str>,
    ) -> Result<(), SignalRefused> {
        if self.status != Status::Running {
            return Err(SignalRefused::Ended);
        }
        let waits =
            |kind: &StateKind| matches!(kind, StateKind::Event(task) if *task.event == *name);
        if !program.states.iter().any(|state| waits(&state.kind)) {
            return Err(SignalRefused::Unknown);
        }
        if id.is_some_and(|id| self.inbox.seen.iter().any(|seen| seen == id)) {
            return Err(SignalRefused::Repeated);
        }
        let full = self.inbox.signals.len() >= MAX_SIGNALS
            || self.inbox.bytes + bytes as u64 > MAX_INBOX_BYTES;
        if full && self.listening(program, name).is_none() {
            return Err(SignalRefused::InboxFull);
        }
        Ok(())
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
