//! The API over real connections: its routes, its documents, and attacks on it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod attacks;
mod objects;
mod outside;
mod pacing;
mod pause;
mod routes;
mod rules;
mod schedules;
mod search;
mod support;
mod uploads;
