//! The Amazon States Language: what its states compute.
//!
//! Definitions are read by the front end (`front::asl`) into the states of
//! `asl::program`, and run by the machine (`machine::asl`) like any other program.
//! Here is what lies between: the two query languages, JSONPath with intrinsic
//! functions and JSONata, the conditions of Choice states, timestamps, and the
//! names of errors. All of it is pure and bounded, and gives the same at every
//! replay.
//!
//! Sources: the specification at <https://states-language.net>, and the Step
//! Functions Developer Guide where AWS differs from it or says more.

pub(crate) mod choice;
pub mod conformance;
pub(crate) mod fault;
pub(crate) mod intrinsic;
pub(crate) mod jsonata;
pub(crate) mod path;
pub(crate) mod payload;
pub(crate) mod program;
pub(crate) mod random;
pub(crate) mod scope;
pub(crate) mod time;

pub use fault::names;
pub use program::{Binding, Bindings, Data, Envelope, MachineType, State};
