//! Warnings about workflows that run, but hardly as meant.

use std::collections::BTreeSet;
use std::time::Duration;

use super::duration::show;
use super::fields::Context;
use super::report::{Finding, quote};
use super::text::Span;
use super::workflow::{Draft, successors};
use crate::diagnostic::Code;
use crate::program::{Next, Resource, RetryPolicy, StateKind, Task};

/// From here on a Task is long: a worker waits for it all the time.
const LONG_TASK_MS: u64 = 60_000;

/// Looks at one workflow.
pub(super) fn check(context: &mut Context<'_>, draft: &Draft<'_>) {
    for (index, state) in draft.states.iter().enumerate() {
        let Some(state) = state else { continue };
        let name = draft.facts[index].name;
        match &state.kind {
            StateKind::Task(task) => {
                region(context, &task.resource, task.timeout_ms, "a Task", name);
                if let Some(undo) = &task.compensate {
                    region(
                        context,
                        &undo.resource,
                        undo.timeout_ms,
                        "a compensation",
                        name,
                    );
                }
                // A child keeps no worker busy.
                if task.resource.child.is_none() {
                    blocking(context, task, name);
                }
                retries(context, task, draft.timeout_ms, name);
            }
            StateKind::Choice { default: None, .. } => context.report(
                Finding::new(
                    Code::NoDefault,
                    name,
                    format!("the Choice {} has no default", quote(&state.name)),
                )
                .label("fails with `NoChoiceMatched` if no condition holds")
                .help("add `default:` with the state to go to"),
            ),
            _ => {}
        }
    }
    // A transition with an error may be the one that is missing.
    if draft.is_clean {
        ways(context, draft);
    }
}

fn region(
    context: &mut Context<'_>,
    resource: &Resource,
    timeout_ms: Option<u64>,
    what: &str,
    name: Span,
) {
    let (Some(region), None) = (&resource.region, timeout_ms) else {
        return;
    };
    context.report(
        Finding::new(
            Code::RegionWithoutTimeout,
            name,
            format!("{what} for the region {} has no timeout", quote(region)),
        )
        .label("waits for ever while the region has no workers")
        .help("add `timeout:`"),
    );
}

fn blocking(context: &mut Context<'_>, task: &Task, name: Span) {
    let Some(timeout) = task.timeout_ms.filter(|ms| *ms >= LONG_TASK_MS) else {
        return;
    };
    if task.heartbeat_ms.is_some() {
        return;
    }
    context.report(
        Finding::new(
            Code::BlockingTask,
            name,
            format!("this Task may keep a worker busy for {}", show(timeout)),
        )
        .help(
            "start the work and let a Wait state or a queue carry the time, or add `heartbeat:` \
             so that a stuck attempt is noticed",
        ),
    );
}

fn retries(context: &mut Context<'_>, task: &Task, limit: Option<u64>, name: Span) {
    // The policy that nobody wrote is nobody's mistake.
    let (Some(limit), true) = (limit, task.retries != RetryPolicy::default()) else {
        return;
    };
    let attempts = u64::from(task.retries.max_attempts);
    let working = task.timeout_ms.unwrap_or(0).saturating_mul(attempts);
    let longest = working.saturating_add(pauses(&task.retries));
    if longest <= limit {
        return;
    }
    context.report(
        Finding::new(
            Code::RetriesTooSlow,
            name,
            format!(
                "all {attempts} attempts take up to {}, longer than the workflow's {}",
                show(longest),
                show(limit)
            ),
        )
        .help(
            "lower `max_attempts`, the intervals or the Task's `timeout`, or raise the workflow's",
        ),
    );
}

/// All pauses of a policy together, in milliseconds.
fn pauses(policy: &RetryPolicy) -> u64 {
    let longest = Duration::from_millis(policy.max_interval_ms);
    let mut pause = Duration::from_millis(policy.initial_interval_ms);
    let mut total = Duration::ZERO;
    for _ in 1..policy.max_attempts {
        total = total.saturating_add(pause);
        let next = pause.as_secs_f64() * policy.multiplier;
        pause = Duration::try_from_secs_f64(next).map_or(longest, |next| next.min(longest));
    }
    u64::try_from(total.as_millis()).unwrap_or(u64::MAX)
}

/// Reports states that nothing leads to, and loops that nothing leads out of.
fn ways(context: &mut Context<'_>, draft: &Draft<'_>) {
    let count = draft.states.len();
    let mut forward = vec![Vec::new(); count];
    let mut backward = vec![Vec::new(); count];
    let mut ends = Vec::new();
    for (from, state) in draft.states.iter().enumerate() {
        let Some(state) = state else { continue };
        for next in successors(&state.kind) {
            match next {
                Next::State(to) => {
                    forward[from].push(to.0 as usize);
                    backward[to.0 as usize].push(from);
                }
                Next::End => ends.push(from),
            }
        }
    }
    let starts = draft.scopes.iter().map(|scope| scope.start.0 as usize);
    let reached = closure(&forward, starts.collect());
    let ending = closure(&backward, ends);
    let mut looping = BTreeSet::new();
    for (index, state) in draft.states.iter().enumerate() {
        let Some(state) = state else { continue };
        let name = draft.facts[index].name;
        if !reached[index] {
            context.report(
                Finding::new(
                    Code::Unreachable,
                    name,
                    format!("no way leads to the state {}", quote(&state.name)),
                )
                .help("lead to it with `next`, or remove it"),
            );
        } else if !ending[index] && looping.insert(state.scope) {
            context.report(
                Finding::new(
                    Code::EndlessLoop,
                    name,
                    format!(
                        "no way leads from the state {} to an end",
                        quote(&state.name)
                    ),
                )
                .label("only an error or the workflow's `timeout` ends this loop")
                .help("let a Choice lead out of it"),
            );
        }
    }
}

/// All that `from` leads to, itself included.
fn closure(edges: &[Vec<usize>], mut from: Vec<usize>) -> Vec<bool> {
    let mut found = vec![false; edges.len()];
    while let Some(at) = from.pop() {
        if !std::mem::replace(&mut found[at], true) {
            from.extend(&edges[at]);
        }
    }
    found
}
