//! Moves an execution to another version of its program.
//!
//! Whether that is safe was asked before ([`Plan::judge`]), and is not asked
//! again: rules may become stricter, and a history replays for ever. All that
//! is needed then is that the states which the execution is in are there.
//!
//! Nothing else changes. Attempts, timers and signals that are under way keep
//! their numbers and times, a `timeout` of the workflow runs on as it was set.

use std::sync::Arc;

use super::walk::Machine;
use super::{ApplyError, Command, Record, Transition, apply};
use crate::plan::Plan;
use crate::program::Program;
use crate::{Event, EventKind, Execution, ExecutionId, TenantId};

/// Applies an event that moves the execution as `plan` says: it has to be that of
/// [`EventKind::ExecutionMigrated`], with the same names. `observe` is told what follows.
/// What happens to the execution afterwards is applied with the new program.
///
/// # Errors
///
/// [`ApplyError::Move`] if the event does not move an execution so, or the new
/// program does not have what the execution is in; and as [`apply`].
pub fn migrate(
    plan: &Plan,
    execution: Execution,
    event: &Event,
    observe: &mut dyn FnMut(Record),
) -> Result<Transition, ApplyError> {
    let mut machine = Machine::new(plan.program(), execution, event, Some(observe));
    let (from, to) = match &event.kind {
        EventKind::ExecutionMigrated { from, to, states } if states == plan.renamed() => {
            (*from, *to)
        }
        EventKind::ExecutionMigrated { to, .. } => return Err(machine.cannot_move(event, *to)),
        _ => return Err(machine.cannot_move(event, 0)),
    };
    machine.admit(event)?;
    let moved = plan.renumbered(machine.execution.clone());
    machine.execution = moved.ok_or_else(|| machine.cannot_move(event, to))?;
    machine.execution.origin.get_or_insert(from);
    // The new version may say otherwise what it is found by.
    machine.untagged = true;
    if machine.program.attributes.is_empty() {
        machine.execution.tags.attributes.clear();
    }
    machine.tell(|_| Record::ExecutionMigrated { from, to });
    // It counts as any other event: a history that is full ends.
    machine.walk()?;
    Ok(machine.finish())
}

/// [`replay`](crate::replay) of a history that may move from one version of the program to
/// others. It begins with `first`; `version` gives those that it moves to.
///
/// # Errors
///
/// As [`apply`] and [`migrate`], for the first event that cannot be applied.
pub fn replay_moved<'e>(
    first: &Arc<Program>,
    version: impl Fn(u32) -> Option<Arc<Program>>,
    id: ExecutionId,
    tenant: TenantId,
    events: impl IntoIterator<Item = &'e Event>,
) -> Result<(Execution, Vec<Command>), ApplyError> {
    let (mut program, mut execution) = (Arc::clone(first), Execution::new(id, tenant));
    for event in events {
        let transition = match &event.kind {
            EventKind::ExecutionMigrated { to, states, .. } => {
                let new = version(*to).ok_or(ApplyError::Move {
                    execution: id,
                    to: *to,
                    seq: event.seq,
                })?;
                let plan = Plan::new(&program, &new, states);
                program = new;
                migrate(&plan, execution, event, &mut |_| ())?
            }
            _ => apply(&program, execution, event)?,
        };
        execution = transition.execution;
    }
    let pending = execution.pending_tasks(&program);
    let commands = pending.into_iter().map(Command::ScheduleActivity).collect();
    Ok((execution, commands))
}

impl Machine<'_> {
    pub(super) fn cannot_move(&self, event: &Event, to: u32) -> ApplyError {
        ApplyError::Move {
            execution: self.execution.id,
            to,
            seq: event.seq,
        }
    }
}
