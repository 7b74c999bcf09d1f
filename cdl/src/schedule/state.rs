//! How far a schedule is, and how it moves.
//!
//! A state says all that is to be done: to start what is in `starting` and tell what came
//! of it, to tell when something in `open` has ended, and to cancel these if
//! [`State::cancels`]. It is made durable first. Who crashes in between does that again, of
//! the same ids.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::due::{Missed, count};
use super::{Key, MAX_OPEN, MAX_RECENT, MAX_WAITING, Overlap, Schedule};
use crate::{ExecutionId, Timestamp};

/// Longest reason of a refusal that is remembered, in characters.
const MAX_REASON: usize = 500;

/// How far a schedule is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The timing that it is about, as text: when that changes, it begins anew.
    pub timing: String,
    /// All times up to this one have been decided.
    pub position: Timestamp,
    /// Whether the file said that it is paused, when it was looked at last.
    #[serde(default)]
    pub declared_paused: bool,
    /// Since when and why nothing is started by the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseMark>,
    /// What is started after others have ended, in order.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub waiting: VecDeque<Waiting>,
    /// What is started now; whether it was is not known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starting: Vec<Waiting>,
    /// What was started and is not known to have ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Opened>,
    /// What became of the last times, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub recent: VecDeque<Record>,
}

/// Since when and why a schedule is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseMark {
    /// Since when.
    pub at: Timestamp,
    /// Why, in the words of who asked for it.
    pub reason: String,
}

/// Something to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The time that it is about.
    pub at: Timestamp,
    /// Why it is started.
    pub cause: Cause,
    /// Its id, if it does not follow from the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ExecutionId>,
    /// Whether those that run are cancelled for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancels: bool,
}

impl Waiting {
    /// The execution that it is.
    pub fn execution(&self, key: &Key) -> ExecutionId {
        self.id.unwrap_or_else(|| key.execution(self.at))
    }
}

/// Why something is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The time has come.
    Time,
    /// Somebody asked for what was left out.
    Backfill,
    /// Somebody asked for it.
    Trigger,
}

/// An execution that was started and is not known to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Which.
    pub id: ExecutionId,
    /// The time that it is about.
    pub at: Timestamp,
}

/// What became of a time, or of several in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The time; the first of several.
    pub at: Timestamp,
    /// Why something was to be started.
    pub cause: Cause,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An execution was started.
    Started {
        /// Which.
        id: ExecutionId,
        /// When.
        on: Timestamp,
    },
    /// Nobody would start it.
    Refused {
        /// The name of the reason.
        code: String,
        /// The reason, for people.
        reason: String,
        /// The last time that this is about.
        until: Timestamp,
        /// How many.
        count: u32,
    },
    /// It was passed over.
    Skipped {
        /// Why.
        why: Skip,
        /// The last time that this is about.
        until: Timestamp,
        /// How many.
        count: u32,
        /// Whether there were more that nobody counted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
}

/// Why a time is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// It was too late for it.
    Late,
    /// An earlier execution ran.
    Overlap,
    /// Too many were waiting.
    Full,
    /// A later one took its place.
    Superseded,
    /// The schedule was paused.
    Paused,
}

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the reason.
    pub code: &'static str,
    /// The reason, for people.
    pub reason: String,
}

/// Why nothing is started by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// At the bound.
    #[error("{MAX_WAITING} executions of the schedule wait to be started; come again later")]
    Full,
    /// By the policy.
    #[error(
        "an earlier execution of the schedule runs, and its policy is to skip; ask for another \
         policy, such as `buffer_one` or `allow`"
    )]
    Overlap,
}

/// Why nothing is backfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    /// The range is none.
    #[error("the range ends before it begins")]
    Backwards,
    /// The range reaches into the future.
    #[error("the range ends in the future; what is yet to come will come by itself")]
    Future,
    /// At the bound.
    #[error(
        "the range has more than {room} times, and there is room for so many at a moment; \
         backfill a shorter one, and the rest when these have been started"
    )]
    TooMany {
        /// For how many there is room.
        room: usize,
    },
}

impl State {
    /// A schedule that begins.
    pub fn new(schedule: &Schedule, now: Timestamp) -> Self {
        let mut state = Self {
            position: now,
            timing: schedule.timing.to_string(),
            ..Self::default()
        };
        state.declare(schedule, now);
        state
    }

    /// Goes on under another version of the schedule, in force since `since`.
    pub fn replace(&mut self, schedule: &Schedule, since: Timestamp) {
        let timing = schedule.timing.to_string();
        if timing != self.timing {
            // Times that only the new timing has did not count before.
            self.position = self.position.max(since);
            self.timing = timing;
        }
        self.declare(schedule, since);
    }

    /// Does as the file says, if it says another thing than before.
    fn declare(&mut self, schedule: &Schedule, now: Timestamp) {
        if schedule.paused == self.declared_paused {
            return;
        }
        self.declared_paused = schedule.paused;
        if schedule.paused {
            self.pause(now, "its file says so".to_owned());
        } else {
            self.resume(schedule, now);
        }
    }

