//! Which states and transitions of a program executions went through.
//!
//! What is possible is read off the program, what was taken off the records of
//! [`apply_traced`](crate::apply_traced). A transition leads from a state to a state: two
//! ways of a Choice that lead to the same state are one, and so are two
//! entries of a `catch`. The end of a scope is none; it says no more than that
//! the state before it was entered.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::program::{Program, StateId};
use crate::{FrameId, Record};

/// What makes an execution take a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The state ended well.
    Next,
    /// It failed and has a `catch` for that, or was not answered in time and has
    /// an `on_timeout`.
    Caught,
    /// It has a scope of its own, whose first state this leads to.
    Inside,
}

/// A transition of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Where it comes from.
    pub from: StateId,
    /// Where it leads.
    pub to: StateId,
    /// Why it is taken.
    pub cause: Cause,
}

/// All transitions that executions of a program may take.
pub fn edges(program: &Program) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    for (from, state) in (0..).map(StateId).zip(&program.states) {
        let mut add = |to: Vec<StateId>, cause| {
            edges.extend(to.into_iter().map(|to| Edge { from, to, cause }));
        };
        add(state.following(), Cause::Next);
        add(state.handling(), Cause::Caught);
        let scopes = state.nested().into_iter();
        let starts = scopes.map(|scope| program.scope(scope).start);
        add(starts.collect(), Cause::Inside);
    }
    edges
}

/// The way of one execution.
#[derive(Debug, Default)]
pub struct Trace {
    /// The states that were entered, in order.
    entered: Vec<StateId>,
    taken: BTreeSet<Edge>,
    /// The state that a frame has left, and why, until it enters another one.
    left: BTreeMap<FrameId, (StateId, Cause)>,
    /// Frames that have entered a state.
    begun: BTreeSet<FrameId>,
}

impl Trace {
    /// Takes in what follows next.
    pub fn observe(&mut self, program: &Program, record: &Record) {
        match record {
            Record::StateEntered { place } => {
                let to = place.id;
                self.entered.push(to);
                let begins = self.begun.insert(place.frame);
                let origin = self.left.remove(&place.frame).or_else(|| {
                    let owner = program.scope(program.state(to).scope).owner;
                    owner.filter(|_| begins).map(|owner| (owner, Cause::Inside))
                });
                self.taken
                    .extend(origin.map(|(from, cause)| Edge { from, to, cause }));
            }
            Record::StateExited { place, .. } => {
                self.left.insert(place.frame, (place.id, Cause::Next));
            }
            // What a state gave may not fit where it goes: then it has been left, and fails.
            Record::Caught { place, .. } => {
                self.left.insert(place.frame, (place.id, Cause::Caught));
            }
            _ => {}
        }
    }

    /// The states that were entered, in order.
    pub fn entered(&self) -> &[StateId] {
        &self.entered
    }
}

/// What some executions of a program went through.
#[derive(Debug)]
pub struct Coverage {
    states: BTreeMap<StateId, bool>,
    edges: BTreeMap<Edge, bool>,
}

impl Coverage {
    /// Before any execution.
    pub fn new(program: &Program) -> Self {
        let states = (0..).map(StateId).zip(&program.states);
        Self {
            states: states.map(|(id, _)| (id, false)).collect(),
            edges: edges(program)
                .into_iter()
                .map(|edge| (edge, false))
                .collect(),
        }
    }

    /// Adds the way of an execution of the same program.
    pub fn add(&mut self, trace: &Trace) {
        for id in &trace.entered {
            self.states.entry(*id).and_modify(|covered| *covered = true);
        }
        for edge in &trace.taken {
            self.edges
                .entry(*edge)
                .and_modify(|covered| *covered = true);
        }
    }

    /// Each state, and whether it was entered.
    pub fn states(&self) -> impl Iterator<Item = (StateId, bool)> {
        self.states.iter().map(|(id, covered)| (*id, *covered))
    }

    /// Each transition, and whether it was taken.
    pub fn edges(&self) -> impl Iterator<Item = (Edge, bool)> {
        self.edges.iter().map(|(edge, covered)| (*edge, *covered))
    }
}
