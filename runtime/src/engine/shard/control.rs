//! What people and programs do to an execution: cancel it, retry it, pause and resume
//! it, move it to another version, bring it a signal, an answer or the outcome of a task.
//!
//! Whether it can be done is asked before anything is recorded. The answer
//! waits until what was recorded, or what a refusal rests on, is durable; a
//! crash before that loses both, and who asked has to ask again.

use cascade_cdl::{
    AnswerRefused, Callback, CallbackRefused, EventKind, Execution, SignalRefused, Status,
    TaskToken, Timestamp, limits,
};

use super::{Control, ControlRequest, Move, Shard};
use crate::engine::live::{Effect, Live};
use crate::engine::{Answer, ControlError, Signal};

/// What there is to do.
enum Due {
    /// To record this.
    Event(EventKind),
    /// To move it.
    Move(Move),
    /// Nothing: it was done before.
    Done,
}

impl Shard {
    pub(super) fn control(&mut self, mut live: Box<Live>, request: ControlRequest) {
        let ControlRequest {
            control,
            place,
            reply,
            ..
        } = request;
        drop(place);
        match self.due(&live, control) {
            Ok(Due::Event(kind)) => {
                live.urgent = true;
                live.held.push(Effect::Controlled(reply));
                self.advance(live, kind);
            }
            Ok(Due::Move(to)) => {
                live.urgent = true;
                live.held.push(Effect::Controlled(reply));
                self.migrate(live, &to);
            }
            Ok(Due::Done) => {
                live.tell(|| drop(reply.send(Ok(()))));
                self.settle(live, false);
            }
            Err(error) => {
                live.tell(|| drop(reply.send(Err(error))));
                self.settle(live, false);
            }
        }
    }

    fn due(&mut self, live: &Live, control: Control) -> Result<Due, ControlError> {
        let kind = match control {
            Control::Cancel(reason) => {
                // Who gives it up wants what it has done undone now.
                if live.execution().is_compensating() && live.is_paused() {
                    return Ok(Due::Event(EventKind::ExecutionResumed {}));
                }
                // What is being compensated has an outcome already.
                if live.execution().is_compensating() || live.summary.closed_at.is_some() {
                    return Err(ControlError::AlreadyClosed);
                }
                EventKind::CancelRequested { reason }
            }
            Control::Retry => {
                self.check_retry(live)?;
                EventKind::RetryRequested {}
            }
            Control::Pause(_) | Control::Resume if live.summary.closed_at.is_some() => {
                return Err(ControlError::AlreadyClosed);
            }
            Control::Pause(_) if live.is_paused() => return Ok(Due::Done),
            Control::Pause(reason) => EventKind::ExecutionPaused { reason },
            Control::Resume if !live.is_paused() => return Ok(Due::Done),
            Control::Resume => EventKind::ExecutionResumed {},
            Control::Signal(signal) => return signalled(live, signal),
            Control::Migrate(to) => return movable(live, to),
            Control::Answer { answer, is_checked } => return answered(live, answer, is_checked),
            Control::Callback { token, callback } => {
                let now = self.context.clock.now();
                return called_back(live, token, callback, now);
            }
        };
        Ok(Due::Event(kind))
    }

    fn check_retry(&mut self, live: &Live) -> Result<(), ControlError> {
        if !can_retry(live.execution()) {
            return Err(ControlError::NotRetryable);
        }
        let tenant = &live.summary.tenant;
        let admission = self.context.definitions.admission(tenant);
        Ok(self.admit(tenant, &admission)?)
    }
}

/// Whether a retry would go on with something: the machine keeps the frames of
/// what failed or timed out, unless it failed before it had any.
fn can_retry(execution: &Execution) -> bool {
    let failed = matches!(
        execution.status,
        Status::Failed { .. } | Status::TimedOut { .. }
    );
    failed && !execution.frames.is_empty() && execution.version < limits::MAX_EVENTS
}

/// What was judged is what the store had: if more has happened since, it has to be
/// judged again. That is not done here, where others would wait for it.
fn movable(live: &Live, to: Move) -> Result<Due, ControlError> {
    if live.summary.closed_at.is_some() {
        return Err(ControlError::AlreadyClosed);
    }
    if live.summary.application_version >= to.version {
        return Ok(Due::Done);
    }
    if live.execution().version != to.judged {
        return Err(ControlError::MovedOn);
    }
    Ok(Due::Move(to))
}

fn signalled(live: &Live, signal: Signal) -> Result<Due, ControlError> {
    let Signal {
        name,
        payload,
        idempotency_key: id,
    } = signal;
    let execution = live.execution();
    match execution.accepts_signal(&live.program, &name, &payload, id.as_deref()) {
        Ok(()) => Ok(Due::Event(EventKind::SignalReceived { name, payload, id })),
        Err(SignalRefused::Repeated) => Ok(Due::Done),
        Err(SignalRefused::Reused) => Err(ControlError::KeyReused),
        Err(SignalRefused::Ended) => Err(ControlError::AlreadyClosed),
        Err(SignalRefused::Unknown) => Err(ControlError::UnknownSignal(name)),
        Err(SignalRefused::InboxFull) => Err(ControlError::InboxFull(name)),
    }
}

fn answered(live: &Live, answer: Answer, is_checked: bool) -> Result<Due, ControlError> {
    let Answer { task, output, by } = answer;
    match live.execution().accepts_answer(task, &output, &by) {
        Ok(()) if is_checked => Ok(Due::Event(EventKind::HumanTaskCompleted {
            task,
            output,
            by,
        })),
        // It was not when the schema was looked for: then nobody can know of it.
        Ok(()) | Err(AnswerRefused::NotAsked) => Err(ControlError::NotAsked),
        Err(AnswerRefused::Repeated) => Ok(Due::Done),
    }
}

fn called_back(
    live: &Live,
    token: TaskToken,
    callback: Callback,
    now: Timestamp,
) -> Result<Due, ControlError> {
    let TaskToken { task, attempt, .. } = token;
    let execution = live.execution();
    match execution.accepts_callback(&live.program, task, attempt, &callback, now) {
        Ok(()) => Ok(Due::Event(EventKind::CallbackReceived {
            task,
            attempt,
            callback,
        })),
        Err(CallbackRefused::Repeated | CallbackRefused::Needless) => Ok(Due::Done),
        Err(CallbackRefused::NotAwaited) => Err(ControlError::NotAwaited),
    }
}
