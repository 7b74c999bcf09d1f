//! What happens when something goes wrong, and how executions end.

use serde_json::{Value, json};

use super::data::Output;
use super::join::Fate;
use super::record::Record;
use super::retry::{is_retryable, pause_ms};
use super::walk::{Machine, Work};
use super::{ApplyError, Command};
use crate::program::{Catch, StateKind};
use crate::{
    ActivityFailure, Execution, Failure, FrameId, Json, Saga, Status, Step, TaskId, TimerKind, asl,
    errors,
};

/// What a state's `catch` made of a failure.
pub(super) enum Caught {
    /// The frame goes on.
    Handled,
    /// No entry handles it.
    Not,
    /// It could not be handled, for this reason.
    Becomes(Failure),
}

impl Machine<'_> {
    /// An attempt did not return: tries again, or gives the error to the
    /// `catch` entries.
    pub(super) fn attempt_failed(
        &mut self,
        id: FrameId,
        step: Step,
        failure: &ActivityFailure,
    ) -> Result<(), ApplyError> {
        if let StateKind::Asl(_) = self.state_of(id)?.kind {
            return self.fail(id, asl_failure(failure));
        }
        let (state, attempted) = self.attempted(id)?;
        let Step::Activity {
            task,
            attempt,
            input,
            ..
        } = step
        else {
            return Err(self.mismatch(id));
        };
        if attempt >= attempted.retries.max_attempts || !is_retryable(failure) {
            let failure = Failure {
                error: failure.error.clone(),
                message: failure.message.clone(),
                state: None,
                details: failure.details.clone(),
            };
            if self.execution.is_compensating() {
                self.compensation_failed(&failure);
                return Ok(());
            }
            return self.fail(id, failure);
        }
        let pause = pause_ms(attempted.retries, self.execution.id, task, attempt);
        let (at, attempt) = (self.now.plus(pause), attempt + 1);
        self.tell(|machine| Record::RetryScheduled {
            place: machine.place(id),
            task,
            attempt,
            at,
            error: failure.error.clone(),
        });
        if pause == 0 && self.execution.paused.is_none() {
            self.schedule(id, state, attempted, task, attempt, input);
        } else {
            let timer = self.set_timer(at, TimerKind::Resume(id));
            self.frame_mut(id).step = Step::BackingOff {
                task,
                attempt,
                input,
                timer,
            };
        }
        Ok(())
    }

    /// An attempt took longer than its state's `timeout`.
    pub(super) fn attempt_timed_out(&mut self, id: FrameId) -> Result<(), ApplyError> {
        if let StateKind::Asl(_) = self.state_of(id)?.kind {
            let step = self.take_step(id);
            self.cancel(&step);
            // AWS gives no cause.
            return self.fail(id, Failure::new(asl::names::TIMEOUT, ""));
        }
        let (_, attempted) = self.attempted(id)?;
        let step = self.take_step(id);
        self.cancel(&step);
        let limit = attempted.timeout_ms.unwrap_or_default();
        let failure = ActivityFailure {
            error: errors::TIMEOUT.to_owned(),
            message: format!("no outcome within the state's timeout of {limit} ms"),
            retryable: None,
            details: None,
        };
        self.attempt_failed(id, step, &failure)
    }

    /// The workflow's `timeout` is over.
    pub(super) fn time_out(&mut self) {
        let timeout_ms = match self.execution.origin {
            None => self.program.timeout_ms.unwrap_or_default(),
            // The limit was set under a version that may have had another one.
            Some(_) => self.now.since(self.execution.started_at),
        };
        self.close(Status::TimedOut { timeout_ms });
    }

    /// A state failed. The innermost that deals with the error goes on: the
    /// state's own `catch`, then the states around it, each of which may bear
    /// the failure of a branch or `catch` it; if there is none, the execution
    /// fails.
    ///
    /// Which frames to give up is known only then: a caught failure drops the
    /// branches beneath the `catch`; an uncaught one keeps all frames, for a
    /// retry.
    pub(super) fn fail(&mut self, origin: FrameId, failure: Failure) -> Result<(), ApplyError> {
        let mut failure = self.in_state(origin, failure)?;
        let (mut at, mut beneath) = (Some(origin), None);
        while let Some(id) = at.filter(|_| !errors::is_fatal(&failure.error)) {
            if let Some(branch) = beneath.take() {
                match self.branch_failed(id, branch, &failure)? {
                    Fate::Borne => return Ok(()),
                    Fate::Spreads => {}
                    Fate::Becomes(own) => {
                        failure = self.in_state(id, own)?;
                        continue;
                    }
                }
            }
            match self.catch(id, &failure)? {
                Caught::Handled => return Ok(()),
                Caught::Not => {}
                // The handler's own failure is for those further out.
                Caught::Becomes(own) => failure = self.in_state(id, own)?,
            }
            beneath = Some(id);
            at = self.frame_mut(id).parent;
        }
        self.close(Status::Failed { failure });
        Ok(())
    }

    /// A failure of the state that a frame is in.
    fn in_state(&self, id: FrameId, failure: Failure) -> Result<Failure, ApplyError> {
        let state = Some(self.state_of(id)?.name.as_ref().to_owned());
        Ok(Failure { state, ..failure })
    }

    /// Lets a state's own `catch` handle a failure.
    fn catch(&mut self, id: FrameId, failure: &Failure) -> Result<Caught, ApplyError> {
        let state = self.state_of(id)?;
        if let StateKind::Asl(asl) = &state.kind {
            return Ok(self.recover(id, asl, failure));
        }
        let catches = state.catches();
        let names = catches.iter().map(|catch| catch.errors.len()).sum();
        if let Err(own) = self.budget.names(names) {
            return Ok(Caught::Becomes(own));
        }
        let Some(catch) = catches.iter().find(|catch| handles(catch, failure)) else {
            return Ok(Caught::Not);
        };
        self.drop_branches(id);
        if let Err(own) = self.write_caught(id, catch, failure) {
            self.frame_mut(id).step = Step::Stopped {};
            return Ok(Caught::Becomes(own));
        }
        self.tell(|machine| Record::Caught {
            place: machine.place(id),
            error: failure.error.clone(),
            next: machine.program.state(catch.next).name.clone(),
        });
        self.go(id, catch.next);
        Ok(Caught::Handled)
    }

    fn write_caught(
        &mut self,
        id: FrameId,
        catch: &Catch,
        failure: &Failure,
    ) -> Result<(), Failure> {
        match &catch.result {
            Some(path) => {
                let caught = self.caught_value(failure)?;
                self.write(id, Some(path), Output::Value(caught))
            }
            None => Ok(()),
        }
    }

    /// What a `catch` puts at its `result`, as text.
    pub(super) fn caught(&mut self, failure: &Failure) -> Result<Json, Failure> {
        let value = self.caught_value(failure)?;
        self.budget.write(&value)
    }

    fn caught_value(&mut self, failure: &Failure) -> Result<Value, Failure> {
        self.budget
            .text(failure.error.len() + failure.message.len())?;
        if let Some(details) = &failure.details {
            self.budget.read(details)?;
        }
        Ok(json!({
            "error": failure.error,
            "message": failure.message,
            "state": failure.state,
            // What cannot be read (too deep, a number out of range) is left
            // out rather than failing the handler.
            "details": failure.details.as_ref().map(Json::to_value),
        }))
    }

    /// Ends the execution, after compensating what was done if it was no
    /// success. What was under way is cancelled.
    pub(super) fn close(&mut self, status: Status) {
        self.cancel_steps();
        self.work.clear();
        if matches!(status, Status::Completed { .. }) {
            self.execution.saga = Saga::default();
        }
        if self.execution.saga.completed.is_empty() {
            self.end(status);
        } else {
            self.begin_compensation(status);
        }
    }

    /// Cancels what is under way.
    pub(super) fn cancel_steps(&mut self) {
        let ids: Vec<_> = self.execution.frames.keys().copied().collect();
        for id in ids {
            // It keeps what is done, for a retry.
            self.withdraw_chunks(id);
            if is_under_way(&self.frame_mut(id).step) {
                let step = self.take_step(id);
                self.cancel(&step);
            }
        }
        self.execution.timers.clear();
    }

    /// Puts an execution that nothing is under way for at its end.
    ///
    /// Failed and timed out executions keep their frames and context, to go on
    /// from there if asked to; the others will not need them again.
    pub(super) fn end(&mut self, status: Status) {
        if matches!(status, Status::Completed { .. } | Status::Cancelled { .. }) {
            self.tag();
            self.execution.clear();
        }
        self.execution.paused = None;
        self.tell(|_| ended(&status));
        self.execution.status = status;
    }

    /// Drops the frames beneath a frame, cancelling what they do.
    pub(super) fn drop_branches(&mut self, top: FrameId) {
        let dropped = descendants(&self.execution, top);
        if dropped.is_empty() {
            return;
        }
        for id in &dropped {
            let step = self.take_step(*id);
            self.cancel(&step);
            self.execution.frames.remove(id);
        }
        let frames = &self.execution.frames;
        self.work.retain(|work| match work {
            Work::Enter(id)
            | Work::Open(id)
            | Work::Leave(id, _)
            | Work::Iterate(id, _)
            | Work::Return(id, _) => frames.contains_key(id),
            Work::Complete(_) | Work::Compensate => true,
        });
    }

    /// Says that nobody waits for the outcome of a step. An attempt that this
    /// same event asked for is not asked for in the first place.
    pub(super) fn cancel(&mut self, step: &Step) {
        match step {
            Step::Activity { task, attempt, .. } => self.cancel_attempt(*task, *attempt),
            Step::Spreading(spreading) => {
                for task in spreading.asked.keys() {
                    self.cancel_attempt(*task, 1);
                }
            }
            _ => {}
        }
    }

    pub(super) fn cancel_attempt(&mut self, task: TaskId, attempt: u32) {
        self.tell(|_| Record::ActivityCancelled { task, attempt });
        let asked = self
            .commands
            .iter()
            .position(|command| schedules(command, task, attempt));
        match asked {
            Some(at) => drop(self.commands.remove(at)),
            None => self
                .commands
                .push(Command::CancelActivity { task, attempt }),
        }
    }
}

