//! When a workflow is started by the time, and what becomes of a time that comes
//! late or while an earlier execution runs.
//!
//! A [`Schedule`] is what a file declares; a [`State`] is how far it is. Both are
//! pure: whoever keeps the state tells it what happens and when, makes the new
//! state durable, and then does what it says. A time is decided once, and
//! the execution that it starts has an id that derives from it
//! ([`Key::execution`]), so that what is done twice is one.
//!
//! Nothing here grows without a bound: what waits, what is remembered, and the work
//! of a single step are all limited by the constants below.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::expression::{Env, EvalError, Template};
use crate::{ExecutionId, Json, TenantId, Timestamp};

mod cron;
mod due;
mod state;
#[cfg(test)]
mod tests;
mod timing;

pub use cron::{Cron, MAX_CRON_LEN};
pub use due::Due;
pub use state::{
    BackfillError, Cause, Opened, Outcome, PauseMark, Record, Refusal, Skip, State, TriggerError,
    Waiting,
};
pub use timing::{Timing, When, Zone};

/// Cron expressions of one schedule: a handful of lines of a crontab.
pub const MAX_CRONS: usize = 8;

/// Schedules of one application: each is in memory, and looked at when it is due.
pub const MAX_SCHEDULES: usize = 100;

/// Shortest interval, in milliseconds. What has to happen more often is a loop in
/// a workflow.
pub const MIN_INTERVAL_MS: u64 = 1_000;

/// A time that is looked at within so long is on time, in milliseconds: a restart
/// takes seconds, and so does a machine that is busy at the full hour.
pub const ON_TIME_MS: u64 = 10_000;

/// How far back times are caught up with if the schedule does not say, and at most:
/// a year.
pub const MAX_WINDOW_MS: u64 = 365 * 24 * 60 * 60 * 1_000;

/// Executions of a schedule that are to be started, at once or after others: each
/// is some dozens of bytes in a row that is written as a whole.
pub const MAX_WAITING: usize = 200;

/// Times that are caught up with at once; of more, the latest.
pub const MAX_CATCH_UP: usize = MAX_WAITING;

/// Open executions that a schedule knows. Only with the policy `allow` can there be
/// more; then the oldest is no longer looked after.
pub const MAX_OPEN: usize = 100;

/// What is remembered of the last times.
pub const MAX_RECENT: usize = 20;

/// Times that are counted one by one when they are passed over; of more it is said
/// that there were more.
pub const MAX_COUNTED: u32 = 1_000;

/// What happens to times that were missed, because no server ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// They are passed over.
    None,
    /// The last of them is made up for, if it is no older than this, in milliseconds.
    Last(u64),
    /// All of them are, the oldest first, that are no older than this.
    All(u64),
}

impl CatchUp {
    /// The words that stand for the kinds of it.
    pub const WORDS: &[&str] = &["none", "last", "all"];

    /// How late a time may be, in milliseconds, not to be passed over.
    fn window(self) -> u64 {
        match self {
            Self::None => ON_TIME_MS,
            Self::Last(window) | Self::All(window) => window.max(ON_TIME_MS),
        }
    }
}

/// The last missed time, of the last year.
impl Default for CatchUp {
    fn default() -> Self {
        Self::Last(MAX_WINDOW_MS)
    }
}

impl fmt::Display for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = crate::front::show_duration;
        match self {
            Self::None => f.write_str("none"),
            Self::Last(window) => write!(f, "last within {}", show(*window)),
            Self::All(window) => write!(f, "all within {}", show(*window)),
        }
    }
}

/// What happens to a time that comes while an earlier execution of the schedule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is passed over.
    #[default]
    Skip,
    /// It waits for the end; one that comes while one waits is passed over.
    BufferOne,
    /// It waits for the end, in order, as many as have room.
    BufferAll,
    /// The running execution is cancelled, and when it has ended this one starts.
    CancelOther,
    /// It starts beside the others.
    Allow,
}

impl Overlap {
    /// The words that stand for the policies.
    pub const WORDS: &[&str] = &["skip", "buffer_one", "buffer_all", "cancel_other", "allow"];

    /// The policy that a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "skip" => Self::Skip,
            "buffer_one" => Self::BufferOne,
            "buffer_all" => Self::BufferAll,
            "cancel_other" => Self::CancelOther,
            "allow" => Self::Allow,
            _ => return None,
        })
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "skip",
            Self::BufferOne => "buffer_one",
            Self::BufferAll => "buffer_all",
            Self::CancelOther => "cancel_other",
            Self::Allow => "allow",
        })
    }
}

/// A schedule, as a file declares it.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name, unique in the application.
    pub name: Arc<str>,
    /// The workflow that it starts, one of the same application.
    pub workflow: Arc<str>,
    /// When.
    pub timing: Timing,
    /// The input of what it starts; `{}` without it.
    pub input: Option<Template>,
    /// What happens to times that were missed.
    pub catch_up: CatchUp,
    /// What happens while an earlier execution runs.
    pub overlap: Overlap,
    /// Whether it is paused until somebody resumes it.
    pub paused: bool,
}

impl Schedule {
    /// The input of the execution that a time starts.
    ///
    /// # Errors
    ///
    /// If an expression in it has no value.
    pub fn input(&self, at: Timestamp, id: ExecutionId) -> Result<Json, EvalError> {
        let Some(template) = &self.input else {
            return Ok(json!({}).into());
        };
        let schedule = json!({ "name": &*self.name, "at": at.to_string() });
        let value = template.eval(&Env {
            context: &Value::Null,
            overlays: &[],
            locals: &[("schedule", &schedule)],
            // The time that it is about, so that a late start has the same input.
            now: at,
            shards: INPUT_SHARDS,
            id,
            seq: 0,
        })?;
        Ok(Json::from_value(&value))
    }
}

/// What the filter `shard` counts modulo in an input: the default of the server, whose
/// setting is not known where a file is checked.
const INPUT_SHARDS: u32 = 10;

/// Which schedule of all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whose it is.
    pub tenant: TenantId,
    /// The application that declares it.
    pub application: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// The execution that a time of the schedule starts: the same time always names
    /// the same one.
    pub fn execution(&self, at: Timestamp) -> ExecutionId {
        ExecutionId::of_schedule(
            &self.tenant,
            &self.application,
            &self.name,
            &at.0.to_be_bytes(),
        )
    }

    /// The execution that somebody starts by hand; the same words name the same one.
    pub fn triggered(&self, words: &str) -> ExecutionId {
        // Longer than a time, or set apart from one by its first byte.
        let what = [b"\xfftrigger\0", words.as_bytes()].concat();
        ExecutionId::of_schedule(&self.tenant, &self.application, &self.name, &what)
    }
}

/// Which schedule started an execution, and for which time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// The schedule's name.
    pub name: Arc<str>,
    /// The time that it was due at, whenever it was started.
    pub at: Timestamp,
}
