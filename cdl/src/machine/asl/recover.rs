//! `Retry` and `Catch`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::fault::Caught;
use super::super::record::Record;
use super::super::retry::pause_ms;
use super::super::walk::Machine;
use super::flow;
use crate::asl::fault::Fault;
use crate::asl::program::{Catcher, Flow, Retrier, State, matches_error};
use crate::asl::scope::Scope;
use crate::program::RetryPolicy;
use crate::{Failure, FrameId, Step, TaskId, TimerKind};

impl<'a> Machine<'a> {
    /// Lets a state's `Retry` and then its `Catch` deal with a failure.
    pub(in crate::machine) fn recover(
        &mut self,
        id: FrameId,
        state: &'a State,
        failure: &Failure,
    ) -> Caught {
        let retriers = state.retry.iter().map(|retrier| retrier.errors.len());
        let catchers = state.catch.iter().map(|catcher| catcher.errors.len());
        if let Err(own) = self.budget.names(retriers.chain(catchers).sum()) {
            return Caught::Becomes(own);
        }
        let error = &failure.error;
        // Only the first that matches counts, even if it has no attempt left.
        let retrier = state
            .retry
            .iter()
            .position(|retrier| matches_error(&retrier.errors, error));
        if let Some(at) = retrier
            && self.try_again(id, &state.retry[at], at, state.retry.len(), error)
        {
            return Caught::Handled;
        }
        let mut catchers = state.catch.iter();
        let Some(catcher) = catchers.find(|catcher| matches_error(&catcher.errors, error)) else {
            return Caught::Not;
        };
        self.drop_branches(id);
        if let Err(own) = self.caught_by(id, state, catcher, failure) {
            self.frame_mut(id).step = Step::Stopped {};
            return Caught::Becomes(own);
        }
        self.tell(|machine| Record::Caught {
            place: machine.place(id),
            error: error.clone(),
            next: machine.program.state(catcher.next).name.clone(),
        });
        self.go(id, catcher.next);
        Caught::Handled
    }

    /// Sets the timer of another try, if the retrier has one left.
    fn try_again(
        &mut self,
        id: FrameId,
        retrier: &Retrier,
        at: usize,
        count: usize,
        error: &str,
    ) -> bool {
        let data = self.data_mut(id);
        data.retries.resize(count, 0);
        if data.retries[at] >= retrier.max_attempts {
            return false;
        }
        data.retries[at] += 1;
        let used = data.retries[at];
        let attempt = 1 + data.retries.iter().sum::<u32>();
        // States without a task are told apart by their frame.
        let task = data.task.unwrap_or(TaskId(id.0));
        self.drop_branches(id);
        let policy = RetryPolicy {
            max_attempts: u32::MAX,
            initial_interval_ms: retrier.interval_ms,
            max_interval_ms: retrier.max_delay_ms,
            multiplier: retrier.backoff,
            jitter: retrier.jitter,
        };
        let pause = pause_ms(&policy, self.execution.id, task, used);
        let at = self.now.plus(pause);
        self.tell(|machine| Record::RetryScheduled {
            place: machine.place(id),
            task,
            attempt,
            at,
            error: error.to_owned(),
        });
        let timer = self.set_timer(at, TimerKind::Resume(id));
        self.frame_mut(id).step = Step::Retrying { timer };
        true
    }

    /// Makes what a catcher gives the input of the state that it leads to.
    fn caught_by(
        &mut self,
        id: FrameId,
        state: &'a State,
        catcher: &Catcher,
        failure: &Failure,
    ) -> Result<(), Failure> {
        self.budget
            .text(failure.error.len() + failure.message.len())?;
        let mut scope = self.scope(id, state);
        let mut steps = 0;
        let left = leave(
            &state.flow,
            catcher,
            error_output(failure),
            &mut scope,
            &mut steps,
        );
        let left = self.settled(id, &scope, steps, left)?;
        self.keep(id, left)
    }
}

/// `{Error, Cause}`, without what there is not.
fn error_output(failure: &Failure) -> Value {
    let mut output = Map::new();
    for (key, text) in [("Error", &failure.error), ("Cause", &failure.message)] {
        if !text.is_empty() {
            output.insert(key.to_owned(), Value::String(text.clone()));
        }
    }
    Value::Object(output)
}

fn leave(
    flow: &Flow,
    catcher: &Catcher,
    error: Value,
    scope: &mut Scope,
    steps: &mut u64,
) -> Result<flow::Left, Fault> {
    let assign = catcher.assign.as_ref();
    match flow {
        Flow::Path(_) => {
            let variables = flow::variables(assign, scope, &error, steps)?;
            let output = flow::combine(&catcher.result, scope, Arc::new(error))?;
            Ok(flow::Left { output, variables })
        }
        Flow::Query { .. } => {
            scope.error = Some(error.clone());
            flow::leave_query(
                scope,
                Arc::new(error),
                assign,
                catcher.output.as_ref(),
                steps,
            )
        }
    }
}
