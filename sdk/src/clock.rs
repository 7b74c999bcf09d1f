//! Capability `clock`: the real time.
//!
//! `std::time` needs no capability, but is virtual: it stands at the time when
//! the task was scheduled. To call this module makes the activity impure.

use std::time::{Duration, SystemTime};

use crate::host;

/// The real time.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms())
}

/// The real time in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    host::now_ms()
}
