//! Workflows that a Task runs as children.
//!
//! To its parent a child is an attempt like any other: it is asked for, given
//! up and asked for again by the same commands, and its end comes as the same
//! events. So timeouts, retries, `catch` and recovery are those of activities.

use serde::Serialize;

use super::limits::MAX_NESTING;
use super::walk::Machine;
use crate::program::Task;
use crate::{ActivityFailure, ExecutionId, Failure, Json, Status, errors};

impl Machine<'_> {
    /// That a Task which runs a workflow does not nest executions too deeply.
    pub(super) fn check_nesting(&self, task: &Task) -> Result<(), Failure> {
        let depth = self.execution.parent.map_or(0, |parent| parent.depth);
        if task.resource.child.is_none() || depth < MAX_NESTING {
            return Ok(());
        }
        let message = format!(
            "executions nest at most {MAX_NESTING} deep; does the workflow start itself without end?"
        );
        Err(Failure::new(errors::NESTING_LIMIT, message))
    }
}

/// What the end of a child is to the attempt that waits for it; `None` while it
/// has not ended.
///
/// A failure keeps the error's name and message, and has the child's id, the
/// state and the details in its own details.
pub fn outcome_of_child(
    child: ExecutionId,
    status: &Status,
) -> Option<Result<Json, ActivityFailure>> {
    let failure = match status {
        Status::Running | Status::Compensating { .. } => return None,
        Status::Completed { output } => return Some(Ok(output.clone())),
        Status::Failed { failure } => failed(child, failure),
        Status::Cancelled { reason } => ActivityFailure {
            error: errors::CHILD_CANCELLED.to_owned(),
            message: format!("the child was cancelled: {reason}"),
            // Who cancelled it does not want another one.
            retryable: Some(false),
            details: Some(details(child, None)),
        },
        Status::TimedOut { timeout_ms } => ActivityFailure {
            error: errors::TIMEOUT.to_owned(),
            message: format!("the child did not end within its timeout of {timeout_ms} ms"),
            retryable: None,
            details: Some(details(child, None)),
        },
    };
    Some(Err(failure))
}

fn failed(child: ExecutionId, failure: &Failure) -> ActivityFailure {
    let error = if errors::is_fatal(&failure.error) {
        errors::CHILD_FAILED
    } else {
        &failure.error
    };
    // Each level would try it again, and so multiply what runs.
    let is_final = [errors::NESTING_LIMIT, errors::WORKFLOW_NOT_FOUND].contains(&error);
    ActivityFailure {
        error: error.to_owned(),
        message: failure.message.clone(),
        retryable: is_final.then_some(false),
        details: Some(details(child, Some(failure))),
    }
}

fn details(child: ExecutionId, failure: Option<&Failure>) -> Json {
    Json::from_entries(&Whereabouts {
        execution_id: child,
        state: failure.and_then(|failure| failure.state.as_deref()),
        details: failure.and_then(|failure| failure.details.as_ref()),
    })
}

/// Where to look for what went wrong.
#[derive(Serialize)]
struct Whereabouts<'f> {
    execution_id: ExecutionId,
    state: Option<&'f str>,
    details: Option<&'f Json>,
}