/// The error of an attempt, by the name that ASL has for it.
fn asl_failure(failure: &ActivityFailure) -> Failure {
    let error = match failure.error.as_str() {
        errors::TIMEOUT if failure.message.contains("heartbeat") => asl::names::HEARTBEAT_TIMEOUT,
        errors::TIMEOUT => asl::names::TIMEOUT,
        other => other,
    };
    Failure {
        error: error.to_owned(),
        message: failure.message.clone(),
        state: None,
        details: failure.details.clone(),
    }
}

fn is_under_way(step: &Step) -> bool {
    match step {
        Step::Activity { .. }
        | Step::BackingOff { .. }
        | Step::Waiting { .. }
        | Step::Listening { .. }
        | Step::Retrying { .. }
        | Step::Held { .. }
        | Step::Calling { .. }
        | Step::Asking(_) => true,
        Step::Joining { .. }
        | Step::Mapping(_)
        | Step::Spreading(_)
        | Step::Done { .. }
        | Step::Failed { .. }
        | Step::Stopped {} => false,
    }
}

fn schedules(command: &Command, task: TaskId, attempt: u32) -> bool {
    match command {
        Command::ScheduleActivity(asked) => asked.task == task && asked.attempt == attempt,
        Command::CancelActivity { .. } => false,
    }
}

/// The frames beneath `top`, in ascending order: a child's id is greater than
/// its parent's, so one pass finds them all.
fn descendants(execution: &Execution, top: FrameId) -> Vec<FrameId> {
    let mut found: Vec<FrameId> = Vec::new();
    for (id, frame) in execution.frames.range(top..) {
        let beneath = |parent| parent == top || found.binary_search(&parent).is_ok();
        if frame.parent.is_some_and(beneath) {
            found.push(*id);
        }
    }
    found
}

fn handles(catch: &Catch, failure: &Failure) -> bool {
    let mut names = catch.errors.iter();
    names.any(|name| errors::handles(name, &failure.error))
}

fn ended(status: &Status) -> Record {
    match status.clone() {
        Status::Completed { output } => Record::ExecutionCompleted { output },
        Status::Failed { failure } => Record::ExecutionFailed { failure },
        Status::Cancelled { reason } => Record::ExecutionCancelled { reason },
        Status::TimedOut { timeout_ms } => Record::ExecutionTimedOut { timeout_ms },
        Status::Running | Status::Compensating { .. } => {
            unreachable!("an execution is closed with a status that ends it")
        }
    }
}
