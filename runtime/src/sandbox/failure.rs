//! How an attempt can end other than by returning: one name each, and a
//! message that says which limit was hit, its value, and how to raise it.
//!
//! | name | meaning |
//! |---|---|
//! | [`FUEL_EXHAUSTED`] | used all of `fuel_per_attempt` |
//! | [`CPU_TIME_EXCEEDED`] | took far more of a processor than its fuel stands for |
//! | [`MEMORY_EXCEEDED`] | asked for more than `memory_bytes`, memory and tables together |
//! | [`TRAP`] | the code trapped: unreachable, division by zero, out of bounds, stack overflow |
//! | [`TIMEOUT`] | the attempt's deadline passed, or its heartbeat fell silent |
//! | [`OUTPUT_TOO_LARGE`] | passed more than `output_bytes` back, or too much to one host call |
//! | [`INVALID_OUTPUT`] | the output is not UTF-8, not JSON, or nested too deeply |
//! | [`INVALID_INPUT`] | the input is longer than `input_bytes` |
//! | [`EXPORT_MISSING`] | the module exports neither `handle` nor `wasi:cli/run` |
//! | [`ACTIVITY_NOT_FOUND`] | the module's bytes are nowhere to be had |
//! | [`CAPABILITY_DENIED`] | used a clock or randomness that is not granted (`http` and `key-value` return `denied` instead) |
//! | [`HOST_PANIC`] | a bug of Cascade's, which costs this attempt only |
//! | [`CANCELLED`] | nobody waits for the attempt any more |
//! | [`UNAVAILABLE`] | the server could not load the module: a full disk, no memory |
//! | [`ACTIVITY_FAILED`] | a command module exited with another code than 0 and said no more |

use cascade_cdl::ActivityFailure;
use wasmtime::Trap;

use super::limits::{Capability, Limits};

/// Used all of `fuel_per_attempt`.
pub const FUEL_EXHAUSTED: &str = "FuelExhausted";
/// Took far more of a processor than its fuel stands for.
pub const CPU_TIME_EXCEEDED: &str = "CpuTimeExceeded";
/// Asked for more than `memory_bytes`.
pub const MEMORY_EXCEEDED: &str = "MemoryExceeded";
/// The code trapped.
pub const TRAP: &str = "Trap";
/// The deadline passed, or the heartbeat fell silent.
pub const TIMEOUT: &str = "TimeoutError";
/// Passed too much back.
pub const OUTPUT_TOO_LARGE: &str = "OutputTooLarge";
/// The output is not JSON.
pub const INVALID_OUTPUT: &str = "InvalidOutput";
/// The input is too long.
pub const INVALID_INPUT: &str = "InvalidInput";
/// Nothing to call.
pub const EXPORT_MISSING: &str = "ExportMissing";
/// The module's bytes are nowhere to be had.
pub const ACTIVITY_NOT_FOUND: &str = "ActivityNotFound";
/// Used a power that is not granted.
pub const CAPABILITY_DENIED: &str = "CapabilityDenied";
/// A bug of Cascade's.
pub const HOST_PANIC: &str = "HostPanic";
/// Nobody waits any more.
pub const CANCELLED: &str = "Cancelled";
/// The server could not load the module.
pub const UNAVAILABLE: &str = "ServiceUnavailable";
/// A command module failed without saying how.
pub const ACTIVITY_FAILED: &str = "ActivityFailed";

/// Why an attempt was stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("the attempt used all of its fuel")]
    Fuel,
    #[error("the attempt took more than {limit_ms} ms of a processor")]
    CpuTime { limit_ms: u64 },
    #[error("memory and tables would grow to {asked} bytes")]
    Memory { asked: u64 },
    #[error("a table would grow to {asked} elements")]
    Table { asked: u64 },
    #[error("{what} is larger than {limit} bytes")]
    OutputTooLarge { what: &'static str, limit: u64 },
    #[error("{0}")]
    InvalidOutput(String),
    #[error("the input has {len} bytes")]
    InputTooLarge { len: u64 },
    #[error("capability `{0}` is not granted")]
    CapabilityDenied(Capability),
    #[error("exit code {0}")]
    Exit(u8),
    #[error("the attempt held more than {0} WASI handles")]
    TooManyHandles(usize),
    #[error("trap: {0}")]
    Trap(String),
    #[error("the attempt took longer than {limit_ms} ms")]
    Deadline { limit_ms: u64 },
    #[error("no heartbeat for {silence_ms} ms")]
    HeartbeatSilent { silence_ms: u64 },
    #[error("cancelled")]
    Cancelled,
    #[error("panic in the host: {0}")]
    HostPanic(String),
    #[error("{0}")]
    ExportMissing(String),
    #[error("no module with digest {0}")]
    NotFound(String),
    #[error("{0}")]
    Unavailable(String),
}

impl Stop {
    /// What wasmtime's error stands for.
    pub(super) fn of(error: &wasmtime::Error) -> Self {
        if let Some(stop) = error.downcast_ref::<Self>() {
            return stop.clone();
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return match trap {
                Trap::OutOfFuel => Self::Fuel,
                Trap::StackOverflow => {
                    Self::Trap("call stack exhausted (endless recursion?)".into())
                }
                trap => Self::Trap(trap.to_string()),
            };
        }
        if error.downcast_ref::<std::str::Utf8Error>().is_some()
            || error.downcast_ref::<std::string::FromUtf8Error>().is_some()
        {
            return Self::InvalidOutput("text that the activity passed is not UTF-8".into());
        }
        // Wasmtime's type for this is private; a test holds the wording.
        let text = format!("{error:#}");
        if text.contains("fuel allocated for hostcalls has been exhausted") {
            return Self::OutputTooLarge {
                what: "what the activity passed in one call",
                limit: 0,
            };
        }
        Self::Trap(clip(text))
    }

