//! One execution under virtual time: the clock goes to whatever is next, so that
//! a Wait of a week takes none.
//!
//! The machine is the server's. How attempts end, and after how long, is for who
//! drives it to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityFailure, ActivityTask, ApplyError, Beginning, Command, Event, EventKind, Execution,
    ExecutionId, Json, NoShardKey, Parent, Receipt, Record, SEMANTICS, Timestamp, apply_traced,
};

use super::{local, run};

/// The first event of an execution without a server. Where it would be placed makes no
/// difference here, but the execution knows its shard key.
pub(crate) fn started(
    program: &Program,
    id: ExecutionId,
    now: Timestamp,
    input: Json,
    parent: Option<Parent>,
) -> Result<EventKind, NoShardKey> {
    let shard_key = program.shard_key_of(&Beginning {
        id,
        tenant: &local::tenant(),
        input: &input,
        now,
        shards: run::SHARDS,
    })?;
    Ok(EventKind::ExecutionStarted {
        input,
        shards: run::SHARDS,
        machine: SEMANTICS,
        parent,
        schedule: None,
        shard_key,
        priority: program.priority,
        labels: BTreeMap::new(),
    })
}

/// An attempt that runs.
struct Attempt {
    ends_at: Timestamp,
    task: ActivityTask,
    result: Result<Json, ActivityFailure>,
}

/// An execution and its clock.
pub(crate) struct VirtualTime {
    program: Arc<Program>,
    execution: Execution,
    now: Timestamp,
    attempts: Vec<Attempt>,
}

impl VirtualTime {
    /// Before the first event, which will happen at `now`.
    pub(crate) fn new(program: Arc<Program>, id: ExecutionId, now: Timestamp) -> Self {
        Self {
            program,
            execution: Execution::new(id, local::tenant()),
            now,
            attempts: Vec::new(),
        }
    }

    /// The first event.
    ///
    /// # Errors
    ///
    /// If the input gives no shard key, and the workflow asks for one.
    pub(crate) fn begin(&self, input: Json) -> Result<EventKind, NoShardKey> {
        started(&self.program, self.execution.id, self.now, input, None)
    }

    pub(crate) fn execution(&self) -> &Execution {
        &self.execution
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets an event happen now, tells what follows from it, and gives the attempts that it asks
    /// for. Each of them is to be given its end, or it never ends.
    ///
    /// # Errors
    ///
    /// If the event cannot follow. Then nothing can.
    pub(crate) fn apply(
        &mut self,
        kind: EventKind,
        observe: &mut dyn FnMut(Record),
    ) -> Result<(Event, Vec<ActivityTask>), ApplyError> {
        let event = Event {
            seq: self.execution.version + 1,
            at: self.now,
            kind,
        };
        let none = Execution::new(self.execution.id, self.execution.tenant.clone());
        let execution = std::mem::replace(&mut self.execution, none);
        let transition = apply_traced(&self.program, execution, &event, observe)?;
        self.execution = transition.execution;
        let mut asked = Vec::new();
        for command in transition.commands {
            match command {
                Command::ScheduleActivity(task) => asked.push(task),
                Command::CancelActivity { task, attempt } => {
                    let other =
                        |asked: &ActivityTask| (asked.task, asked.attempt) != (task, attempt);
                    asked.retain(other);
                    self.attempts.retain(|attempt| other(&attempt.task));
                }
            }
        }
        Ok((event, asked))
    }

    /// Has an attempt that runs end so, so many milliseconds from now.
    pub(crate) fn end(
        &mut self,
        task: ActivityTask,
        after_ms: u64,
        result: Result<Json, ActivityFailure>,
    ) {
        self.attempts.push(Attempt {
            ends_at: self.now.plus(after_ms),
            task,
            result,
        });
    }

    /// When something happens next by itself.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        let ends = self.attempts.iter().map(|attempt| attempt.ends_at);
        ends.chain(self.execution.wake_at()).min()
    }

    /// Lets time pass until then.
    pub(crate) fn pass_until(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
    }

    /// What happens next by itself, at which the clock then stands. An attempt ends before a
    /// timer of the same moment fires. `None` if the execution has ended, or waits for what somebody
    /// else has to send.
    pub(crate) fn next(&mut self) -> Option<EventKind> {
        if self.execution.is_closed() {
            return None;
        }
        let at = self.next_at()?;
        self.pass_until(at);
        let attempts = self.attempts.iter();
        let ended = attempts
            .enumerate()
            .filter(|(_, attempt)| attempt.ends_at <= at)
            .min_by_key(|(index, attempt)| (attempt.ends_at, *index));
        if let Some((index, _)) = ended {
            return Some(ended_event(self.attempts.remove(index)));
        }
        let due = self.execution.due_timers(self.now);
        due.first()
            .map(|timer| EventKind::TimerFired { timer: *timer })
    }
}

fn ended_event(attempt: Attempt) -> EventKind {
    let (task, number) = (attempt.task.task, attempt.task.attempt);
    match attempt.result {
        Ok(output) => EventKind::ActivityCompleted {
            task,
            attempt: number,
            output,
            receipt: Receipt::default(),
        },
        Err(failure) => EventKind::ActivityFailed {
            task,
            attempt: number,
            failure,
            receipt: None,
        },
    }
}
