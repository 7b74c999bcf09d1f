//! Compensation: undoing what was done when an execution ends without success.
//!
//! A Task with `compensate` that completes is remembered with the input that
//! its compensation will need, so that nothing has to be evaluated later, when
//! iterations are gone and the context has moved on. When the execution fails,
//! is cancelled or times out, what is remembered is undone, the last first, one
//! at a time, by attempts like those of any Task; only then it has ended. A
//! compensation that fails does not keep the others from running.

use serde::Serialize;
use serde_json::Value;

use super::ApplyError;
use super::limits::{COMPENSATION_EVENTS, MAX_COMPENSATIONS, MAX_EVENTS, MAX_NAMED_FAILURES};
use super::record::Record;
use super::walk::{Machine, Work};
use crate::execution::{Completed, Saga, Uncompensated};
use crate::program::{Compensation, ScopeId, State, StateKind, Task};
use crate::{Failure, Frame, FrameId, Json, Status, Step, TaskId, errors};

/// Most characters of an error's name or message that a failed compensation
/// adds to the details of the execution's own.
const NAMED_CHARS: usize = 500;

/// What a compensation without `parameters` is given: what the Task was given,
/// and what it returned.
#[derive(Serialize)]
pub(super) struct Given {
    pub(super) input: Json,
    pub(super) output: Json,
}

/// Details of a failed execution of which a compensation failed, too.
#[derive(Serialize)]
struct Details<'j> {
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'j Json>,
    compensation: Report<'j>,
}

#[derive(Serialize)]
struct Report<'j> {
    failed: u32,
    steps: &'j [Uncompensated],
}

impl<'a> Machine<'a> {
    /// Checks that a Task which will have to be remembered may begin.
    pub(super) fn check_compensations(&self, task: &Task) -> Result<(), Failure> {
        if task.compensate.is_none() || self.execution.saga.completed.len() < MAX_COMPENSATIONS {
            return Ok(());
        }
        let message =
            format!("{MAX_COMPENSATIONS} completed steps may have to be compensated already");
        Err(Failure::new(errors::COMPENSATION_LIMIT, message))
    }

    /// Remembers a step that completed, and what its compensation will be given,
    /// if it has one.
    ///
    /// It is remembered even if that fails, for it has been done: without its
    /// `parameters`, and if there is no room for what it is given then, with
    /// `null`. A compensation that cannot do with that is named as failed.
    pub(super) fn remember(
        &mut self,
        id: FrameId,
        state: &'a State,
        given: Option<&Given>,
    ) -> Result<(), Failure> {
        let compensation = match &state.kind {
            StateKind::Task(task) => task.compensate.as_ref(),
            _ => None,
        };
        let Some((compensation, given)) = compensation.zip(given) else {
            return Ok(());
        };
        let path = self.place(id).path;
        let held = self.execution.saga.bytes;
        let (input, remembered) = match self.given(id, compensation, given, path.len()) {
            Ok(input) => (input, Ok(())),
            Err(failure) => {
                let input = Json::from_entries(given);
                let room = self.check_room(input.len() as u64, held);
                let input = room.map_or_else(|_| Value::Null.into(), |()| input);
                (input, Err(failure))
            }
        };
        let state = self.frame_mut(id).state;
        let saga = &mut self.execution.saga;
        saga.bytes += (input.len() + path.len()) as u64;
        saga.completed.push(Completed { state, path, input });
        remembered
    }

    /// What a compensation is given, with room for it and its path.
    fn given(
        &mut self,
        id: FrameId,
        compensation: &'a Compensation,
        given: &Given,
        path: usize,
    ) -> Result<Json, Failure> {
        self.budget.text(path)?;
        let input = if let Some(parameters) = &compensation.parameters {
            self.eval_text(id, parameters)?
        } else {
            self.budget.join(given.input.len() + given.output.len())?;
            Json::from_entries(given)
        };
        self.check_room((input.len() + path) as u64, self.execution.saga.bytes)?;
        Ok(input)
    }

