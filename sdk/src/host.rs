//! The calls to the host: imports on Wasm, the test harness natively.
//!
//! Both files have the same functions, so the modules above them exist once.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;
#[cfg(target_family = "wasm")]
pub use wasm::bindings;
#[cfg(target_family = "wasm")]
pub(crate) use wasm::*;
