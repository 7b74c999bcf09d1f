//! Executions in memory: the one that was asked for, and its children.
//!
//! Each is a future of its own, and one loop polls them all. A child outlives its
//! parent as it does on a server: the command ends when all have ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use cascade_cdl::program::{Application, Child, ParentClose, Program};
use cascade_cdl::{
    ActivityFailure, ActivityTask, Command, Event, EventKind, Execution, ExecutionId, Json, Parent,
    Receipt, Status, TaskId, TimerId, Timestamp, apply_traced, errors, outcome_of_child,
};
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::super::error::Error;
use super::super::events;
use super::super::local::{self, Caller, Local};
use super::super::object_files::ObjectFiles;
use super::super::output::{Output, Tone, paint};
use super::super::outside::{Outside, awaited};
use super::super::virtual_time::started;
use crate::clock::{Clock, SystemClock};
use crate::sandbox::Cancel;

/// Why a child was cancelled that nobody waits for any more.
const REASON: &str = "its parent gave it up";

/// What there is to run with.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) local: &'a Local,
    pub(super) application: &'a Application,
    pub(super) objects: &'a ObjectFiles,
}

/// Runs the workflows of one application.
pub(super) struct Runner<'a> {
    local: &'a Local,
    application: &'a Application,
    objects: &'a ObjectFiles,
    output: Output,
    outside: RefCell<Outside>,
    stirs: Rc<Cell<usize>>,
    /// What executions wait for that only somebody outside can send.
    awaited: RefCell<BTreeMap<ExecutionId, Vec<String>>>,
    /// Children to run. Each is a frame of an execution, and these are bounded.
    begins: mpsc::UnboundedSender<Begin>,
}

/// What moves: an execution that has something to do or an attempt or a timer to
/// wait for, or a message on its way. When nothing does, nothing ever will.
struct Stir(Rc<Cell<usize>>);

impl Stir {
    fn new(stirs: &Rc<Cell<usize>>) -> Self {
        stirs.set(stirs.get() + 1);
        Self(Rc::clone(stirs))
    }
}

impl Drop for Stir {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An execution to run.
struct Begin {
    id: ExecutionId,
    program: Arc<Program>,
    /// Its first event.
    started: EventKind,
    /// Comes when the execution is to end.
    given_up: oneshot::Receiver<Stir>,
    /// Who waits for its end.
    ended: Option<oneshot::Sender<(Status, Stir)>>,
    stir: Stir,
}

/// What a running execution waits for.
enum Input {
    Ended(Box<Ended>),
    Due(TimerId),
    GivenUp,
}

/// How an attempt ended.
struct Ended {
    task: TaskId,
    attempt: u32,
    result: Result<Json, ActivityFailure>,
    receipt: Receipt,
}

/// How to stop what a task runs.
enum Stop {
    Activity(Cancel),
    Child(oneshot::Sender<Stir>),
}

impl<'a> Runner<'a> {
    /// Runs an execution and all that it starts to their ends, printing each event
    /// with what follows from it.
    pub(super) async fn run(
        here: Here<'a>,
        outside: Outside,
        output: Output,
        program: Arc<Program>,
        input: Json,
    ) -> Result<Execution, Error> {
        let (begins, children) = mpsc::unbounded_channel();
        let Here {
            local,
            application,
            objects,
        } = here;
        let runner = Self {
            local,
            application,
            objects,
            output,
            outside: RefCell::new(outside),
            stirs: Rc::default(),
            awaited: RefCell::default(),
            begins,
        };
        runner.finish(program, input, children).await
    }

    async fn finish(
        &self,
        program: Arc<Program>,
        input: Json,
        mut children: mpsc::UnboundedReceiver<Begin>,
    ) -> Result<Execution, Error> {
        let mut running = FuturesUnordered::new();
        let (_kept, given_up) = oneshot::channel();
        let id = ExecutionId(uuid::Uuid::now_v7());
        let started = started(&program, id, SystemClock.now(), input, None);
        let started = started
            .map_err(|no_key| Error::usage(format!("the input of `{}`: {no_key}", program.name)))?;
        running.push(self.execute(Begin {
            id,
            program,
            started,
            given_up,
            ended: None,
            stir: Stir::new(&self.stirs),
        }));
        let mut asked_for = None;
        let trouble = loop {
            let ended = tokio::select! {
                // What was begun first, or the last one to end would leave it behind.
                biased;
                Some(child) = children.recv() => {
                    running.push(self.execute(child));
                    continue;
                }
                ended = running.next() => ended,
            };
            match ended {
                Some(Ok(execution)) if execution.parent.is_none() => asked_for = Some(execution),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Some(error),
                None => break None,
            }
            if !running.is_empty() && self.stirs.get() == 0 {
                break Some(self.stuck());
            }
        };
        drop(running);
        for name in self.outside.borrow().left() {
            self.output
                .note(format!("signal `{name}` was not waited for"));
        }
        match (asked_for, trouble) {
            // What it has left behind does not make it fail.
            (Some(execution), trouble) => {
                if let Some(error) = trouble {
                    self.output.note(error);
                }
                Ok(execution)
            }
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("it was run, and all have ended"),
        }
    }

