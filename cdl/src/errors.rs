//! The error names that Cascade itself gives and knows.
//!
//! Activities name their errors as they like; `catch` and the retry rules
//! match by name.

/// An attempt took longer than its state's `timeout`.
pub const TIMEOUT: &str = "TimeoutError";
/// An expression could not be evaluated, or gave a value of the wrong type.
pub const EXPRESSION: &str = "ExpressionError";
/// No condition of a Choice state holds and it has no default.
pub const NO_CHOICE_MATCHED: &str = "NoChoiceMatched";
/// The workflow's input cannot be used.
pub const INVALID_INPUT: &str = "InvalidInput";
/// The execution holds more data than it may.
pub const CONTEXT_TOO_LARGE: &str = "ContextTooLarge";
/// More branches, or branches nested deeper, than an execution may have.
pub const FRAME_LIMIT: &str = "FrameLimitExceeded";
/// So many branches of a Parallel state failed that too few can succeed.
pub const BRANCHES_FAILED: &str = "BranchesFailed";
/// A Map state has more items than it may.
pub const ITEM_LIMIT: &str = "ItemLimitExceeded";
/// More iterations of a Map state failed than it tolerates.
pub const TOLERANCE_EXCEEDED: &str = "FailureToleranceExceeded";
/// The items of a Map could not be read.
pub const ITEM_READ: &str = "ItemReadFailed";
/// The results of a Map could not be written.
pub const RESULT_WRITE: &str = "ResultWriteFailed";
/// More completed steps may have to be compensated than are remembered.
pub const COMPENSATION_LIMIT: &str = "CompensationLimitExceeded";
/// One event led through too many states without waiting: an endless loop.
pub const STEP_LIMIT: &str = "StepLimitExceeded";
/// Children of children, deeper than they may be.
pub const NESTING_LIMIT: &str = "NestingLimitExceeded";
/// A Task runs a workflow that is not there.
pub const WORKFLOW_NOT_FOUND: &str = "WorkflowNotFound";
/// The child that a Task waits for was cancelled.
pub const CHILD_CANCELLED: &str = "ChildCancelled";
/// The child that a Task waits for ran into a limit that is past every `catch`
/// of its own, but not of its parent's.
pub const CHILD_FAILED: &str = "ChildFailed";
/// The history has as many events as it may.
pub const HISTORY_LIMIT: &str = "HistoryLimitExceeded";

/// Errors that trying again does not mend.
const NOT_RETRIED: [&str; 8] = [
    "ValidationError",
    "AuthorizedError",
    "AuthorizationError",
    "NotFoundError",
    INVALID_INPUT,
    NO_CHOICE_MATCHED,
    EXPRESSION,
    CONTEXT_TOO_LARGE,
];

/// Whether an error of this name is tried again unless the activity says
/// otherwise. Unknown names are.
pub fn is_retried(error: &str) -> bool {
    !NOT_RETRIED.contains(&error)
}

/// Whether an entry `name` of a `catch` list handles `error`.
pub fn handles(name: &str, error: &str) -> bool {
    name == "*" || canonical(name) == canonical(error)
}

/// Whether an error of this name ends the execution past every `catch`: a
/// handler would only run into the same limit again.
pub fn is_fatal(error: &str) -> bool {
    error == STEP_LIMIT || error == HISTORY_LIMIT
}

/// `AuthorizedError` and `AuthorizationError` are the same error.
fn canonical(name: &str) -> &str {
    match name {
        "AuthorizedError" => "AuthorizationError",
        other => other,
    }
}
