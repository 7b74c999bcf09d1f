//! The shell around the machine: everything that touches the world.

pub mod sandbox;
