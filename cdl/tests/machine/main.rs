//! The machine's tests.

mod asl;
mod callback;
mod children;
mod compensate;
mod compile;
mod coverage;
mod failures;
mod flows;
mod histories;
mod limits;
mod map;
mod outside;
mod parallel;
mod pause;
mod plan;
mod properties;
mod snapshots;
mod spread;
mod spread_edges;
mod strategies;
mod tags;
mod transcript;
