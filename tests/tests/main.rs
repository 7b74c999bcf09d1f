//! End to end, over HTTP, with the real binary.

mod chaos;
mod children;
mod cli;
mod cluster;
mod conformance;
mod deployment;
mod direction;
mod examples;
mod large;
mod lsp;
mod moves;
mod outside;
mod pause;
mod polyglot;
mod postgres;
mod readme;
mod recovery;
mod replicas;
mod schedules;
mod secrets;
mod shared;
mod sim;
mod takeover;
mod testing;
