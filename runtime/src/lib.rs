//! The shell around [`cascade_cdl`]: engine, store, sandbox, HTTP API and CLI.
//!
//! One way through: `api → engine(shard) → store → dispatch → worker →
//! sandbox → engine(shard)`. ARCHITECTURE.md draws it.

pub mod api;
pub mod catalog;
mod change;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod dispatch;
pub mod engine;
mod hidden;
pub mod objects;
pub mod places;
mod rate;
pub mod sandbox;
pub mod schedules;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tenancy;
mod threads;
pub mod worker;
