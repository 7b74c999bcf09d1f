//! `.waitForTaskToken`: the activity passes a token on, and whoever gets it tells
//! how the task went.
//!
//! The token may be used before the activity has returned. The task's timeout runs
//! from its scheduling to the callback; a heartbeat moves the end of the longest
//! silence, which is counted from the activity's return.

use super::super::ApplyError;
use super::super::data::Output;
use super::super::record::Record;
use super::super::walk::{Machine, Work};
use crate::event::Callback;
use crate::inbox::CallbackRefused;
use crate::{Failure, FrameId, Step, TaskId, TimerKind, asl};

impl Machine<'_> {
    /// The activity has returned: what it gave is nobody's.
    pub(in super::super) fn await_callback(&mut self, id: FrameId) {
        let Step::Activity {
            task,
            attempt,
            timeout,
            ..
        } = self.frame_mut(id).step
        else {
            return; // the caller found it by its attempt
        };
        let heartbeat = self.set_heartbeat(id);
        self.frame_mut(id).step = Step::Calling {
            task,
            attempt,
            timeout,
            heartbeat,
        };
        self.tell(|machine| Record::CallbackAwaited {
            place: machine.place(id),
            task,
            attempt,
        });
    }

    /// Whoever has the token told something. Whether it is taken was for
    /// [`Execution::accepts_callback`](crate::Execution::accepts_callback) to say.
    pub(in super::super) fn callback(
        &mut self,
        task: TaskId,
        attempt: u32,
        callback: &Callback,
    ) -> Result<(), ApplyError> {
        let Some(id) = self.execution.frame_calling(self.program, task, attempt) else {
            self.ignore(CallbackRefused::NotAwaited.reason());
            return Ok(());
        };
        match callback {
            Callback::Heartbeat {} => {
                self.beat(id);
                Ok(())
            }
            Callback::Succeeded { output } => {
                self.end_call(id, task, attempt, callback);
                let output = Output::Text(output.clone());
                self.work.push(Work::Leave(id, output));
                Ok(())
            }
            Callback::Failed { error, cause } => {
                self.end_call(id, task, attempt, callback);
                self.fail(id, Failure::new(error, cause.clone()))
            }
        }
    }

    /// Nothing was heard of whoever has the token for too long.
    pub(in super::super) fn heartbeat_missed(&mut self, id: FrameId) -> Result<(), ApplyError> {
        self.take_step(id);
        // AWS gives no cause.
        self.fail(id, Failure::new(asl::names::HEARTBEAT_TIMEOUT, ""))
    }

    /// Stops waiting: of the activity, too, if it still runs.
    fn end_call(&mut self, id: FrameId, task: TaskId, attempt: u32, callback: &Callback) {
        self.execution.inbox.note_callback(task, attempt, callback);
        let step = self.take_step(id);
        self.cancel(&step);
        self.tell(|machine| Record::CallbackTaken {
            place: machine.place(id),
            task,
            attempt,
        });
    }

    fn beat(&mut self, id: FrameId) {
        let Step::Calling { heartbeat, .. } = &mut self.frame_mut(id).step else {
            return self.ignore("the activity still runs, and has a heartbeat of its own");
        };
        let Some(old) = heartbeat.take() else {
            return self.ignore(CallbackRefused::Needless.reason());
        };
        self.execution.timers.remove(&old);
        let timer = self.set_heartbeat(id);
        if let Step::Calling { heartbeat, .. } = &mut self.frame_mut(id).step {
            *heartbeat = timer;
        }
    }

    fn set_heartbeat(&mut self, id: FrameId) -> Option<crate::TimerId> {
        let data = self.frame_mut(id).data.as_ref();
        let limit = data.and_then(|data| data.heartbeat_ms)?;
        Some(self.set_timer(self.now.plus(limit), TimerKind::Heartbeat(id)))
    }
}
