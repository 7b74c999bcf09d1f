//! End to end, over HTTP, with the real binary.

mod chaos;
mod cli;
mod direction;
mod examples;
mod outside;
mod polyglot;
mod readme;
mod recovery;
