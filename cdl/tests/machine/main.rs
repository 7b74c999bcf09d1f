//! The machine's tests.

mod compile;
mod failures;
mod flows;
mod limits;
mod parallel;
mod properties;
mod transcript;
