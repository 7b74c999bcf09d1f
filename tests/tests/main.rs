//! End to end, over HTTP, with the real binary.

mod chaos;
mod cli;
mod conformance;
mod direction;
mod examples;
mod moves;
mod outside;
mod polyglot;
mod readme;
mod recovery;
mod sim;
