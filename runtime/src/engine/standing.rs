//! How an execution stands, as the API and the command line tell it.

use cascade_cdl::{Execution, Failure, Json, Status};
use serde::Serialize;

use crate::store::StatusName;

/// What became of an execution, so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    pub status: StatusName,
    /// Of one that completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// Of one that ended otherwise: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl Standing {
    pub fn of(execution: &Execution) -> Self {
        let mut standing = Self::from(execution.status.clone());
        if execution.paused.is_some() && standing.status.is_open() {
            standing.status = StatusName::Paused;
        }
        standing
    }
}

/// What the status alone tells: a paused execution runs.
impl From<Status> for Standing {
    fn from(status: Status) -> Self {
        let ended = |status, error: &str, message| {
            let error = Failure {
                error: error.to_owned(),
                message,
                state: None,
                details: None,
            };
            (status, None, Some(error))
        };
        let (status, output, error) = match status {
            Status::Running | Status::Compensating { .. } => (StatusName::Running, None, None),
            Status::Completed { output } => (StatusName::Completed, Some(output), None),
            Status::Failed { failure } => (StatusName::Failed, None, Some(failure)),
            Status::Cancelled { reason } => ended(StatusName::Cancelled, "Cancelled", reason),
            Status::TimedOut { timeout_ms } => ended(
                StatusName::TimedOut,
                "TimedOut",
                format!("the workflow's timeout of {timeout_ms} ms passed"),
            ),
        };
        Self {
            status,
            output,
            error,
        }
    }
}