    /// Whether a pure activity would end the same way again.
    fn is_deterministic(&self) -> bool {
        match self {
            Self::Fuel
            | Self::Memory { .. }
            | Self::Table { .. }
            | Self::OutputTooLarge { .. }
            | Self::InvalidOutput(_)
            | Self::InputTooLarge { .. }
            | Self::CapabilityDenied(_)
            | Self::Exit(_)
            | Self::TooManyHandles(_)
            | Self::Trap(_)
            | Self::ExportMissing(_) => true,
            Self::CpuTime { .. }
            | Self::Deadline { .. }
            | Self::HeartbeatSilent { .. }
            | Self::Cancelled
            | Self::HostPanic(_)
            | Self::NotFound(_)
            | Self::Unavailable(_) => false,
        }
    }

    /// The failure that the workflow sees.
    pub(super) fn into_failure(self, limits: &Limits, pure: bool) -> ActivityFailure {
        let retryable = (pure && self.is_deterministic()).then_some(false);
        let (error, message) = self.describe(limits);
        ActivityFailure {
            error: error.to_owned(),
            message,
            retryable,
            details: None,
        }
    }

    fn describe(self, limits: &Limits) -> (&'static str, String) {
        match self {
            Self::Fuel => (
                FUEL_EXHAUSTED,
                raise(
                    &format!(
                        "the attempt used all of its {} fuel",
                        limits.fuel_per_attempt
                    ),
                    "fuel_per_attempt",
                ),
            ),
            Self::CpuTime { limit_ms } => (CPU_TIME_EXCEEDED, cpu_time(limit_ms, limits)),
            Self::Memory { asked } => (
                MEMORY_EXCEEDED,
                raise(
                    &format!(
                        "the attempt asked for {asked} bytes of memory, its limit is {}",
                        limits.memory_bytes
                    ),
                    "memory_bytes",
                ),
            ),
            Self::Table { asked } => (
                MEMORY_EXCEEDED,
                format!(
                    "the attempt asked for a table of {asked} elements, the limit is {} and fixed",
                    super::engine::TABLE_ELEMENTS
                ),
            ),
            Self::TooManyHandles(limit) => (
                MEMORY_EXCEEDED,
                format!("the attempt held {limit} WASI handles at once, the limit is fixed"),
            ),
            Self::OutputTooLarge { what, limit } => {
                let limit = if limit == 0 {
                    limits.output_bytes
                } else {
                    limit
                };
                (
                    OUTPUT_TOO_LARGE,
                    raise(
                        &format!("{what} is larger than {limit} bytes"),
                        "output_bytes",
                    ),
                )
            }
            Self::InvalidOutput(message) => (INVALID_OUTPUT, message),
            Self::InputTooLarge { len } => (
                INVALID_INPUT,
                raise(
                    &format!(
                        "the input has {len} bytes, the limit is {}",
                        limits.input_bytes
                    ),
                    "input_bytes",
                ),
            ),
            Self::CapabilityDenied(capability) => (
                CAPABILITY_DENIED,
                format!(
                    "capability `{capability}` is not granted: name it in the activity's manifest \
                     and in the tenant's policy (`tenants[].policy.capabilities` in cascade.yaml)"
                ),
            ),
            Self::Exit(code) => (
                ACTIVITY_FAILED,
                format!("the command exited with code {code}"),
            ),
            Self::Trap(kind) => (TRAP, format!("the activity trapped: {kind}")),
            Self::Deadline { limit_ms } => (
                TIMEOUT,
                format!(
                    "the attempt ran past its deadline after {limit_ms} ms; raise the state's \
                     `timeout` or `tenants[].limits.attempt_timeout` in cascade.yaml"
                ),
            ),
            Self::HeartbeatSilent { silence_ms } => (
                TIMEOUT,
                format!(
                    "the attempt sent no heartbeat for {silence_ms} ms; call `heartbeat` more \
                     often, or raise the state's `heartbeat`"
                ),
            ),
            Self::Cancelled => (CANCELLED, "the attempt was cancelled".into()),
            Self::HostPanic(what) => (
                HOST_PANIC,
                format!("a host call of the attempt panicked, which is a bug of Cascade's: {what}"),
            ),
            Self::ExportMissing(message) => (EXPORT_MISSING, message),
            Self::NotFound(digest) => (
                ACTIVITY_NOT_FOUND,
                format!("no module with digest {digest} is stored"),
            ),
            Self::Unavailable(message) => (UNAVAILABLE, message),
        }
    }
}

fn cpu_time(limit_ms: u64, limits: &Limits) -> String {
    let fuel = limits.fuel_per_attempt;
    let what = format!(
        "the attempt took more than {limit_ms} ms of a processor, far more than its {fuel} fuel stand for"
    );
    raise(&what, "fuel_per_attempt")
}

fn raise(what: &str, limit: &str) -> String {
    format!("{what}; raise `tenants[].limits.{limit}` in cascade.yaml, or do less in one attempt")
}

/// Longest message that a guest or its toolchain can put into a history.
const MAX_MESSAGE: usize = 8 << 10;

/// `text`, at most [`MAX_MESSAGE`] bytes of it.
pub(super) fn clip(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = text.floor_char_boundary(MAX_MESSAGE);
        text.truncate(end);
        text.push_str(" [truncated]");
    }
    text
}
