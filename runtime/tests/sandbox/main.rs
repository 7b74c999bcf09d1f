//! The sandbox from outside: what runs, what is stopped, and by which name.

mod admission;
mod artifacts;
mod capabilities;
mod limits;
mod outcomes;
mod support;
