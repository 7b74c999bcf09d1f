//! Carries frames from state to state until each waits for something.

use std::borrow::Cow;
use std::mem;

use super::budget::Budget;
use super::compensate::Given;
use super::data::Output;
use super::limits::{COMPENSATION_EVENTS, MAX_EVENTS};
use super::record::{Place, Record};
use super::{ApplyError, Command, SEMANTICS, Transition};
use crate::expression::Template;
use crate::program::{
    Attempted, Next, Program, ScopeId, State, StateId, StateKind, Task, Until, Way,
};
use crate::{
    Event, EventKind, Execution, Failure, Frame, FrameId, Json, Status, Step, TaskId, Timer,
    TimerId, TimerKind, Timestamp, errors,
};

/// One application of one event.
pub(crate) struct Machine<'a> {
    pub(crate) program: &'a Program,
    pub(crate) execution: Execution,
    pub(crate) now: Timestamp,
    pub(super) commands: Vec<Command>,
    /// What is left to do. A stack, so that a branch is carried as far as it
    /// goes before the next one; and no recursion, so that no program can
    /// overflow ours.
    pub(super) work: Vec<Work>,
    /// The context as text, while it has not changed.
    pub(super) context_text: Option<Json>,
    /// Whether attributes may be other than they were, since the context is.
    pub(crate) untagged: bool,
    pub(super) budget: Budget,
    observe: Option<&'a mut dyn FnMut(Record)>,
}