    /// Runs one execution to its end.
    async fn execute(&self, begin: Begin) -> Result<Execution, Error> {
        let Begin {
            id,
            program,
            started,
            mut given_up,
            mut ended,
            stir,
        } = begin;
        let mut stir = Some(stir);
        let mut execution = Execution::new(id, local::tenant());
        let mut attempts = FuturesUnordered::new();
        let mut stops: HashMap<(TaskId, u32), Stop> = HashMap::new();
        let mut next = started;
        loop {
            let (moved, commands) = self.step(&program, execution, next)?;
            execution = moved;
            for command in commands {
                match command {
                    Command::ScheduleActivity(task) => {
                        let key = (task.task, task.attempt);
                        let (stop, attempt) = self.attempt(&program, &execution, task);
                        stops.insert(key, stop);
                        attempts.push(attempt);
                    }
                    Command::CancelActivity { task, attempt } => {
                        if let Some(stop) = stops.remove(&(task, attempt)) {
                            self.stop(stop);
                        }
                    }
                }
            }
            if execution.is_closed() {
                if let Some(ended) = ended.take() {
                    // Who waited may have given it up.
                    drop(ended.send((execution.status.clone(), Stir::new(&self.stirs))));
                }
                self.awaited.borrow_mut().remove(&id);
                return Ok(execution);
            }
            let arrival = self
                .outside
                .borrow_mut()
                .arrival(&program, &execution, false)?;
            if let Some(arrival) = arrival {
                next = arrival;
                continue;
            }
            self.tell(&program, &execution);
            let due = execution.timers.iter().min_by_key(|(_, timer)| timer.at);
            let due = due.map(|(id, timer)| (*id, timer.at));
            let computes = stops.values().any(|stop| matches!(stop, Stop::Activity(_)));
            if due.is_none() && !computes {
                stir = None;
                if self.stirs.get() == 0 {
                    return Err(self.stuck());
                }
            }
            let input = next_input(&mut attempts, due, &mut given_up).await;
            stir.get_or_insert_with(|| Stir::new(&self.stirs));
            if let Input::Ended(ended) = &input {
                stops.remove(&(ended.task, ended.attempt));
            }
            next = input.into_event();
        }
    }

    /// Begins an attempt: what stops it, and what waits for its end.
    fn attempt<'r>(
        &'r self,
        program: &'r Program,
        execution: &Execution,
        task: ActivityTask,
    ) -> (Stop, impl Future<Output = Ended> + use<'r, 'a>) {
        let caller = Caller {
            application: &self.application.name,
            workflow: &program.name,
            execution: execution.id,
        };
        let cancel = Cancel::default();
        let (stop_child, given_up) = oneshot::channel();
        let child = task.resource.child.clone();
        let stop = match &child {
            Some(_) => Stop::Child(stop_child),
            None => Stop::Activity(cancel.clone()),
        };
        let begun = child.map(|child| self.begin(execution, &task, &child, given_up));
        let attempt = async move {
            let (result, receipt) = if let Some(begun) = begun {
                (begun.outcome().await, Receipt::default())
            } else {
                let outcome = self.local.run(&caller, &task, cancel).await;
                (outcome.result, outcome.receipt)
            };
            Ended {
                task: task.task,
                attempt: task.attempt,
                result,
                receipt,
            }
        };
        (stop, attempt)
    }

    /// Has a child run.
    fn begin(
        &self,
        parent: &Execution,
        task: &ActivityTask,
        child: &Child,
        given_up: oneshot::Receiver<Stir>,
    ) -> Begun {
        if let Some(answer) = self.objects.answer(task) {
            return Begun::Known(answer, Stir::new(&self.stirs));
        }
        let name = &*task.resource.name;
        let is_here = child
            .application
            .as_deref()
            .is_none_or(|application| *application == *self.application.name);
        let program = self.application.workflows.get(name).filter(|_| is_here);
        let Some(program) = program else {
            let message = format!("there is no `{}` in this file", task.resource);
            return self.refuse(errors::WORKFLOW_NOT_FOUND, message);
        };
        if let Some(schema) = &program.input
            && let Err(unfit) = schema.check(&task.input.to_value())
        {
            return self.refuse(
                errors::INVALID_INPUT,
                format!("the input of the workflow: {unfit}"),
            );
        }
        let id = ExecutionId::of_child(parent.id, task.task, task.attempt);
        let above = Parent {
            execution: parent.id,
            task: task.task,
            attempt: task.attempt,
            depth: parent.parent.map_or(0, |parent| parent.depth) + 1,
            on_close: child.on_close,
        };
        let input = task.input.clone();
        let started = match started(program, id, SystemClock.now(), input, Some(above)) {
            Ok(started) => started,
            Err(no_key) => {
                let message = format!("the input of the workflow: {no_key}");
                return self.refuse(errors::INVALID_INPUT, message);
            }
        };
        let (ended, end) = oneshot::channel();
        let begin = Begin {
            id,
            program: Arc::clone(program),
            started,
            given_up: match child.on_close {
                ParentClose::Cancel => given_up,
                ParentClose::Abandon => oneshot::channel().1,
            },
            ended: child.waits.then_some(ended),
            stir: Stir::new(&self.stirs),
        };
        // Who runs it all is there as long as anything runs.
        drop(self.begins.send(begin));
        if child.waits {
            return Begun::Awaited(id, end);
        }
        let output = json!({ "execution_id": id.to_string() });
        Begun::Known(Ok(output.into()), Stir::new(&self.stirs))
    }

