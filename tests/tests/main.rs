//! End to end, over HTTP, with the real binary.

mod cli;
mod examples;
mod recovery;