    /// When it must be looked at next, if nothing else happens.
    pub fn wake_at(&self, key: &Key, schedule: &Schedule) -> Option<Timestamp> {
        if self.paused.is_some() {
            return None;
        }
        let next = schedule.timing.next(self.position)?;
        Some(schedule.timing.acts_at(&key.name, next))
    }

    /// Whether what is open is to be cancelled, for what waits.
    pub fn cancels(&self) -> bool {
        self.waiting.front().is_some_and(|first| first.cancels)
    }

    /// Decides what is due.
    pub fn pass(&mut self, key: &Key, schedule: &Schedule, now: Timestamp) {
        if self.paused.is_some() {
            return;
        }
        let due = schedule.due(&key.name, self.position, now);
        self.position = due.position;
        if let Some(missed) = due.missed {
            self.skipped(missed, Skip::Late);
        }
        for at in due.times {
            self.ask(key, Waiting::of(at, Cause::Time), schedule.overlap);
        }
    }

    /// Starts an execution now, which is `id`. One that is there already is not
    /// started again.
    ///
    /// # Errors
    ///
    /// [`TriggerError`], if it is not to be started.
    pub fn trigger(
        &mut self,
        key: &Key,
        schedule: &Schedule,
        now: Timestamp,
        id: ExecutionId,
        overlap: Option<Overlap>,
    ) -> Result<(), TriggerError> {
        if self.has_started(id) {
            return Ok(());
        }
        let waiting = Waiting {
            id: Some(id),
            ..Waiting::of(now, Cause::Trigger)
        };
        let overlap = overlap.unwrap_or(schedule.overlap);
        match self.ask(key, waiting, overlap) {
            None => Ok(()),
            Some(Skip::Full) => Err(TriggerError::Full),
            Some(_) => Err(TriggerError::Overlap),
        }
    }

    /// Starts what was left out in a range, its ends included, one after the other unless a
    /// policy says otherwise; says how many times that is.
    ///
    /// # Errors
    ///
    /// [`BackfillError`], and then nothing is started.
    pub fn backfill(
        &mut self,
        key: &Key,
        schedule: &Schedule,
        now: Timestamp,
        (from, until): (Timestamp, Timestamp),
        overlap: Option<Overlap>,
    ) -> Result<usize, BackfillError> {
        if until < from {
            return Err(BackfillError::Backwards);
        }
        if until > now {
            return Err(BackfillError::Future);
        }
        let room = MAX_WAITING.saturating_sub(self.waiting.len() + self.starting.len());
        let mut times = Vec::new();
        let mut at = Timestamp(from.0.saturating_sub(1));
        while let Some(next) = schedule.timing.next(at).filter(|next| *next <= until) {
            if times.len() == room {
                return Err(BackfillError::TooMany { room });
            }
            at = next;
            times.push(next);
        }
        let overlap = overlap.unwrap_or(Overlap::BufferAll);
        for at in &times {
            self.ask(key, Waiting::of(*at, Cause::Backfill), overlap);
        }
        Ok(times.len())
    }

    /// Lets nothing be started by the time. One that is paused stays so.
    pub fn pause(&mut self, now: Timestamp, reason: String) {
        if self.paused.is_some() {
            return;
        }
        self.paused = Some(PauseMark { at: now, reason });
        self.drop_waiting(Skip::Paused, |waiting| waiting.cause == Cause::Time);
    }

    /// Lets it go on with what is due from now on.
    pub fn resume(&mut self, schedule: &Schedule, now: Timestamp) {
        if self.paused.take().is_none() {
            return;
        }
        if let Some(passed) = count(&schedule.timing, self.position, now) {
            self.skipped(passed, Skip::Paused);
        }
        self.position = self.position.max(now);
    }

    /// An execution runs, started now or before.
    pub fn started(&mut self, key: &Key, id: ExecutionId, on: Timestamp) {
        let Some(waiting) = self.take_starting(key, id) else {
            return;
        };
        self.remember(Record {
            at: waiting.at,
            cause: waiting.cause,
            outcome: Outcome::Started { id, on },
        });
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(Opened { id, at: waiting.at });
    }

    /// An execution was not started, and will not be.
    pub fn refused(&mut self, key: &Key, id: ExecutionId, refusal: Refusal) {
        let Some(waiting) = self.take_starting(key, id) else {
            return;
        };
        let Refusal { code, reason } = refusal;
        self.remember(Record {
            at: waiting.at,
            cause: waiting.cause,
            outcome: Outcome::Refused {
                code: code.to_owned(),
                reason: reason.chars().take(MAX_REASON).collect(),
                until: waiting.at,
                count: 1,
            },
        });
        self.next();
    }

    /// An execution has ended.
    pub fn ended(&mut self, id: ExecutionId) {
        self.open.retain(|open| open.id != id);
        self.next();
    }

