//! The shell around [`cascade_cdl`]: engine, store, sandbox, HTTP API and CLI.
//!
//! One way through: `api → engine(shard) → store → dispatch → worker →
//! sandbox → engine(shard)`. ARCHITECTURE.md draws it.

pub mod catalog;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod engine;
pub mod sandbox;
pub mod store;
pub mod tenancy;
pub mod worker;
