//! Pausing: nothing new begins until the execution is resumed.
//!
//! What runs is let run, and its outcome, a signal or an answer carries its frame
//! on to the door of the next state: results are written, failures caught, branches
//! joined. There it is held. What is held is a timer that has come due, like a Wait
//! state whose end is over, and while the execution is paused such timers do not
//! fire; see [`Execution::due_timers`](crate::Execution::due_timers). So resuming it
//! is an event that changes next to nothing, and each frame goes on by an event of
//! its own, with all the steps that one may take.
//!
//! Limits of what runs hold on: an attempt's timeout, and the workflow's. The
//! latter ends the execution, as the failure or the end of the last thing that ran
//! does; what undoes its steps is held, too. Who cancels it resumes it.

use super::record::Record;
use super::walk::{Machine, Work};
use crate::execution::Paused;
use crate::{Step, TimerKind};

impl Machine<'_> {
    pub(super) fn pause(&mut self, reason: &str) {
        if self.execution.is_closed() {
            return self.ignore("the execution has ended");
        }
        if self.execution.paused.is_some() {
            return self.ignore("the execution is paused already");
        }
        self.execution.paused = Some(Paused {
            at: self.now,
            reason: reason.to_owned(),
        });
        self.tell(|_| Record::ExecutionPaused {
            reason: reason.to_owned(),
        });
    }

    pub(super) fn resume_execution(&mut self) {
        if self.execution.paused.take().is_none() {
            return self.ignore("the execution is not paused");
        }
        self.tell(|_| Record::ExecutionResumed {});
        if self.execution.is_compensating() && self.execution.frames.is_empty() {
            self.work.push(Work::Compensate);
        }
        // From the last, so that the first is on top of the stack. Those that
        // have no room for another iteration open none.
        for (id, frame) in self.execution.frames.iter().rev() {
            if let Step::Mapping(_) | Step::Spreading(_) = frame.step {
                self.work.push(Work::Open(*id));
            }
        }
    }

    /// Whether this is for later: it would make something new begin.
    pub(super) fn holds_back(&mut self, work: &Work) -> bool {
        if self.execution.paused.is_none() {
            return false;
        }
        match work {
            Work::Enter(id) => {
                let timer = self.set_timer(self.now, TimerKind::Resume(*id));
                self.frame_mut(*id).step = Step::Held { timer };
                true
            }
            // The items that wait are in the frame.
            Work::Open(_) => true,
            // With nothing left to undo, it is the end.
            Work::Compensate if self.execution.saga.completed.is_empty() => false,
            Work::Compensate => {
                self.execution.frames.clear();
                true
            }
            Work::Leave(..) | Work::Iterate(..) | Work::Return(..) | Work::Complete(_) => false,
        }
    }
}