    /// Whether an earlier execution runs, or is about to.
    fn is_busy(&self) -> bool {
        !self.open.is_empty() || !self.starting.is_empty()
    }

    fn has_started(&self, id: ExecutionId) -> bool {
        let started = |record: &Record| match record.outcome {
            Outcome::Started { id: of, .. } => of == id,
            _ => false,
        };
        self.recent.iter().any(started)
    }

    /// Whether an execution is to be started, or runs.
    fn is_under_way(&self, key: &Key, id: ExecutionId) -> bool {
        let mut to_start = self.starting.iter().chain(&self.waiting);
        to_start.any(|waiting| waiting.execution(key) == id)
            || self.open.iter().any(|open| open.id == id)
    }

    /// Starts something, or has it wait, as a policy says; says why, if neither.
    fn ask(&mut self, key: &Key, waiting: Waiting, overlap: Overlap) -> Option<Skip> {
        if self.is_under_way(key, waiting.execution(key)) {
            return None;
        }
        let skip = self.refuse(&waiting, overlap);
        if let Some(why) = skip {
            // Who asks by hand is told.
            if waiting.cause != Cause::Trigger {
                self.skipped_one(waiting, why);
            }
            return skip;
        }
        if overlap == Overlap::Allow || !self.is_busy() {
            self.starting.push(waiting);
        } else if overlap == Overlap::CancelOther {
            self.drop_waiting(Skip::Superseded, |waiting| {
                waiting.cancels || waiting.cause == Cause::Time
            });
            // In front of what somebody asked for, or that would be started when the
            // cancelled ones have ended.
            self.waiting.push_front(Waiting {
                cancels: true,
                ..waiting
            });
        } else {
            self.waiting.push_back(waiting);
        }
        None
    }

    /// Why something is neither started nor waits.
    fn refuse(&self, waiting: &Waiting, overlap: Overlap) -> Option<Skip> {
        let is_full = self.waiting.len() + self.starting.len() >= MAX_WAITING;
        let mut others = self.waiting.iter();
        match overlap {
            Overlap::Skip if self.is_busy() => Some(Skip::Overlap),
            Overlap::BufferOne if others.any(|other| other.cause == waiting.cause) => {
                Some(Skip::Overlap)
            }
            _ => is_full.then_some(Skip::Full),
        }
    }

    /// Starts what waits, if nothing runs any more. So while something waits, something
    /// runs that it waits for.
    fn next(&mut self) {
        if self.is_busy() {
            return;
        }
        let next = self.waiting.pop_front().map(|waiting| Waiting {
            cancels: false,
            ..waiting
        });
        self.starting.extend(next);
    }

    fn take_starting(&mut self, key: &Key, id: ExecutionId) -> Option<Waiting> {
        let mut starting = self.starting.iter();
        let at = starting.position(|waiting| waiting.execution(key) == id)?;
        Some(self.starting.remove(at))
    }

    /// Passes over some of what waits.
    fn drop_waiting(&mut self, why: Skip, which: impl Fn(&Waiting) -> bool) {
        let waiting = std::mem::take(&mut self.waiting);
        for waiting in waiting {
            if which(&waiting) {
                self.skipped_one(waiting, why);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    fn skipped_one(&mut self, waiting: Waiting, why: Skip) {
        let (at, until) = (waiting.at, waiting.at);
        let outcome = Outcome::Skipped {
            why,
            until,
            count: 1,
            more: false,
        };
        self.remember(Record {
            at,
            cause: waiting.cause,
            outcome,
        });
    }

    fn skipped(&mut self, missed: Missed, why: Skip) {
        self.remember(Record {
            at: missed.first,
            cause: Cause::Time,
            outcome: Outcome::Skipped {
                why,
                until: missed.until,
                count: missed.count,
                more: missed.more,
            },
        });
    }

    /// Remembers a record; one that says the same as the last becomes part of that.
    fn remember(&mut self, record: Record) {
        if let Some(last) = self.recent.back_mut()
            && last.cause == record.cause
            && last.outcome.takes(&record.outcome)
        {
            return;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record);
    }
}

impl Outcome {
    /// Takes another one in, if it says the same of later times.
    fn takes(&mut self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Skipped {
                    why,
                    until,
                    count,
                    more,
                },
                Self::Skipped {
                    why: same,
                    until: later,
                    count: further,
                    more: also,
                },
            ) if why == same => {
                *until = (*until).max(*later);
                *count = count.saturating_add(*further);
                *more |= also;
                true
            }
            (
                Self::Refused {
                    code,
                    reason,
                    until,
                    count,
                },
                Self::Refused {
                    code: same,
                    reason: newer,
                    until: later,
                    count: further,
                },
            ) if code == same => {
                reason.clone_from(newer);
                *until = (*until).max(*later);
                *count = count.saturating_add(*further);
                true
            }
            _ => false,
        }
    }
}

impl Waiting {
    fn of(at: Timestamp, cause: Cause) -> Self {
        Self {
            at,
            cause,
            id: None,
            cancels: false,
        }
    }
}