    fn refuse(&self, error: &str, message: String) -> Begun {
        let failure = ActivityFailure {
            error: error.to_owned(),
            message,
            retryable: Some(false),
            details: None,
        };
        Begun::Known(Err(failure), Stir::new(&self.stirs))
    }

    fn stop(&self, stop: Stop) {
        match stop {
            Stop::Activity(cancel) => cancel.cancel(),
            // It may have ended.
            Stop::Child(give_up) => drop(give_up.send(Stir::new(&self.stirs))),
        }
    }

    fn step(
        &self,
        program: &Program,
        execution: Execution,
        kind: EventKind,
    ) -> Result<(Execution, Vec<Command>), Error> {
        let event = Event {
            seq: execution.version + 1,
            at: SystemClock.now(),
            kind,
        };
        let start = if event.seq == 1 {
            event.at
        } else {
            execution.started_at
        };
        let mut records = Vec::new();
        let mut observe = |record| records.push(record);
        let transition =
            apply_traced(program, execution, &event, &mut observe).map_err(|error| {
                Error::failed(format!("the machine refused its own event: {error}"))
            })?;
        let text = events::step_text(&event, &records, start);
        self.note(program, &transition.execution, &text);
        Ok((transition.execution, transition.commands))
    }

    /// Says what an execution has begun to wait for that nobody can send here.
    fn tell(&self, program: &Program, execution: &Execution) {
        let now = awaited(program, execution);
        let now: Vec<_> = now.iter().map(ToString::to_string).collect();
        let mut told = self.awaited.borrow_mut();
        let told = told.entry(execution.id).or_default();
        if *told != now {
            for what in &now {
                let text = format!("{what}; nobody else can send it here");
                self.note(program, execution, &text);
            }
            *told = now;
        }
    }

    /// Why nothing goes on.
    fn stuck(&self) -> Error {
        let awaited = self.awaited.borrow();
        let awaited: Vec<&str> = awaited.values().flatten().map(String::as_str).collect();
        if awaited.is_empty() {
            return Error::failed("the execution waits for nothing");
        }
        Error::failed("the execution waits for what nobody can send here").hint(awaited.join("; "))
    }

    /// Says something of an execution; of a child by the name of its workflow.
    fn note(&self, program: &Program, execution: &Execution, text: &str) {
        if execution.parent.is_none() {
            return self.output.note(text);
        }
        let head = paint(Tone::Faint, format!("[{}]", program.name));
        for line in text.lines() {
            self.output.note(format!("{head} {line}"));
        }
    }
}

/// A child that was asked for.
enum Begun {
    /// What it is to who asked, at once.
    Known(Result<Json, ActivityFailure>, Stir),
    Awaited(ExecutionId, oneshot::Receiver<(Status, Stir)>),
}

impl Begun {
    /// What it is to the attempt that asked. Who asked stirs itself as soon as it has it.
    async fn outcome(self) -> Result<Json, ActivityFailure> {
        match self {
            Self::Known(result, stir) => {
                drop(stir);
                result
            }
            Self::Awaited(id, end) => {
                if let Ok((status, _)) = end.await
                    && let Some(outcome) = outcome_of_child(id, &status)
                {
                    return outcome;
                }
                // It could not be run, which ends the command.
                std::future::pending().await
            }
        }
    }
}

/// What happens next to an execution.
async fn next_input(
    attempts: &mut FuturesUnordered<impl Future<Output = Ended>>,
    due: Option<(TimerId, Timestamp)>,
    given_up: &mut oneshot::Receiver<Stir>,
) -> Input {
    let timer = async {
        match due {
            Some((id, at)) => {
                SystemClock.sleep_until(at).await;
                Input::Due(id)
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        Some(ended) = attempts.next(), if !attempts.is_empty() => Input::Ended(Box::new(ended)),
        due = timer => due,
        // If who could give it up is gone, nobody will.
        Ok(_) = &mut *given_up, if !given_up.is_terminated() => Input::GivenUp,
    }
}

impl Input {
    fn into_event(self) -> EventKind {
        let ended = match self {
            Self::Due(timer) => return EventKind::TimerFired { timer },
            Self::GivenUp => {
                return EventKind::CancelRequested {
                    reason: REASON.to_owned(),
                };
            }
            Self::Ended(ended) => *ended,
        };
        let (task, attempt) = (ended.task, ended.attempt);
        match ended.result {
            Ok(output) => EventKind::ActivityCompleted {
                task,
                attempt,
                output,
                receipt: ended.receipt,
            },
            Err(failure) => EventKind::ActivityFailed {
                task,
                attempt,
                failure,
                receipt: Some(ended.receipt).filter(|receipt| *receipt != Receipt::default()),
            },
        }
    }
}
