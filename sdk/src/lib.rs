//! Write a [Cascade] activity: one function, compiled to a WebAssembly component.
//!
//! ```
//! use cascade_sdk::{Context, Error, info};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Input { order_id: String, amount_cents: u64 }
//!
//! #[derive(Serialize)]
//! struct Output { approved: bool }
//!
//! #[cascade_sdk::activity]
//! fn handle(context: Context, input: Input) -> Result<Output, Error> {
//!     if input.amount_cents > 100_000 {
//!         return Err(Error::new("PaymentDeclined", "over the limit").retryable(false));
//!     }
//!     info!("approved {} in attempt {}", input.order_id, context.attempt);
//!     Ok(Output { approved: true })
//! }
//! ```
//!
//! # What an activity may do
//!
//! Computing, [`log`] and [`heartbeat`] are always allowed. Everything else is a
//! capability: [`http`], [`kv`], [`clock`] and [`random`]. A module that is not
//! called leaves no import in the component, so what an activity can do is
//! read from its binary. It may do what its manifest asks for **and** the
//! tenant's policy allows. The manifest stands in `Cargo.toml`:
//!
//! ```toml
//! [package.metadata.cascade]
//! capabilities = ["http"]
//! http.hosts = ["api.example.com"]
//! ```
//!
//! An activity without capabilities is *pure*: `std::time` stands at the time
//! when the task was scheduled, hash maps are seeded by the task, and the same input
//! gives the same output, always. Cascade runs such steps without waiting for
//! the store, and can repeat them later to the byte.
//!
//! # Errors
//!
//! A failure has a name that `catch` and `retries` match. See [`Error`].
//!
//! # Tests
//!
//! The function stays callable, and the crate compiles for the machine that it
//! is developed on. `testing::Harness` runs it as Cascade would, from JSON to
//! JSON, with HTTP answers, a key-value store, a clock and random numbers of the
//! test's making; so `cargo test` is all that is needed.
//!
//! [Cascade]: https://github.com/cascade-workflows/cascade

pub mod clock;
mod context;
mod error;
pub mod heartbeat;
mod host;
pub mod http;
pub mod kv;
pub mod log;
pub mod random;
mod serve;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use cascade_sdk_macros::activity;
pub use context::Context;
pub use error::Error;
pub use serde_json::value::RawValue;
pub use serde_json::{Value, json};
pub use serve::Handler;

/// What the macro's expansion needs; no part of the interface.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::host::bindings;
    pub use crate::serve::assert_activity;
    #[cfg(target_family = "wasm")]
    pub use crate::serve::serve;
}
