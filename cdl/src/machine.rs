//! The machine: one pure function over a program.
//!
//! [`apply`] moves an execution by one event and says what the shell must do.
//! Nothing is written, read or asked for here; a crash at any point is mended
//! by applying the history again, which gives the same execution and says
//! which attempts are still outstanding.
//!
//! An execution is a tree of frames, one for each scope being run: the
//! workflow itself, the branches of the Parallel states and the iterations of the
//! Map states that it is in. An
//! event resumes at most a few frames; `walk` then carries each on until it
//! waits, `join` brings branches together, `map` iterations, `child` bounds what runs as a child, `fault` deals with what goes wrong, `compensate` undoes what was done, `pause` holds back what is new, `data` moves values between
//! states and the context, `budget` counts what that costs, `retry` says when
//! to try again.

use std::sync::Arc;

use crate::expression::Secrets;
use crate::program::{Priority, Program, Rate, Resource, StateId};
use crate::{
    Event, EventKind, Execution, ExecutionId, FrameId, Json, Status, TaskId, TenantId, TimerKind,
    Timestamp,
};

mod asl;
mod budget;
mod child;
mod compensate;
mod data;
mod fault;
mod join;
pub mod limits;
mod map;
mod migrate;
mod outside;
mod pause;
mod record;
mod retry;
mod spread;
mod walk;

pub use child::outcome_of_child;
pub use migrate::{migrate, replay_moved};
pub use record::{Place, Record};
pub(crate) use spread::activity_task as spread_task;
pub(crate) use walk::Machine;

/// Version of what programs and events mean to this machine.
///
/// An execution records it at its start and keeps to it. A change that would
/// make an old history replay differently gets a new number, and the old
/// meaning stays, behind a check of [`Execution::machine`]: histories replay
/// for ever.
///
/// What no program could say before needs no number: an older machine refuses
/// the source of a program that says it.
///
/// Version 4 reads the objects of an `ItemReader` that is bound to no activity; before,
/// its state failed.
///
/// Version 3 waits for the callback of a `.waitForTaskToken` resource; before, its
/// activity's output was the result.
///
/// Version 2 counts the data that an event moves, and the parts of steps that
/// expressions take, against [`limits::MAX_STEPS`]; version 1 did not.
pub const SEMANTICS: u32 = 4;

/// The first version that waits for callbacks.
pub(crate) const CALLBACKS: u32 = 3;

/// The first version that reads objects for an ASL Map state.
pub(crate) const OBJECTS: u32 = 4;

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The execution after the event.
    pub execution: Execution,
    /// What the shell must now do, in order.
    pub commands: Vec<Command>,
}

/// Something that the shell does on the machine's behalf. Timers are not
/// commands: [`Execution::timers`] says at any moment which are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run an attempt of an activity.
    ScheduleActivity(ActivityTask),
    /// Nobody waits for this attempt any more.
    CancelActivity {
        /// The state entry that asked for it.
        task: TaskId,
        /// Which try.
        attempt: u32,
    },
}

/// One request to run an activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityTask {
    /// The state entry that asks for it.
    pub task: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
    /// What to run.
    pub resource: Resource,
    /// Name of the Task state.
    pub state: Arc<str>,
    /// The activity's input.
    pub input: Json,
    /// Where it names secrets, which whoever runs the attempt puts in.
    pub secrets: Option<Arc<Secrets>>,
    /// When the attempt was scheduled.
    pub scheduled_at: Timestamp,
    /// Limit of the attempt, from its scheduling, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Longest silence of the running attempt, in milliseconds.
    pub heartbeat_ms: Option<u64>,
    /// How urgent it is, among what its tenant has.
    pub priority: Priority,
    /// How often attempts of its state may begin.
    pub rate_limit: Option<Rate>,
}

/// Why an event cannot follow an execution: a damaged history, another program
/// than the one that it belongs to, or a bug. Never a failing workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Not the next event.
    #[error("event {seq} of execution {execution} cannot be applied, the next is {expected}")]
    OutOfOrder {
        /// The execution.
        execution: ExecutionId,
        /// The number that its next event has.
        expected: u64,
        /// The number of the event.
        seq: u64,
    },
    /// `ExecutionStarted` later than first, or something else first.
    #[error(
        "event {seq} of execution {execution} cannot stand there: the first event, and only the first, is ExecutionStarted"
    )]
    Start {
        /// The execution.
        execution: ExecutionId,
        /// The number of the event.
        seq: u64,
    },
    /// A newer machine started this execution.
    #[error(
        "execution {execution} was started by machine version {recorded}, this one knows up to {SEMANTICS}"
    )]
    NewerMachine {
        /// The execution.
        execution: ExecutionId,
        /// What it was started with.
        recorded: u32,
    },
    /// The execution belongs to another program.
    #[error("execution {execution} does not fit program `{program}`: frame {} is in state {}", frame.0, state.0)]
    Mismatch {
        /// The execution.
        execution: ExecutionId,
        /// The program's name.
        program: String,
        /// The frame that does not fit.
        frame: FrameId,
        /// The state that the program does not have, or of another kind.
        state: StateId,
    },
    /// The event moves the execution to another version of its program, which was
    /// not given, or does not have the states that the execution is in.
    #[error(
        "execution {execution} cannot be moved to version {to} of its application by event {seq}"
    )]
    Move {
        /// The execution.
        execution: ExecutionId,
        /// The version that it is moved to.
        to: u32,
        /// The number of the event.
        seq: u64,
    },
}

