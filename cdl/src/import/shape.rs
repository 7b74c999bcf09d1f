//! Where the data that a state is given is an object, whatever the input was:
//! there a result can be put at a key of it, which cannot fail.

use std::collections::BTreeMap;

use super::flow::Flow;
use crate::asl::payload::Payload;
use crate::asl::program::{self as asl, Envelope, Kind, Part, ResultPath, State};
use crate::program::{Next, Program, ScopeId, StateId, StateKind};

/// Of each state of a scope, whether its data is an object for sure. `first` is what
/// is known of the state that the scope starts with.
pub(super) fn objects(program: &Program, scope: ScopeId, first: bool) -> BTreeMap<StateId, bool> {
    let states = (0u32..).zip(&program.states);
    let own = states.filter(|(_, state)| state.scope == scope);
    let own: BTreeMap<StateId, &State> = own
        .filter_map(|(id, state)| match &state.kind {
            StateKind::Asl(state) => Some((StateId(id), state.as_ref())),
            _ => None,
        })
        .collect();
    // Everything is, until a way is found on which it need not be.
    let mut known: BTreeMap<StateId, bool> = own.keys().map(|id| (*id, true)).collect();
    known.insert(program.scope(scope).start, first);
    let mut open: Vec<StateId> = own.keys().copied().collect();
    while let Some(id) = open.pop() {
        for (target, is_object) in ways(own[&id], known[&id]) {
            if !is_object && known.insert(target, false) == Some(true) {
                open.push(target);
            }
        }
    }
    known
}

/// What each way out of a state leads to, and whether it leads there with an object.
fn ways(state: &State, before: bool) -> Vec<(StateId, bool)> {
    let combined = |result: &ResultPath, value: bool| match result {
        ResultPath::Replace => value,
        ResultPath::Discard => before,
        ResultPath::At(_) => true,
    };
    let mut ways: Vec<(StateId, bool)> = state
        .catch
        .iter()
        .map(|catcher| (catcher.next, combined(&catcher.result, true)))
        .collect();
    let Ok(flow) = Flow::of(state) else {
        // It is not translated; whatever comes behind it has not run.
        return ways;
    };
    let value = combined(flow.result, value(state, &flow, before));
    let after = match flow.output {
        Part::All => value,
        Part::Nothing => true,
        Part::At(_) => false,
    };
    if let Kind::Choice { rules, default } = &state.kind {
        // A JSONata state's own `Output` is for its default.
        let kept = if matches!(state.flow, asl::Flow::Query { .. }) {
            before
        } else {
            after
        };
        let rules = rules.iter();
        ways.extend(rules.map(|rule| (rule.next, kept && rule.output.is_none())));
        ways.extend(default.map(|default| (default, after)));
    }
    if let Some(Next::State(next)) = state.next {
        ways.push((next, after));
    }
    ways
}

/// Whether the result of a state is an object.
fn value(state: &State, flow: &Flow<'_>, before: bool) -> bool {
    if let Some(selector) = &flow.selector {
        return is_object(selector);
    }
    match &state.kind {
        Kind::Pass {
            result: Some(result),
        } => result.is_object(),
        Kind::Pass { result: None } => arguments(flow, before),
        Kind::Choice { .. } | Kind::Wait(_) | Kind::Succeed => input(flow.input, before),
        Kind::Task(task) => {
            let bound = task.bound.as_ref();
            bound.is_some_and(|bound| bound.envelope == Envelope::LambdaInvoke)
        }
        Kind::Fail { .. } | Kind::Parallel { .. } | Kind::Map(_) => false,
    }
}

/// Whether what a state works on is an object.
pub(super) fn arguments(flow: &Flow<'_>, before: bool) -> bool {
    match &flow.parameters {
        Some(parameters) => is_object(parameters),
        None => input(flow.input, before),
    }
}

fn input(part: &Part, before: bool) -> bool {
    match part {
        Part::All => before,
        Part::Nothing => true,
        Part::At(_) => false,
    }
}

pub(super) fn is_object(payload: &Payload) -> bool {
    match payload {
        Payload::Literal(value) => value.is_object(),
        Payload::Object(_) => true,
        Payload::List(_) | Payload::Computed { .. } => false,
    }
}
