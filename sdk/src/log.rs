//! Lines in the log of the attempt.
//!
//! The macros take arguments as `println!` does:
//!
//! ```
//! cascade_sdk::info!("charged {} cents", 1_299);
//! cascade_sdk::warn!("the card expires soon");
//! ```
//!
//! Standard output and standard error go to the same log, as `info` and `warn`. The log
//! is bounded by the tenant's limit; what is beyond it is cut off.

use crate::host;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// What is worth knowing.
    Info,
    /// What may become a problem.
    Warn,
    /// What is one.
    Error,
}

/// Writes one line. The macros [`crate::info!`] and so on are shorter.
pub fn write(level: Level, message: &str) {
    host::log(level, message);
}

/// Writes a line of level `trace`; arguments as of [`format!`].
#[macro_export]
macro_rules! trace {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Trace, &::std::format!($($argument)*))
    };
}

/// Writes a line of level `debug`; arguments as of [`format!`].
#[macro_export]
macro_rules! debug {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Debug, &::std::format!($($argument)*))
    };
}

/// Writes a line of level `info`; arguments as of [`format!`].
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Info, &::std::format!($($argument)*))
    };
}

/// Writes a line of level `warn`; arguments as of [`format!`].
#[macro_export]
macro_rules! warn {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, &::std::format!($($argument)*))
    };
}

/// Writes a line of level `error`; arguments as of [`format!`].
#[macro_export]
macro_rules! error {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Error, &::std::format!($($argument)*))
    };
}
