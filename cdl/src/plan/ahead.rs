//! What is ahead of an execution: the states that it may yet enter, what they
//! read, and what they write.

use std::collections::{BTreeMap, BTreeSet};

use crate::expression::{Path, Root, Template};
use crate::program::{Program, State, StateId, StateKind, Until};
use crate::{Execution, Frame, Step};

/// The states that an execution may enter from where it stands.
pub(super) fn reached(program: &Program, execution: &Execution) -> BTreeSet<StateId> {
    let mut open = Vec::new();
    for frame in execution.frames.values() {
        let Some(state) = program.states.get(frame.state.0 as usize) else {
            continue;
        };
        match &frame.step {
            // It is entered when the execution is retried, or resumed.
            Step::Stopped {} | Step::Held { .. } => open.push(frame.state),
            // What has ended or failed goes nowhere by itself.
            Step::Done { .. } | Step::Failed { .. } => {}
            // Iterations that wait begin at the start.
            Step::Mapping(_) | Step::Spreading(_) => {
                open.extend(beginning(program, state));
                open.extend(following(state));
            }
            _ => open.extend(following(state)),
        }
    }
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            let state = program.state(id);
            open.extend(following(state));
            open.extend(beginning(program, state));
        }
    }
    reached
}

/// The states that may follow a state in its scope.
fn following(state: &State) -> impl Iterator<Item = StateId> {
    state.following().into_iter().chain(state.handling())
}

/// The first states of the scopes in a state.
fn beginning<'p>(program: &'p Program, state: &State) -> impl Iterator<Item = StateId> + use<'p> {
    let nested = state.nested().into_iter();
    nested.map(|id| program.scope(id).start)
}

/// A result that is not there when it is read: the state that reads it, `None` for
/// the workflow's `output`, and the first key of the path.
pub(super) type Unmet = (Option<StateId>, String);

/// The results that states ahead read, but that neither the context has nor any
/// state ahead or under way gives.
pub(super) fn unmet(program: &Program, execution: &Execution) -> BTreeSet<Unmet> {
    let ahead = reached(program, execution);
    let under_way = execution.frames.values().map(|frame| frame.state);
    let writing = ahead.iter().copied().chain(under_way);
    let mut given: BTreeSet<&str> = writing
        .filter_map(|id| program.states.get(id.0 as usize))
        .flat_map(writes)
        .filter_map(first)
        .collect();
    let contexts = execution.frames.values().filter_map(overlay);
    for context in contexts.chain([&execution.context]) {
        given.extend(
            context
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| &**key),
        );
    }
    let mut unmet = BTreeSet::new();
    let mut check = |reader: Option<StateId>, template: &Template| {
        for reference in template.references() {
            let key = reference.segments.first();
            if let (Root::Context, false, Some(key)) = (&reference.root, reference.optional, key)
                && !given.contains(key.as_str())
            {
                unmet.insert((reader, key.clone()));
            }
        }
    };
    for id in &ahead {
        for template in reads(&program.state(*id).kind) {
            check(Some(*id), template);
        }
    }
    // What undoes a step is evaluated when the step has ended.
    for frame in execution.frames.values() {
        let state = program.states.get(frame.state.0 as usize);
        if let Some(StateKind::Task(task)) = state.map(|state| &state.kind)
            && let Some(undo) = &task.compensate
            && let Some(parameters) = &undo.parameters
        {
            check(Some(frame.state), parameters);
        }
    }
    if let Some(output) = &program.output {
        check(None, output);
    }
    unmet
}

/// The states of a program that write results, by the first key of where.
pub(super) fn writers(program: &Program) -> BTreeMap<&str, StateId> {
    let mut writers = BTreeMap::new();
    for (id, state) in (0..).map(StateId).zip(&program.states) {
        for key in writes(state).into_iter().filter_map(first) {
            writers.entry(key).or_insert(id);
        }
    }
    writers
}

fn overlay(frame: &Frame) -> Option<&serde_json::Value> {
    frame.iteration.as_ref().map(|iteration| &iteration.context)
}

/// Where a state puts results.
fn writes(state: &State) -> Vec<&Path> {
    let result = match &state.kind {
        StateKind::Task(kind) => &kind.result,
        StateKind::Pass { result, .. } | StateKind::Parallel { result, .. } => result,
        StateKind::Map(kind) => &kind.result,
        StateKind::Event(kind) => &kind.result,
        StateKind::Human(kind) => &kind.result,
        _ => &None,
    };
    let catches = state.catches().iter();
    let caught = catches.filter_map(|catch| catch.result.as_ref());
    result.iter().chain(caught).collect()
}

fn first(path: &Path) -> Option<&str> {
    path.segments().first().map(AsRef::as_ref)
}

/// What a state evaluates.
fn reads(kind: &StateKind) -> Vec<&Template> {
    match kind {
        StateKind::Task(kind) => {
            let undo = kind
                .compensate
                .as_ref()
                .and_then(|undo| undo.parameters.as_ref());
            kind.parameters.iter().chain(undo).collect()
        }
        StateKind::Pass { parameters, .. } => parameters.iter().collect(),
        StateKind::Choice { choices, .. } => choices.iter().map(|way| &way.condition).collect(),
        StateKind::Map(kind) => {
            let results = kind
                .spread
                .as_ref()
                .and_then(|spread| spread.results.as_ref());
            results.into_iter().chain([&kind.items]).collect()
        }
        StateKind::Human(kind) => {
            let others = kind.escalate.iter().map(|other| &other.assignee);
            others
                .chain([&kind.assignee])
                .chain(&kind.parameters)
                .collect()
        }
        StateKind::Wait { until, .. } => match until {
            Until::Duration(template) | Until::Timestamp(template) => vec![template],
        },
        StateKind::Succeed { output } => output.iter().collect(),
        StateKind::Fail { error, message } => message.iter().chain([error]).collect(),
        StateKind::Parallel { .. } | StateKind::Event(_) | StateKind::Asl(_) => Vec::new(),
    }
}