    /// Turns to undoing what was done; the execution ends with `outcome` then.
    /// The frames were given up before, and a retry will not need them.
    pub(super) fn begin_compensation(&mut self, outcome: Status) {
        let steps = u32::try_from(self.execution.saga.completed.len()).unwrap_or(u32::MAX);
        self.tell(|_| Record::CompensationStarted {
            steps,
            cause: match &outcome {
                Status::Failed { failure } => failure.error.clone(),
                Status::TimedOut { .. } => "timed out".to_owned(),
                _ => "cancelled".to_owned(),
            },
        });
        self.execution.clear();
        self.execution.status = Status::Compensating {
            outcome: Box::new(outcome),
        };
        self.work.push(Work::Compensate);
    }

    /// Begins with the last of the steps that are left.
    pub(super) fn compensate_next(&mut self) -> Result<(), ApplyError> {
        let Some(step) = self.execution.saga.completed.last() else {
            self.end_compensation();
            return Ok(());
        };
        let (id, input) = (step.state, step.input.clone());
        let state = self.program.states.get(id.0 as usize);
        let frame = Frame {
            parent: None,
            scope: state.map_or(ScopeId::ROOT, |state| state.scope),
            state: id,
            step: Step::Stopped {},
            iteration: None,
            data: None,
        };
        self.execution.frames.insert(FrameId::ROOT, frame);
        let (state, attempted) = self.attempted(FrameId::ROOT)?;
        let task = TaskId(self.fresh());
        self.schedule(FrameId::ROOT, state, attempted, task, 1, input);
        Ok(())
    }

    /// A compensation returned.
    pub(super) fn compensated(&mut self, output: &Json) {
        self.tell(|machine| Record::StepCompensated {
            place: machine.place(FrameId::ROOT),
            output: output.clone(),
        });
        self.execution.saga.compensated += 1;
        self.forget_last();
        self.work.push(Work::Compensate);
    }

    /// No attempt of a compensation is left; the others go on.
    pub(super) fn compensation_failed(&mut self, failure: &Failure) {
        self.tell(|machine| Record::CompensationFailed {
            place: machine.place(FrameId::ROOT),
            error: failure.error.clone(),
            message: failure.message.clone(),
        });
        self.name_failure(failure);
        self.forget_last();
        self.work.push(Work::Compensate);
    }

    /// Ends a compensation whose history has no room left: what was not undone
    /// is named as failed.
    pub(super) fn give_up_compensation(&mut self) {
        self.cancel_steps();
        let most = MAX_EVENTS + COMPENSATION_EVENTS;
        let message = format!("the history has reached its limit of {most} events");
        let failure = Failure::new(errors::HISTORY_LIMIT, message);
        while !self.execution.saga.completed.is_empty() {
            self.name_failure(&failure);
            self.forget_last();
        }
        self.end_compensation();
    }

    /// Counts the last of the steps that are left as one that stays done.
    fn name_failure(&mut self, failure: &Failure) {
        let short = |text: &str| text.chars().take(NAMED_CHARS).collect::<String>();
        let saga = &mut self.execution.saga;
        saga.failures += 1;
        let Some(step) = saga.completed.last() else {
            return;
        };
        if saga.failed.len() < MAX_NAMED_FAILURES {
            let state = self.program.states.get(step.state.0 as usize);
            let state = state.map_or("?", |state| &state.name);
            saga.failed.push(Uncompensated {
                state: match step.path.as_str() {
                    "" => state.to_owned(),
                    path => format!("{path}/{state}"),
                },
                error: short(&failure.error),
                message: short(&failure.message),
            });
        }
    }

    fn forget_last(&mut self) {
        let saga = &mut self.execution.saga;
        if let Some(step) = saga.completed.pop() {
            let bytes = (step.input.len() + step.path.len()) as u64;
            saga.bytes = saga.bytes.saturating_sub(bytes);
        }
    }

    fn end_compensation(&mut self) {
        self.execution.clear();
        let Status::Compensating { outcome } = &mut self.execution.status else {
            return;
        };
        let mut outcome = std::mem::replace(&mut **outcome, Status::Running);
        let Saga {
            failures, failed, ..
        } = &self.execution.saga;
        if let (Status::Failed { failure }, 1..) = (&mut outcome, failures) {
            let details = Details {
                details: failure.details.as_ref(),
                compensation: Report {
                    failed: *failures,
                    steps: failed,
                },
            };
            failure.details = Some(Json::from_entries(&details));
        }
        self.end(outcome);
    }
}
