//! Task states: the input of an activity, its limits, its result.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::CALLBACKS;
use super::super::record::Record;
use super::super::walk::Machine;
use super::{MAX_STATE_BYTES, flow, whole};
use crate::asl::Envelope;
use crate::asl::fault::{Fault, names};
use crate::asl::program::{Amount, Bound, State, Task};
use crate::asl::scope::Scope;
use crate::machine::Command;
use crate::{Failure, FrameId, Json, Step, TaskId, TimerKind};

impl<'a> Machine<'a> {
    pub(super) fn run_task(
        &mut self,
        id: FrameId,
        state: &'a State,
        task: &'a Task,
    ) -> Result<(), Failure> {
        let Some(bound) = &task.bound else {
            return Err(self.unbound(id, &task.resource));
        };
        if self.data_mut(id).task.is_none() {
            self.data_mut(id).task = Some(TaskId(self.fresh()));
        }
        let scope = self.scope(id, state);
        let mut steps = 0;
        let input = flow::arguments(&state.flow, &scope, &mut steps);
        let input = self.settled(id, &scope, steps, input)?;
        let mut steps = 0;
        let limits = limits(state, task, &scope, &mut steps);
        let (timeout_ms, heartbeat_ms) = self.settled(id, &scope, steps, limits)?;
        let data = self.data_mut(id);
        data.timeout_ms = timeout_ms;
        data.heartbeat_ms = heartbeat_ms;
        self.attempt(id, bound, &input)
    }

    /// That nobody said which activity runs for a resource.
    pub(super) fn unbound(&self, id: FrameId, resource: &str) -> Failure {
        let cause = format!("No activity is bound to the resource {resource}");
        self.failure_of(id, &Fault::new(names::TASK_FAILED, cause))
    }

    /// Asks for an attempt of the activity behind a resource.
    pub(super) fn attempt(
        &mut self,
        id: FrameId,
        bound: &Bound,
        input: &Value,
    ) -> Result<(), Failure> {
        self.check_size(id, input)?;
        let null = Value::Null;
        let input = match bound.envelope {
            Envelope::None => input,
            Envelope::LambdaInvoke => input.get("Payload").unwrap_or(&null),
        };
        let input = self.budget.write(input)?;
        self.check_held(&input)?;
        let own = TaskId(self.fresh());
        let data = self.data_mut(id);
        let task = *data.task.get_or_insert(own);
        let attempt = 1 + data.retries.iter().sum::<u32>();
        let timeout_ms = data.timeout_ms;
        self.tell(|machine| Record::ActivityScheduled {
            place: machine.place(id),
            task,
            attempt,
            input: input.clone(),
        });
        let timeout = timeout_ms
            .map(|limit| self.set_timer(self.now.plus(limit), TimerKind::AttemptTimeout(id)));
        self.frame_mut(id).step = Step::Activity {
            task,
            attempt,
            input,
            scheduled_at: self.now,
            timeout,
        };
        let priority = self.execution.priority;
        if let Ok(state) = self.state_of(id) {
            let frame = self.frame_mut(id);
            let attempted = frame.attempted(state, false);
            let command =
                attempted.and_then(|what| frame.step.activity_task(state, what, priority));
            self.commands.extend(command.map(Command::ScheduleActivity));
        }
        Ok(())
    }

    /// The result of a Task: what its activity gave, in the envelope of the resource.
    pub(super) fn task_result(
        &mut self,
        id: FrameId,
        task: &Task,
        text: &Json,
    ) -> Result<Arc<Value>, Failure> {
        if text.len() as u64 > MAX_STATE_BYTES {
            return Err(self.too_large(id));
        }
        let result = self.parse(id, text)?;
        let envelope = task.bound.as_ref().map(|bound| bound.envelope);
        // What a callback brings is the result as it is.
        let is_told = task.waits_for_callback() && self.execution.machine >= CALLBACKS;
        Ok(match envelope.filter(|_| !is_told) {
            Some(Envelope::LambdaInvoke) => Arc::new(json!({
                "ExecutedVersion": "$LATEST",
                "Payload": result.as_ref(),
                "StatusCode": 200,
            })),
            _ => result,
        })
    }
}

/// `TimeoutSeconds` and `HeartbeatSeconds`, in milliseconds.
fn limits(
    state: &State,
    task: &Task,
    scope: &Scope,
    steps: &mut u64,
) -> Result<(Option<u64>, Option<u64>), Fault> {
    let data = flow::input(&state.flow, scope)?;
    let mut limit = |amount: &Option<Amount>| match amount {
        Some(amount) => match whole(amount, scope, &data, steps)? {
            0 => Err(Fault::runtime(format!(
                "The value of {} has to be positive",
                amount.field
            ))),
            seconds => Ok(Some(seconds.saturating_mul(1_000))),
        },
        None => Ok(None),
    };
    Ok((limit(&task.timeout)?, limit(&task.heartbeat)?))
}

/// How AWS calls a task when its result is too large: the service of an
/// integration, the whole ARN of anything else.
pub(super) fn short_name(resource: &str) -> &str {
    let rest = resource.split_once(":states:::").map(|(_, rest)| rest);
    let rest = rest.map(|rest| rest.strip_prefix("aws-sdk:").unwrap_or(rest));
    rest.and_then(|rest| rest.split(':').next())
        .unwrap_or(resource)
}
