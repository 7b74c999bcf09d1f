//! Errors that the interpreter itself gives, by the names that ASL has for them.

/// Names of errors; "Reserved error codes" of the language and the guide.
pub mod names {
    /// Matches any error but [`RUNTIME`].
    pub const ALL: &str = "States.ALL";
    /// A task failed; in `Retry` and `Catch`, any error but [`TIMEOUT`].
    pub const TASK_FAILED: &str = "States.TaskFailed";
    /// A task or an execution took longer than its `TimeoutSeconds`.
    pub const TIMEOUT: &str = "States.Timeout";
    /// A task was silent for longer than its `HeartbeatSeconds`.
    pub const HEARTBEAT_TIMEOUT: &str = "States.HeartbeatTimeout";
    /// The definition does not fit the data. Never retried, never caught.
    pub const RUNTIME: &str = "States.Runtime";
    /// A JSONata expression failed, or gave what its field cannot take.
    pub const QUERY_EVALUATION: &str = "States.QueryEvaluationError";
    /// An intrinsic function failed.
    pub const INTRINSIC_FAILURE: &str = "States.IntrinsicFailure";
    /// `ResultPath` does not fit the state's input.
    pub const RESULT_PATH_MATCH: &str = "States.ResultPathMatchFailure";
    /// Data is larger than a state may pass on.
    pub const DATA_LIMIT: &str = "States.DataLimitExceeded";
    /// No rule of a Choice state holds and it has no `Default`.
    pub const NO_CHOICE_MATCHED: &str = "States.NoChoiceMatched";
    /// More iterations of a Map state failed than it tolerates.
    pub const TOLERATED_FAILURES: &str = "States.ExceedToleratedFailureThreshold";
    /// The items of a Map state could not be read.
    pub const ITEM_READER: &str = "States.ItemReaderFailed";
    /// The results of a Map state could not be written.
    pub const RESULT_WRITER: &str = "States.ResultWriterFailed";
}

/// A failure of a state whose name is yet to be added to the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its name.
    pub(crate) error: &'static str,
    /// What went wrong, in AWS's words where they are known.
    pub(crate) cause: String,
}

impl Fault {
    pub(crate) fn new(error: &'static str, cause: impl Into<String>) -> Self {
        Self {
            error,
            cause: cause.into(),
        }
    }

    pub(crate) fn runtime(cause: impl Into<String>) -> Self {
        Self::new(names::RUNTIME, cause)
    }

    pub(crate) fn query(cause: impl Into<String>) -> Self {
        Self::new(names::QUERY_EVALUATION, cause)
    }
}
