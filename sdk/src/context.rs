//! Who asks, and for which attempt.

use std::time::{Duration, SystemTime};

/// Who asks for this run of the activity, and which attempt it is.
///
/// Tests make one with `testing::context()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The tenant that the execution belongs to.
    pub tenant: String,
    /// The application, as in the CDL file's `metadata.name`.
    pub application: String,
    /// The workflow's name.
    pub workflow: String,
    /// The execution's id.
    pub execution_id: String,
    /// The name of the Task state.
    pub state: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// The same for every attempt of one state entry: pass it on to whatever
    /// deduplicates. Requests by [`crate::http`] carry it by themselves, as `Idempotency-Key`.
    pub idempotency_key: String,
    /// When the attempt was scheduled, in milliseconds since the Unix epoch.
    pub scheduled_at_ms: u64,
}

impl Context {
    /// When the attempt was scheduled. The same in a repetition, unlike
    /// [`crate::clock::now`].
    pub fn scheduled_at(&self) -> SystemTime {
        // Every u64 of milliseconds is less than the 2^63 seconds that a
        // `SystemTime` holds, so this cannot overflow.
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.scheduled_at_ms)
    }
}
