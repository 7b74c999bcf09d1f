//! Waiting for the outside: signals and people.
//!
//! Neither is asked for by a command: what an execution waits for is in its
//! frames, for whoever delivers. A signal that nobody waits for yet is kept in
//! the inbox until an `EventTask` asks for it.

use super::ApplyError;
use super::data::Output;
use super::record::Record;
use super::walk::{Machine, Work};
use crate::execution::Asking;
use crate::inbox::{AnswerRefused, Signal};
use crate::program::{EventTask, HumanTask, StateKind, Timeout};
use crate::{Failure, FrameId, Json, Step, TaskId, TimerId, TimerKind, errors};

impl<'a> Machine<'a> {
    pub(super) fn enter_event(&mut self, id: FrameId, kind: &EventTask) {
        if let Some(signal) = self.execution.inbox.take(&kind.event) {
            self.work
                .push(Work::Leave(id, Output::Text(signal.payload)));
            return;
        }
        let timeout = self.set_timeout(id, kind.timeout);
        self.frame_mut(id).step = Step::Listening { timeout };
    }

    pub(super) fn enter_human(&mut self, id: FrameId, kind: &'a HumanTask) -> Result<(), Failure> {
        let input = match &kind.parameters {
            Some(parameters) => self.eval_text(id, parameters)?,
            None => Output::Null.to_json(),
        };
        self.check_held(&input)?;
        let assignee = self.assignee(id, &kind.assignee)?;
        let task = TaskId(self.fresh());
        let timeout = self.set_timeout(id, kind.timeout);
        self.frame_mut(id).step = Step::Asking(Box::new(Asking {
            task,
            assignee: assignee.clone(),
            input,
            opened_at: self.now,
            timeout,
            escalation: None,
            escalated: 0,
        }));
        self.tell(|machine| Record::PersonAsked {
            place: machine.place(id),
            task,
            assignee,
        });
        self.set_escalation(id, kind);
        Ok(())
    }

    /// A signal came. Whether it is taken was for
    /// [`Execution::accepts_signal`](crate::Execution::accepts_signal) to say
    /// before it was recorded; one that is not changes nothing.
    pub(super) fn signal(&mut self, name: &str, payload: &Json, id: Option<&str>) {
        let accepted = self
            .execution
            .accepts_signal(self.program, name, payload, id);
        if let Err(refused) = accepted {
            return self.ignore(refused.reason());
        }
        if let Some(id) = id {
            self.execution.inbox.note(id, name, payload);
        }
        let listening = self.execution.listening(self.program, name);
        self.tell(|_| Record::SignalReceived {
            name: name.to_owned(),
            buffered: listening.is_none(),
        });
        if let Some(frame) = listening {
            self.take_step(frame);
            let output = Output::Text(payload.clone());
            self.work.push(Work::Leave(frame, output));
        } else {
            self.execution.inbox.put(Signal {
                name: name.to_owned(),
                payload: payload.clone(),
            });
        }
    }

    /// Somebody did what a `HumanTask` asked for. Whether it is taken was for
    /// [`Execution::accepts_answer`](crate::Execution::accepts_answer) to say.
    pub(super) fn complete_human(&mut self, task: TaskId, output: &Json, by: &str) {
        let Some(id) = self.execution.frame_asking(task) else {
            return self.ignore(AnswerRefused::NotAsked.reason());
        };
        self.execution.inbox.note_answer(task, output, by);
        self.take_step(id);
        self.tell(|machine| Record::PersonAnswered {
            place: machine.place(id),
            task,
            by: by.to_owned(),
        });
        let output = Output::Text(output.clone());
        self.work.push(Work::Leave(id, output));
    }

    /// The `timeout` of an `EventTask` or a `HumanTask` is over.
    pub(super) fn wait_timed_out(&mut self, id: FrameId) -> Result<(), ApplyError> {
        let (timeout, what) = match &self.state_of(id)?.kind {
            StateKind::Event(kind) => (kind.timeout, "signal"),
            StateKind::Human(kind) => (kind.timeout, "answer"),
            _ => return Err(self.mismatch(id)),
        };
        let timeout = timeout.ok_or_else(|| self.mismatch(id))?;
        self.take_step(id);
        let message = format!("no {what} within the state's timeout of {} ms", timeout.ms);
        let Some(next) = timeout.next else {
            return self.fail(id, Failure::new(errors::TIMEOUT, message));
        };
        self.tell(|machine| Record::Caught {
            place: machine.place(id),
            error: errors::TIMEOUT.to_owned(),
            next: machine.program.state(next).name.clone(),
        });
        self.go(id, next);
        Ok(())
    }

    /// It is time to ask somebody else.
    pub(super) fn escalate(&mut self, id: FrameId) -> Result<(), ApplyError> {
        let StateKind::Human(kind) = &self.state_of(id)?.kind else {
            return Err(self.mismatch(id));
        };
        let level = match &self.frame_mut(id).step {
            Step::Asking(asking) => asking.escalated,
            _ => return Err(self.mismatch(id)),
        };
        let Some(escalation) = kind.escalate.get(level as usize) else {
            return Err(self.mismatch(id));
        };
        let assignee = match self.assignee(id, &escalation.assignee) {
            Ok(assignee) => assignee,
            Err(failure) => {
                self.take_step(id);
                return self.fail(id, failure);
            }
        };
        let task = match &mut self.frame_mut(id).step {
            Step::Asking(asking) => {
                asking.escalated += 1;
                asking.escalation = None;
                asking.assignee.clone_from(&assignee);
                asking.task
            }
            _ => return Err(self.mismatch(id)),
        };
        self.tell(|machine| Record::PersonAsked {
            place: machine.place(id),
            task,
            assignee,
        });
        self.set_escalation(id, kind);
        Ok(())
    }

    /// Sets the timer of the next escalation, if there is one.
    fn set_escalation(&mut self, id: FrameId, kind: &HumanTask) {
        let Step::Asking(asking) = &self.frame_mut(id).step else {
            return;
        };
        let opened_at = asking.opened_at;
        let Some(next) = kind.escalate.get(asking.escalated as usize) else {
            return;
        };
        let at = opened_at.plus(next.after_ms);
        let timer = self.set_timer(at, TimerKind::Escalation(id));
        if let Step::Asking(asking) = &mut self.frame_mut(id).step {
            asking.escalation = Some(timer);
        }
    }

    fn set_timeout(&mut self, id: FrameId, timeout: Option<Timeout>) -> Option<TimerId> {
        timeout.map(|timeout| {
            let at = self.now.plus(timeout.ms);
            self.set_timer(at, TimerKind::WaitTimeout(id))
        })
    }
}
