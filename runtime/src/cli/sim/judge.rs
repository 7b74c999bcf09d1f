//! Whether a run was as it must be.

use std::collections::{BTreeMap, BTreeSet};

use cascade_cdl::program::{Program, StateKind};
use cascade_cdl::{Event, Execution, Failure, Json, Record, Status, apply, apply_traced, errors};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::error::Error;
use super::super::local;
use super::invariants::{Invariant, Verdict};
use super::world::{End, MAX_EVENTS, Run, Scene, execution_id};
use crate::store::decode_events;

/// How a run ended, for the table of all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Completed,
    Failed,
    TimedOut,
    Cancelled,
    /// It waits for what nobody sends.
    Waiting,
    /// It does not end.
    Endless,
}

impl Ending {
    /// Its name, also as `$.status`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Waiting => "waiting",
            Self::Endless => "endless",
        }
    }
}

/// Why a run is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    /// Which check: what shrinking keeps to.
    pub(super) check: Check,
    /// What is wrong, for people.
    pub(super) message: String,
}

/// A check of every run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Check {
    /// It ends.
    Ends,
    /// What is replayed is what was, and nothing is left over.
    Engine,
    /// An invariant of the user's, by its name.
    Invariant(String),
}

/// What is to be said of a run.
pub(super) struct Judgement {
    pub(super) ending: Ending,
    /// Name of the error that it failed with.
    pub(super) error: Option<String>,
    pub(super) states: BTreeSet<String>,
    /// For each invariant.
    pub(super) verdicts: Vec<Verdict>,
    pub(super) broken: Option<Broken>,
}

/// Checks a run.
pub(super) fn judge(
    scene: &Scene,
    invariants: &[Invariant],
    seed: u64,
    run: &Run,
) -> Result<Judgement, Error> {
    let program = &scene.program;
    let mut judgement = Judgement {
        ending: ending(run),
        error: match &run.execution.status {
            Status::Failed { failure } => Some(failure.error.clone()),
            _ => None,
        },
        states: BTreeSet::new(),
        verdicts: Vec::new(),
        broken: None,
    };
    let breaks = |check, message| Some(Broken { check, message });
    if let Some(message) = run.broken.clone() {
        judgement.broken = breaks(Check::Engine, message);
        return Ok(judgement);
    }
    if run.end == End::Endless {
        // What is not on the disk yet says nothing new.
        let replayed = Replayed::of(scene, &run.disk, run.durable);
        judgement.states = replayed.map_or_else(|_| BTreeSet::new(), |it| it.states());
        let message = format!("the execution does not end: it has had {MAX_EVENTS} events");
        judgement.broken = breaks(Check::Ends, message);
        return Ok(judgement);
    }
    let replayed = Replayed::of(scene, &run.disk, run.execution.version);
    let replayed = match replayed.and_then(|replayed| replayed.like(run)) {
        Ok(replayed) => replayed,
        Err(message) => {
            judgement.broken = breaks(Check::Engine, message);
            return Ok(judgement);
        }
    };
    judgement.states = replayed.states();
    if let Status::Failed { failure } = &run.execution.status
        && errors::is_fatal(&failure.error)
    {
        let message = format!("the execution does not end by itself: {}", failure.message);
        judgement.broken = breaks(Check::Ends, message);
        return Ok(judgement);
    }
    let root = root(program, run, judgement.ending, &replayed);
    for invariant in invariants {
        let verdict = invariant.judge(&root, seed)?;
        judgement.verdicts.push(verdict);
        if verdict == Verdict::Broken && judgement.broken.is_none() {
            let check = Check::Invariant(invariant.name.clone());
            let message = format!("the invariant `{}` does not hold", invariant.name);
            judgement.broken = breaks(check, message);
        }
    }
    Ok(judgement)
}

fn ending(run: &Run) -> Ending {
    match (&run.end, &run.execution.status) {
        (End::Endless, _) => Ending::Endless,
        (_, Status::Completed { .. }) => Ending::Completed,
        (_, Status::Failed { .. }) => Ending::Failed,
        (_, Status::Cancelled { .. }) => Ending::Cancelled,
        (_, Status::TimedOut { .. }) => Ending::TimedOut,
        (_, Status::Running | Status::Compensating { .. }) => Ending::Waiting,
    }
}

/// What the history says when it is read back.
struct Replayed {
    events: Vec<Event>,
    execution: Execution,
    entered: BTreeMap<String, u64>,
    /// The context at the end, or what it last was.
    context: Value,
}

