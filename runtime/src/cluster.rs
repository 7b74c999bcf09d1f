//! This process as one of several that share a database.
//!
//! A node tells the store that it is there, holds shards by leases, and moves their executions
//! on for as long as they last ([`member`]). Who takes or gives which shards is decided by a
//! pure function over what the store says ([`plan`]); every node comes to the same. Requests
//! that reach the wrong node, and what executions ask of others, go to the owner over HTTP
//! ([`link`]).
//!
//! A crash leaves leases that end by themselves. Nothing here is durable but what the store
//! keeps of nodes and leases; the epochs of leases, and not this module, see to it that nobody
//! writes what is not theirs.

pub mod link;
pub mod member;
pub mod plan;
mod presence;

pub use link::{Hops, Link};
pub use member::{Cluster, Settings};
pub use presence::Presence;