/// Something to be done for a frame.
pub(super) enum Work {
    /// Enter the state that the frame is set to.
    Enter(FrameId),
    /// Open the next iteration of the Map state that it is in.
    Open(FrameId),
    /// Leave that state with its output.
    Leave(FrameId, Output),
    /// Go through the items that the reader of an ASL Map state gave.
    Iterate(FrameId, Json),
    /// As [`Work::Leave`], of a Task that may have to be compensated.
    Return(FrameId, Given),
    /// Undo the next of the steps that have to be.
    Compensate,
    /// End the execution, its root frame being done. An output is that of a
    /// Succeed state, which goes before the workflow's own.
    Complete(Option<Json>),
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        program: &'a Program,
        execution: Execution,
        event: &Event,
        observe: Option<&'a mut dyn FnMut(Record)>,
    ) -> Self {
        Self {
            program,
            now: execution.updated_at.max(event.at),
            budget: Budget::of(execution.machine),
            execution,
            commands: Vec::new(),
            work: Vec::new(),
            context_text: None,
            untagged: false,
            observe,
        }
    }

    /// Checks that `event` is the next one, and counts it.
    pub(super) fn admit(&mut self, event: &Event) -> Result<(), ApplyError> {
        let execution = self.execution.id;
        let (seq, expected) = (event.seq, self.execution.version + 1);
        if seq != expected {
            return Err(ApplyError::OutOfOrder {
                execution,
                expected,
                seq,
            });
        }
        if matches!(event.kind, EventKind::ExecutionStarted { .. }) != (seq == 1) {
            return Err(ApplyError::Start { execution, seq });
        }
        self.execution.version = seq;
        self.execution.updated_at = self.now;
        Ok(())
    }

    /// The first event.
    pub(super) fn start(
        &mut self,
        input: &Json,
        shards: u32,
        semantics: u32,
        shard_key: Option<&str>,
    ) -> Result<(), ApplyError> {
        if semantics > SEMANTICS {
            return Err(ApplyError::NewerMachine {
                execution: self.execution.id,
                recorded: semantics,
            });
        }
        // Version 1 was the first; a history without one is as old.
        self.execution.machine = semantics.max(1);
        self.budget = Budget::of(self.execution.machine);
        self.execution.shards = shards;
        self.execution.started_at = self.now;
        if self.program.chunk.is_some() {
            self.begin_chunk(input);
            return Ok(());
        }
        match self.begin_context(input, shard_key) {
            Ok(()) => {
                self.set_workflow_timer();
                self.open_frame(FrameId::ROOT, None, ScopeId::ROOT);
                if self.program.is_asl()
                    && let Err(failure) = self.begin_data()
                {
                    self.close(Status::Failed { failure });
                    return Ok(());
                }
                self.work.push(Work::Enter(FrameId::ROOT));
            }
            Err(failure) => self.close(Status::Failed { failure }),
        }
        Ok(())
    }

    /// An awaited attempt returned.
    pub(super) fn complete(&mut self, frame: FrameId, output: &Json) -> Result<(), ApplyError> {
        if self.execution.waits_for_callback(self.program, frame) {
            self.await_callback(frame);
            return Ok(());
        }
        let step = self.take_step(frame);
        if self.execution.is_compensating() {
            self.compensated(output);
            return Ok(());
        }
        if let StateKind::Asl(_) = self.state_of(frame)?.kind {
            self.work.push(if self.is_reading(frame) {
                Work::Iterate(frame, output.clone())
            } else {
                Work::Leave(frame, Output::Text(output.clone()))
            });
            return Ok(());
        }
        let (_, task) = self.task_of(frame)?;
        self.work.push(match (&task.compensate, step) {
            (Some(_), Step::Activity { input, .. }) => {
                let output = output.clone();
                Work::Return(frame, Given { input, output })
            }
            _ => Work::Leave(frame, Output::Text(output.clone())),
        });
        Ok(())
    }

    /// The end of a pause, of a Wait state, or of what held a frame back.
    pub(super) fn resume(&mut self, id: FrameId) -> Result<(), ApplyError> {
        match self.take_step(id) {
            Step::Waiting { .. } => self.work.push(Work::Leave(id, Output::Null)),
            Step::BackingOff {
                task,
                attempt,
                input,
                timer: _,
            } => {
                let (state, attempted) = self.attempted(id)?;
                self.schedule(id, state, attempted, task, attempt, input);
            }
            Step::Retrying { .. } => self.retry_asl(id)?,
            Step::Held { .. } => self.work.push(Work::Enter(id)),
            _ => return Err(self.mismatch(id)),
        }
        Ok(())
    }

    /// Goes on after a failure: the frames that were stopped enter their
    /// states anew, with fresh tasks; branches that had ended stay so.
    pub(super) fn retry(&mut self) {
        if self.execution.saga.has_run() {
            return self.ignore("what the execution had done was compensated");
        }
        if self.execution.frames.is_empty() {
            return self.ignore("the execution failed before its first state");
        }
        if self.execution.version >= MAX_EVENTS {
            return self.ignore("the history has no room for another try");
        }
        self.execution.status = Status::Running;
        self.tell(|_| Record::ExecutionRetried {});
        self.set_workflow_timer();
        // From the last, so that the first is on top of the stack.
        for (id, frame) in self.execution.frames.iter().rev() {
            match &frame.step {
                Step::Stopped {} => self.work.push(Work::Enter(*id)),
                // For those that wait, should none of its iterations run.
                Step::Mapping(_) | Step::Spreading(_) => self.work.push(Work::Open(*id)),
                // Then it was the workflow's `output` that failed.
                Step::Done { .. } if *id == FrameId::ROOT => self.work.push(Work::Complete(None)),
                _ => {}
            }
        }
    }

    /// Does all that is to be done.
    pub(super) fn walk(&mut self) -> Result<(), ApplyError> {
        self.work_off()?;
        let version = self.execution.version;
        if self.execution.status == Status::Running && version >= MAX_EVENTS {
            let message = format!("the history has reached its limit of {MAX_EVENTS} events");
            let failure = Failure::new(errors::HISTORY_LIMIT, message);
            self.close(Status::Failed { failure });
            self.work_off()?;
        }
        if self.execution.is_compensating() && version >= MAX_EVENTS + COMPENSATION_EVENTS {
            self.give_up_compensation();
        }
        Ok(())
    }

    fn work_off(&mut self) -> Result<(), ApplyError> {
        while let Some(work) = self.work.pop() {
            if self.holds_back(&work) {
                continue;
            }
            match work {
                Work::Enter(frame) => self.enter(frame)?,
                Work::Open(frame) if self.is_spreading(frame) => self.open_chunk(frame)?,
                Work::Open(frame) => self.open_iteration(frame)?,
                Work::Leave(frame, output) => self.leave(frame, output, None)?,
                Work::Iterate(frame, text) => self.iterate_over(frame, &text)?,
                Work::Return(frame, given) => {
                    let output = Output::Text(given.output.clone());
                    self.leave(frame, output, Some(&given))?;
                }
                Work::Compensate => self.compensate_next()?,
                Work::Complete(output) => self.complete_execution(output),
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Transition {
        self.tag();
        Transition {
            execution: self.execution,
            commands: self.commands,
        }
    }

    /// Sets the state that a frame enters next.
    pub(super) fn go(&mut self, id: FrameId, state: StateId) {
        let frame = self.frame_mut(id);
        frame.state = state;
        frame.step = Step::Stopped {};
        self.work.push(Work::Enter(id));
    }

    fn enter(&mut self, id: FrameId) -> Result<(), ApplyError> {
        let state = self.state_of(id)?;
        self.tell(|machine| Record::StateEntered {
            place: machine.place(id),
        });
        let entered = self.budget.state().and_then(|()| match &state.kind {
            StateKind::Task(task) => self.enter_task(id, state, task),
            StateKind::Pass { parameters, .. } => self.pass_on(id, parameters.as_ref()),
            StateKind::Choice { choices, default } => self.enter_choice(id, choices, *default),
            StateKind::Parallel {
                branches, strategy, ..
            } => self.enter_parallel(id, branches, *strategy),
            StateKind::Map(map) => self.enter_map(id, map),
            StateKind::Event(kind) => {
                self.enter_event(id, kind);
                Ok(())
            }
            StateKind::Human(kind) => self.enter_human(id, kind),
            StateKind::Wait { until, .. } => self.enter_wait(id, until),
            StateKind::Succeed { output } => self.succeed(id, output.as_ref()),
            StateKind::Fail { error, message } => {
                Err(self.declared_failure(id, error, message.as_ref()))
            }
            StateKind::Asl(state) => self.enter_asl(id, state),
        });
        match entered {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(id, failure),
        }
    }

    /// Goes through a state that only computes its output.
    fn pass_on(&mut self, id: FrameId, output: Option<&Template>) -> Result<(), Failure> {
        let output = match output {
            Some(template) => Output::Value(self.eval(id, template)?),
            None => Output::Null,
        };
        self.work.push(Work::Leave(id, output));
        Ok(())
    }

    /// As [`Self::pass_on`], where the output is only held as text.
    fn succeed(&mut self, id: FrameId, output: Option<&Template>) -> Result<(), Failure> {
        let output = match output {
            Some(template) => Output::Text(self.eval_text(id, template)?),
            None => Output::Null,
        };
        self.work.push(Work::Leave(id, output));
        Ok(())
    }

    fn enter_task(&mut self, id: FrameId, state: &'a State, kind: &'a Task) -> Result<(), Failure> {
        self.check_nesting(kind)?;
        let input = match &kind.parameters {
            Some(parameters) => self.eval_text(id, parameters)?,
            None => self.default_input(id)?,
        };
        self.check_held(&input)?;
        self.check_compensations(kind)?;
        let task = TaskId(self.fresh());
        if let Some(attempted) = kind.attempted(false) {
            self.schedule(id, state, attempted, task, 1, input);
        }
        Ok(())
    }

    /// Asks for an attempt of an activity.
    pub(super) fn schedule(
        &mut self,
        id: FrameId,
        state: &'a State,
        attempted: Attempted<'a>,
        task: TaskId,
        attempt: u32,
        input: Json,
    ) {
        self.tell(|machine| Record::ActivityScheduled {
            place: machine.place(id),
            task,
            attempt,
            input: input.clone(),
        });
        let timeout = attempted
            .timeout_ms
            .map(|limit| self.set_timer(self.now.plus(limit), TimerKind::AttemptTimeout(id)));
        let step = Step::Activity {
            task,
            attempt,
            input,
            scheduled_at: self.now,
            timeout,
        };
        self.commands.extend(
            step.activity_task(state, attempted, self.execution.priority)
                .map(Command::ScheduleActivity),
        );
        self.frame_mut(id).step = step;
    }

    fn enter_choice(
        &mut self,
        id: FrameId,
        choices: &'a [Way],
        default: Option<StateId>,
    ) -> Result<(), Failure> {
        let next = self.choose(id, choices, default)?;
        self.tell(|machine| Record::StateExited {
            place: machine.place(id),
            output: Output::Null.to_json(),
        });
        self.go(id, next);
        Ok(())
    }

    fn enter_wait(&mut self, id: FrameId, until: &'a Until) -> Result<(), Failure> {
        let at = self.end_of_wait(id, until)?;
        if at <= self.now {
            self.work.push(Work::Leave(id, Output::Null));
        } else {
            let timer = self.set_timer(at, TimerKind::Resume(id));
            self.frame_mut(id).step = Step::Waiting { timer };
        }
        Ok(())
    }

    /// Leaves the state that a frame is in. `given` is of a Task that may have to
    /// be compensated.
    fn leave(
        &mut self,
        id: FrameId,
        output: Output,
        given: Option<&Given>,
    ) -> Result<(), ApplyError> {
        let state = self.state_of(id)?;
        let (result, next) = match &state.kind {
            StateKind::Task(task) => (task.result.as_ref(), task.next),
            StateKind::Pass { result, next, .. } | StateKind::Parallel { result, next, .. } => {
                (result.as_ref(), *next)
            }
            StateKind::Map(map) => (map.result.as_ref(), map.next),
            StateKind::Event(kind) => (kind.result.as_ref(), kind.next),
            StateKind::Human(kind) => (kind.result.as_ref(), kind.next),
            StateKind::Wait { next, .. } => (None, *next),
            StateKind::Succeed { .. } => (None, Next::End),
            StateKind::Asl(state) => return self.leave_asl(id, state, output),
            StateKind::Choice { .. } | StateKind::Fail { .. } => return Err(self.mismatch(id)),
        };
        self.tell(|machine| Record::StateExited {
            place: machine.place(id),
            output: output.to_json(),
        });
        let parent = self.frame_mut(id).parent;
        let held = match (next, parent, &state.kind) {
            (Next::End, Some(parent), _) => self.hold(parent, &output).map(Some),
            (Next::End, None, StateKind::Succeed { output: Some(_) }) => {
                self.text_of(&output).map(Some)
            }
            _ => Ok(None),
        };
        let put = held.and_then(|held| self.write(id, result, output).map(|()| held));
        let remembered = self.remember(id, state, given);
        match (put.and_then(|held| remembered.map(|()| held)), next, parent) {
            (Err(failure), ..) => self.fail(id, failure)?,
            (Ok(_), Next::State(next), _) => self.go(id, next),
            (Ok(chosen), Next::End, None) => {
                let output = Output::Null.to_json();
                self.frame_mut(id).step = Step::Done { output };
                self.work.push(Work::Complete(chosen));
            }
            (Ok(held), Next::End, Some(parent)) => {
                let held = held.unwrap_or_else(|| Output::Null.to_json());
                if self.frame_mut(id).iteration.is_some() {
                    self.end_iteration(id, parent, held)?;
                } else {
                    self.end_branch(id, parent, held)?;
                }
            }
        }
        Ok(())
    }

    fn complete_execution(&mut self, chosen: Option<Json>) {
        let output = match (chosen, &self.program.output) {
            (Some(output), _) => Ok(output),
            (None, Some(template)) => self.eval_text(FrameId::ROOT, template),
            (None, None) => self.results(),
        };
        self.close(match output {
            Ok(output) => Status::Completed { output },
            Err(failure) => Status::Failed { failure },
        });
    }

    fn set_workflow_timer(&mut self) {
        if let Some(limit) = self.program.timeout_ms {
            self.set_timer(self.now.plus(limit), TimerKind::WorkflowTimeout);
        }
    }

    pub(super) fn set_timer(&mut self, at: Timestamp, kind: TimerKind) -> TimerId {
        let timer = TimerId(self.fresh());
        self.tell(|_| Record::TimerSet {
            timer,
            at,
            kind: kind.clone(),
        });
        self.execution.timers.insert(timer, Timer { at, kind });
        timer
    }

    /// Removes a timer that fired; none if it is not set, not due, or held.
    pub(super) fn take_timer(&mut self, id: TimerId) -> Option<TimerKind> {
        let timer = self.execution.timers.get(&id)?;
        if timer.at > self.now || !self.execution.runs(timer) {
            return None;
        }
        self.execution.timers.remove(&id).map(|timer| timer.kind)
    }

    /// Takes what a frame was doing, and drops the timer of it.
    pub(super) fn take_step(&mut self, id: FrameId) -> Step {
        let step = mem::replace(&mut self.frame_mut(id).step, Step::Stopped {});
        for timer in step.timers() {
            self.execution.timers.remove(&timer);
        }
        step
    }

    pub(super) fn open_frame(&mut self, id: FrameId, parent: Option<FrameId>, scope: ScopeId) {
        let frame = Frame {
            parent,
            scope,
            state: self.program.scope(scope).start,
            step: Step::Stopped {},
            iteration: None,
            data: None,
        };
        self.execution.frames.insert(id, frame);
    }

    /// A number that nothing else of this execution has.
    pub(super) fn fresh(&mut self) -> u64 {
        let id = self.execution.next_id;
        self.execution.next_id += 1;
        id
    }

    pub(super) fn frame_mut(&mut self, id: FrameId) -> &mut Frame {
        let frame = self.execution.frames.get_mut(&id);
        frame.expect("parents, timers and work name only frames that exist")
    }

    /// The state that a frame is in. Checked: a stored execution may meet
    /// another program than the one that it was made with.
    pub(super) fn state_of(&self, id: FrameId) -> Result<&'a State, ApplyError> {
        let frame = self.execution.frames.get(&id);
        frame
            .and_then(|frame| self.program.states.get(frame.state.0 as usize))
            .ok_or_else(|| self.mismatch(id))
    }

    /// The Task state that a frame is in.
    pub(super) fn task_of(&self, id: FrameId) -> Result<(&'a State, &'a Task), ApplyError> {
        let state = self.state_of(id)?;
        match &state.kind {
            StateKind::Task(task) => Ok((state, task)),
            _ => Err(self.mismatch(id)),
        }
    }

    /// What the attempts of a frame run.
    pub(super) fn attempted(&self, id: FrameId) -> Result<(&'a State, Attempted<'a>), ApplyError> {
        let (state, task) = self.task_of(id)?;
        let attempted = task.attempted(self.execution.is_compensating());
        let attempted = attempted.ok_or_else(|| self.mismatch(id))?;
        Ok((state, attempted))
    }

    pub(super) fn mismatch(&self, id: FrameId) -> ApplyError {
        let frame = self.execution.frames.get(&id);
        ApplyError::Mismatch {
            execution: self.execution.id,
            program: self.program.name.clone(),
            frame: id,
            state: frame.map_or(StateId(u32::MAX), |frame| frame.state),
        }
    }

    pub(super) fn ignore(&mut self, reason: &'static str) {
        self.tell(|_| Record::EventIgnored { reason });
    }

    /// Tells the observer, if there is one; the record is not made otherwise.
    pub(super) fn tell(&mut self, record: impl FnOnce(&Self) -> Record) {
        if let Some(observe) = self.observe.take() {
            observe(record(self));
            self.observe = Some(observe);
        }
    }

    /// Where a frame stands, for records.
    pub(super) fn place(&self, id: FrameId) -> Place {
        let mut around: Vec<_> = self.ancestors(id).collect();
        around.reverse();
        let mut path: Vec<Cow<'_, str>> = Vec::new();
        for (at, frame) in around.iter().enumerate() {
            path.push(self.state_name(*frame).into());
            let branch = around.get(at + 1).unwrap_or(&id);
            path.push(match self.execution.frames[branch].iteration.as_ref() {
                Some(iteration) => iteration.index.to_string().into(),
                None => self.branch_name(*branch).into(),
            });
        }
        // A frame that undoes a step stands where the step stood.
        let saga = &self.execution.saga;
        let state = self.execution.frames[&id].state;
        let undone = saga
            .completed
            .last()
            .filter(|_| self.execution.is_compensating());
        Place {
            frame: id,
            path: undone.map_or_else(|| path.join("/"), |step| step.path.clone()),
            state: self.state_name(id).into(),
            id: state,
        }
    }

    /// The frames around a frame, from the inside out.
    pub(super) fn ancestors(&self, id: FrameId) -> impl Iterator<Item = FrameId> {
        let parent = |id: &FrameId| self.execution.frames.get(id).and_then(|frame| frame.parent);
        std::iter::successors(parent(&id), parent)
    }

    pub(super) fn state_name(&self, id: FrameId) -> &'a str {
        self.state_of(id).map_or("?", |state| &state.name)
    }

    pub(super) fn branch_name(&self, id: FrameId) -> &'a str {
        let scope = self.execution.frames.get(&id).map(|frame| frame.scope);
        scope
            .and_then(|scope| self.program.scopes.get(scope.0 as usize))
            .map_or("?", |scope| &scope.name)
    }
}