impl Replayed {
    /// Reads a history of so many events, and applies it again.
    fn of(scene: &Scene, disk: &str, version: u64) -> Result<Self, String> {
        let program = &scene.program;
        let events = decode_events(disk.as_bytes(), Some(1), version);
        let events = events.map_err(|error| format!("the history does not read: {error}"))?;
        let mut entered = BTreeMap::<String, u64>::new();
        let mut observe = |record| {
            if let Record::StateEntered { place } = record {
                *entered.entry(place.state.to_string()).or_default() += 1;
            }
        };
        let compensates = program
            .states
            .iter()
            .any(|state| matches!(&state.kind, StateKind::Task(task) if task.compensate.is_some()));
        let mut execution = Execution::new(execution_id(), local::tenant());
        let mut context = Value::Null;
        for (index, event) in events.iter().enumerate() {
            let is_last = index + 1 == events.len();
            let before = is_last.then(|| execution.clone());
            if compensates && !execution.context.is_null() {
                // It is dropped when compensation begins.
                context.clone_from(&execution.context);
            }
            let moved = apply_traced(program, execution, event, &mut observe);
            let moved = moved.map_err(|error| format!("the history does not replay: {error}"))?;
            execution = moved.execution;
            if let (Status::Completed { .. }, Some(before)) = (&execution.status, before) {
                context = completed_context(&scene.plain, before, event);
            }
        }
        if !execution.context.is_null() {
            context.clone_from(&execution.context);
        }
        Ok(Self {
            events,
            execution,
            entered,
            context,
        })
    }

    /// It must be where the run ended.
    fn like(self, run: &Run) -> Result<Self, String> {
        if self.execution == run.execution {
            Ok(self)
        } else {
            Err("the history replays to another execution than it was".to_owned())
        }
    }

    fn states(&self) -> BTreeSet<String> {
        self.entered.keys().cloned().collect()
    }
}

/// The context that an execution completed with. The machine drops it and keeps the
/// output; without outputs of its own, the workflow's output is the context.
fn completed_context(plain: &Program, before: Execution, last: &Event) -> Value {
    match apply(plain, before, last).map(|moved| moved.execution.status) {
        Ok(Status::Completed { output }) if !plain.is_asl() => output.to_value(),
        _ => Value::Null,
    }
}

/// What `$` is in an invariant; docs/simulation.md tells.
fn root(program: &Program, run: &Run, ending: Ending, replayed: &Replayed) -> Value {
    let names = program.resources().chain(program.children());
    let names: BTreeSet<_> = names.map(|resource| resource.name.clone()).collect();
    let counts = |count: &dyn Fn(&str) -> u64| -> Map<String, Value> {
        let entries = names
            .iter()
            .map(|name| (name.to_string(), count(name).into()));
        entries.collect()
    };
    let calls = counts(&|name| run.calls.get(name).copied().unwrap_or(0));
    let effects = counts(&|name| run.effects.get(name).map_or(0, |keys| keys.len() as u64));
    let states = program.states.iter().map(|state| state.name.to_string());
    let entered: Map<_, _> = states
        .map(|name| {
            let count = replayed.entered.get(&name).copied().unwrap_or(0);
            (name, count.into())
        })
        .collect();
    let values = run.values.iter().map(|(key, value)| {
        let value = serde_json::from_slice(value)
            .unwrap_or_else(|_| String::from_utf8_lossy(value).into_owned().into());
        (key.clone(), value)
    });
    let (output, error) = match &run.execution.status {
        Status::Completed { output } => (output.to_value(), Value::Null),
        Status::Failed { failure } => (Value::Null, failure_value(failure)),
        _ => (Value::Null, Value::Null),
    };
    json!({
        "status": ending.name(),
        "input": run.input.to_value(),
        "output": output,
        "error": error,
        "context": replayed.context,
        "entered": entered,
        "calls": calls,
        "effects": effects,
        "kv": values.collect::<Map<_, _>>(),
        "history": history(&replayed.events),
    })
}

/// As a `catch` gives it.
fn failure_value(failure: &Failure) -> Value {
    json!({
        "error": failure.error,
        "message": failure.message,
        "state": failure.state,
        "details": failure.details.as_ref().map(Json::to_value),
    })
}

/// As `cascade process history --output json` has it.
fn history(events: &[Event]) -> Value {
    serde_json::to_value(events).unwrap_or(Value::Null)
}
