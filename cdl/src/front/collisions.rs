//! Finds branches that run side by side and write to one place.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::Context;
use super::report::{Finding, quote};
use super::text::Span;
use super::workflow::Draft;
use crate::diagnostic::Code;
use crate::expression::Path;
use crate::program::{ScopeId, StateKind};

/// A write of a branch, with whatever it contains.
#[derive(Clone, Copy)]
struct Write<'d> {
    path: &'d Path,
    span: Span,
    branch: ScopeId,
}

/// Reports writes of two branches of one Parallel state of which one path is,
/// or leads into, the other. The order in which branches end would decide what
/// is left.
pub(super) fn check(context: &mut Context<'_>, draft: &Draft<'_>) {
    let inside = states_by_branch(draft);
    // A place is reported once, however many branches it collides with.
    let mut reported = BTreeSet::new();
    for state in draft.states.iter().flatten() {
        let StateKind::Parallel { branches, .. } = &state.kind else {
            continue;
        };
        let mut writes: Vec<Write<'_>> = branches
            .iter()
            .flat_map(|branch| {
                let states = inside.get(branch).map_or(&[][..], Vec::as_slice);
                states.iter().map(move |state| (*branch, *state))
            })
            .flat_map(|(branch, state)| {
                let writes = draft.facts[state].writes.iter();
                writes.map(move |(path, span)| Write {
                    path,
                    span: *span,
                    branch,
                })
            })
            .collect();
        for (first, second) in colliding(&mut writes) {
            if reported.insert(second.span) {
                report(context, draft, &first, &second);
            }
        }
    }
}

/// For each scope, the states in it and in the branches nested in it.
fn states_by_branch(draft: &Draft<'_>) -> BTreeMap<ScopeId, Vec<usize>> {
    let mut inside: BTreeMap<ScopeId, Vec<usize>> = BTreeMap::new();
    for (index, state) in draft.states.iter().enumerate() {
        let Some(state) = state else { continue };
        let mut scope = Some(state.scope);
        while let Some(current) = scope {
            inside.entry(current).or_default().push(index);
            let owner = draft.scopes[current.0 as usize].owner;
            // An owner with errors has no scope to go on with; its errors are reported.
            // What iterations write is their own.
            scope = owner
                .and_then(|owner| draft.states[owner.0 as usize].as_ref())
                .filter(|owner| !matches!(owner.kind, StateKind::Map(_)))
                .map(|owner| owner.scope);
        }
    }
    inside
}

/// Pairs of writes of different branches that overlap, each in the order of the file.
///
/// In the order of their keys a path stands directly before all that it leads
/// to, so the open paths form a stack.
fn colliding<'d>(writes: &mut [Write<'d>]) -> Vec<(Write<'d>, Write<'d>)> {
    writes.sort_by(|a, b| {
        let keys = a.path.segments().cmp(b.path.segments());
        keys.then(a.span.cmp(&b.span))
    });
    let mut pairs = Vec::new();
    let mut open: Vec<Write<'d>> = Vec::new();
    for write in writes.iter() {
        while open
            .last()
            .is_some_and(|top| !top.path.overlaps(write.path))
        {
            open.pop();
        }
        if let Some(other) = open.iter().find(|other| other.branch != write.branch) {
            let in_order = other.span < write.span;
            pairs.push(if in_order {
                (*other, *write)
            } else {
                (*write, *other)
            });
        }
        // A second write of the same place by the same branch adds nothing.
        let known = open
            .last()
            .is_some_and(|top| top.path == write.path && top.branch == write.branch);
        if !known {
            open.push(*write);
        }
    }
    pairs
}

fn report(context: &mut Context<'_>, draft: &Draft<'_>, first: &Write<'_>, second: &Write<'_>) {
    let line = context.text.position(first.span.start).line;
    let name = |branch: ScopeId| quote(&draft.scopes[branch.0 as usize].name);
    let message = format!(
        "the branches {} and {} both write {}",
        name(first.branch),
        name(second.branch),
        quote(context.text.slice(second.span)),
    );
    context.report(
        Finding::new(Code::BranchesCollide, second.span, message)
            .label(format!("also written in line {line}"))
            .help("give each branch a path of its own"),
    );
}
