//! What executions ask people, as the list over all of them has it.
//!
//! The list is in the store, and each commit of an execution changes it by what the
//! execution asks then: whatever becomes of a question (an answer, an escalation, a
//! time-out, a cancellation, a state that is called otherwise in a new version), the list
//! is what the executions say. A paused one takes answers, and so its questions stay.

use std::collections::BTreeMap;
use std::ops::Range;

use cascade_cdl::program::Program;
use cascade_cdl::{Execution, Frame, Step, TaskId};

use super::live::{Key, read};
use super::{Context, View};
use crate::store::{self, HumanTask, Summary, TaskChanges};

/// What an execution asks.
pub(super) type Asked = BTreeMap<TaskId, HumanTask>;

/// What an execution asks people now.
pub(super) fn asked(summary: &Summary, execution: &Execution, program: &Program) -> Asked {
    let asks = |frame: &Frame| matches!(frame.step, Step::Asking(_));
    if !execution.frames.values().any(asks) {
        return Asked::new(); // nearly all
    }
    let due = |timer| execution.timers.get(timer).map(|timer| timer.at);
    let tasks = execution.asked(program).filter_map(|(frame, asking, _)| {
        let frame = execution.frames.get(&frame)?;
        let task = HumanTask {
            tenant: summary.tenant.clone(),
            execution: summary.id,
            task: asking.task,
            application: summary.application.clone(),
            workflow: summary.workflow.clone(),
            path: path(execution, program, frame),
            state: program.state(frame.state).name.clone(),
            assignee: asking.assignee.clone(),
            opened_at: asking.opened_at,
            deadline: asking.timeout.as_ref().and_then(due),
            escalated: asking.escalated,
        };
        Some((asking.task, task))
    });
    tasks.collect()
}

/// What leads from one to the other.
pub(super) fn changes(before: &Asked, now: &Asked) -> TaskChanges {
    let new = now.iter().filter(|(id, task)| before.get(id) != Some(task));
    let gone = before.keys().filter(|id| !now.contains_key(id));
    TaskChanges {
        asked: new.map(|(_, task)| task.clone()).collect(),
        gone: gone.copied().collect(),
    }
}

/// The Parallel states and branches, and the Map states and indexes, around a
/// frame, from the outside in.
pub fn path(execution: &Execution, program: &Program, frame: &Frame) -> String {
    let mut parts = Vec::new();
    let mut frame = frame;
    while let Some(parent) = frame
        .parent
        .and_then(|parent| execution.frames.get(&parent))
    {
        parts.push(match &frame.iteration {
            Some(iteration) => iteration.index.to_string(),
            None => program.scope(frame.scope).name.clone(),
        });
        parts.push(program.state(parent.state).name.to_string());
        frame = parent;
    }
    parts.reverse();
    parts.join("/")
}

/// Lists what executions of a shard ask that an older release has written. Nothing is
/// committed meanwhile; after a crash it goes on where it was.
pub(super) async fn list_old(context: &Context, buckets: &Range<u32>) -> Result<(), store::Error> {
    loop {
        let old = context.store.unlisted(buckets.clone()).await?;
        if old.is_empty() {
            return Ok(());
        }
        for key in old {
            let asks = match read_asked(context, &key).await {
                // Nobody can answer what cannot be read.
                Err(store::Error::Damaged(what)) => {
                    tracing::error!(execution.id = %key.1, what, "its tasks are not listed");
                    Asked::new()
                }
                asks => asks?,
            };
            let asks = asks.into_values().collect();
            context.store.list_tasks(&key.0, key.1, asks).await?;
        }
    }
}

async fn read_asked(context: &Context, key: &Key) -> Result<Asked, store::Error> {
    let found = read(context, key).await?;
    Ok(found.map_or_else(Asked::new, |found| {
        let View {
            summary,
            execution,
            program,
            ..
        } = found.view();
        asked(summary, execution, program)
    }))
}