/// Applies one event to an execution.
///
/// Pure: replaying a history rebuilds the exact execution. What arrives late
/// or twice is not an error; it changes nothing but [`Execution::version`].
/// So does a retry of an execution that did not fail or time out, a
/// cancellation of one that has ended, and a pause of one that is paused.
///
/// An event that moves the execution to another program takes both: see
/// [`migrate`].
///
/// # Errors
///
/// [`ApplyError`] when the event cannot follow this execution: a damaged
/// history or a bug, never a failing workflow.
pub fn apply(
    program: &Program,
    execution: Execution,
    event: &Event,
) -> Result<Transition, ApplyError> {
    run(Machine::new(program, execution, event, None), event)
}

/// [`apply`], telling `observe` what follows from the event, in order.
///
/// # Errors
///
/// As [`apply`].
pub fn apply_traced(
    program: &Program,
    execution: Execution,
    event: &Event,
    observe: &mut dyn FnMut(Record),
) -> Result<Transition, ApplyError> {
    run(
        Machine::new(program, execution, event, Some(observe)),
        event,
    )
}

/// Rebuilds an execution from its history, and what is still to be done for
/// it: one [`Command::ScheduleActivity`] for each attempt whose outcome is
/// awaited.
///
/// # Errors
///
/// As [`apply`], for the first event that cannot be applied.
pub fn replay<'e>(
    program: &Program,
    id: ExecutionId,
    tenant: TenantId,
    events: impl IntoIterator<Item = &'e Event>,
) -> Result<(Execution, Vec<Command>), ApplyError> {
    let new = Execution::new(id, tenant);
    let execution = events.into_iter().try_fold(new, |execution, event| {
        apply(program, execution, event).map(|transition| transition.execution)
    })?;
    let pending = execution.pending_tasks(program);
    let commands = pending.into_iter().map(Command::ScheduleActivity).collect();
    Ok((execution, commands))
}

fn run(mut machine: Machine<'_>, event: &Event) -> Result<Transition, ApplyError> {
    machine.admit(event)?;
    match &event.kind {
        EventKind::ExecutionStarted {
            input,
            shards,
            machine: semantics,
            parent,
            schedule,
            shard_key,
            priority,
            labels,
        } => {
            machine.execution.parent = *parent;
            machine.execution.schedule.clone_from(schedule);
            machine.execution.priority = *priority;
            machine.execution.tags.labels.clone_from(labels);
            machine.start(input, *shards, *semantics, shard_key.as_deref())?;
        }
        EventKind::ActivityCompleted {
            task,
            attempt,
            output,
            receipt: _,
        } => match machine.execution.frame_awaiting(*task, *attempt) {
            Some(frame) if machine.is_spreading(frame) => {
                machine.spread_answered(frame, *task, Ok(output))?;
            }
            Some(frame) => machine.complete(frame, output)?,
            None => machine.ignore("the outcome of this attempt is not awaited"),
        },
        EventKind::ActivityFailed {
            task,
            attempt,
            failure,
            receipt: _,
        } => match machine.execution.frame_awaiting(*task, *attempt) {
            Some(frame) if machine.is_spreading(frame) => {
                machine.spread_answered(frame, *task, Err(failure))?;
            }
            Some(frame) => {
                let step = machine.take_step(frame);
                machine.attempt_failed(frame, step, failure)?;
            }
            None => machine.ignore("the outcome of this attempt is not awaited"),
        },
        EventKind::TimerFired { timer } => match machine.take_timer(*timer) {
            Some(TimerKind::Resume(frame)) => machine.resume(frame)?,
            Some(TimerKind::AttemptTimeout(frame)) => machine.attempt_timed_out(frame)?,
            Some(TimerKind::WaitTimeout(frame)) => machine.wait_timed_out(frame)?,
            Some(TimerKind::Escalation(frame)) => machine.escalate(frame)?,
            Some(TimerKind::Heartbeat(frame)) => machine.heartbeat_missed(frame)?,
            Some(TimerKind::WorkflowTimeout) => machine.time_out(),
            None => machine.ignore("this timer is not set, or not yet due"),
        },
        EventKind::SignalReceived { name, payload, id } => {
            machine.signal(name, payload, id.as_deref());
        }
        EventKind::HumanTaskCompleted { task, output, by } => {
            machine.complete_human(*task, output, by);
        }
        EventKind::CallbackReceived {
            task,
            attempt,
            callback,
        } => machine.callback(*task, *attempt, callback)?,
        EventKind::CancelRequested { reason } => match machine.execution.status {
            Status::Running => {
                // Who gives it up wants what it has done undone now.
                machine.execution.paused = None;
                machine.close(Status::Cancelled {
                    reason: reason.clone(),
                });
            }
            Status::Compensating { .. } => {
                machine.ignore("the execution is ending, and compensates what was done");
            }
            _ => machine.ignore("the execution has ended"),
        },
        EventKind::RetryRequested {} => match machine.execution.status {
            Status::Failed { .. } | Status::TimedOut { .. } => machine.retry(),
            _ => machine.ignore("the execution neither failed nor timed out"),
        },
        EventKind::ExecutionPaused { reason } => machine.pause(reason),
        EventKind::ExecutionResumed {} => machine.resume_execution(),
        EventKind::ExecutionMigrated { to, .. } => return Err(machine.cannot_move(event, *to)),
    }
    machine.walk()?;
    Ok(machine.finish())
}
