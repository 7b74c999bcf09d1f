//! Histories as people read them: what happened, and what followed from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::plan::Plan;
use cascade_cdl::program::Program;
use cascade_cdl::{
    Callback, Event, EventKind, Execution, ExecutionId, Failure, Json, Record, Status, TenantId,
    Timestamp, apply_traced, migrate,
};

use super::error::Error;
use super::output::{Tone, brief, paint, plain};

/// How much of a JSON value a line shows.
const SHOWN_JSON: usize = 100;

/// A history that is replayed as it arrives.
pub(crate) struct Live {
    program: Arc<Program>,
    /// Other versions of it, to which the history may move.
    versions: BTreeMap<u32, Arc<Program>>,
    execution: Option<Execution>,
}

impl Live {
    /// Before the first event of an execution, which was started with `program`.
    pub(crate) fn new(program: Arc<Program>, id: ExecutionId, tenant: TenantId) -> Self {
        Self {
            program,
            versions: BTreeMap::new(),
            execution: Some(Execution::new(id, tenant)),
        }
    }

    /// The version that the next event moves to, if it is not known yet.
    pub(crate) fn lacks(&self, event: &Event) -> Option<u32> {
        match &event.kind {
            EventKind::ExecutionMigrated { to, .. } if !self.versions.contains_key(to) => Some(*to),
            _ => None,
        }
    }

    /// Takes in a version of the program.
    pub(crate) fn learn(&mut self, version: u32, program: Arc<Program>) {
        self.versions.insert(version, program);
    }

    /// Applies the next event and says what followed from it.
    pub(crate) fn feed(&mut self, event: &Event) -> Result<Vec<Record>, Error> {
        let execution = self.execution.take().ok_or_else(|| {
            Error::failed("the history does not replay: an earlier event was refused")
        })?;
        let mut records = Vec::new();
        let mut observe = |record| records.push(record);
        let moved = match &event.kind {
            EventKind::ExecutionMigrated { to, states, .. } => {
                self.versions.get(to).cloned().map(|new| {
                    let plan = Plan::new(&self.program, &new, states);
                    self.program = new;
                    plan
                })
            }
            _ => None,
        };
        let transition = match moved {
            Some(plan) => migrate(&plan, execution, event, &mut observe),
            None => apply_traced(&self.program, execution, event, &mut observe),
        };
        let transition = transition
            .map_err(|error| Error::failed(format!("the history does not replay: {error}")))?;
        self.execution = Some(transition.execution);
        Ok(records)
    }

    /// The execution after the last event; `None` if one was refused.
    pub(crate) fn execution(&self) -> Option<&Execution> {
        self.execution.as_ref()
    }
}

/// An event and its consequences as lines.
pub(crate) fn step_text(event: &Event, records: &[Record], start: Timestamp) -> String {
    let mut lines = vec![event_line(event, start)];
    lines.extend(records.iter().map(record_line));
    lines.join("\n")
}

/// One event on one line.
fn event_line(event: &Event, start: Timestamp) -> String {
    let since = event.at.since(start);
    let at = format!("{:>+6}.{:03}s", since / 1000, since % 1000);
    let (tone, name, detail) = describe(&event.kind);
    let head = paint(Tone::Faint, format!("{:>4} {at}", event.seq));
    format!("{head}  {}  {}", paint(tone, name), plain(&detail))
}

fn describe(kind: &EventKind) -> (Tone, &'static str, String) {
    match kind {
        EventKind::ExecutionStarted {
            input,
            parent,
            schedule,
            shard_key,
            priority,
            labels,
            ..
        } => {
            let mut whose = parent.map_or_else(String::new, |parent| {
                format!("child of {} ", parent.execution)
            });
            if let Some(schedule) = schedule {
                whose = format!("by schedule {} of {} ", schedule.name, schedule.at);
            }
            let placed = shard_key.as_ref();
            let placed = placed.map_or_else(String::new, |key| format!("placed by `{key}` "));
            let urgent = priority.map_or_else(String::new, |it| format!("priority {it} "));
            let labels = labels
                .iter()
                .map(|(name, value)| format!("{name}={value} "));
            let labelled: String = labels.collect();
            let detail = format!("{whose}{placed}{urgent}{labelled}{}", json(input));
            (Tone::Strong, "ExecutionStarted", detail)
        }
        EventKind::ActivityCompleted {
            task,
            attempt,
            output,
            receipt,
        } => {
            let cost = cost(receipt.fuel, receipt.duration_us);
            let which = attempt_name(task.0, *attempt);
            let detail = format!("{which} {cost} → {}", json(output));
            (Tone::Good, "ActivityCompleted", detail)
        }
        EventKind::ActivityFailed {
            task,
            attempt,
            failure,
            receipt,
        } => {
            let cost = receipt
                .as_ref()
                .map(|receipt| cost(receipt.fuel, receipt.duration_us))
                .unwrap_or_default();
            let which = attempt_name(task.0, *attempt);
            let detail = format!("{which} {cost} {}: {}", failure.error, failure.message);
            (Tone::Bad, "ActivityFailed", detail)
        }
        EventKind::TimerFired { timer } => (Tone::Busy, "TimerFired", format!("timer {}", timer.0)),
        EventKind::SignalReceived { name, payload, .. } => {
            let detail = format!("{name} → {}", json(payload));
            (Tone::Busy, "SignalReceived", detail)
        }
        EventKind::HumanTaskCompleted { task, output, by } => {
            let detail = format!("task {} by {by} → {}", task.0, json(output));
            (Tone::Good, "HumanTaskCompleted", detail)
        }
        EventKind::CallbackReceived {
            task,
            attempt,
            callback,
        } => {
            let which = attempt_name(task.0, *attempt);
            let (tone, told) = match callback {
                Callback::Succeeded { output } => (Tone::Good, format!("→ {}", json(output))),
                Callback::Failed { error, cause } => (Tone::Bad, format!("{error}: {cause}")),
                Callback::Heartbeat {} => (Tone::Faint, "goes on".to_owned()),
            };
            (tone, "CallbackReceived", format!("{which} {told}"))
        }
        EventKind::CancelRequested { reason } => (Tone::Busy, "CancelRequested", reason.clone()),
        EventKind::RetryRequested {} => (Tone::Busy, "RetryRequested", String::new()),
        EventKind::ExecutionPaused { reason } => (Tone::Busy, "ExecutionPaused", reason.clone()),
        EventKind::ExecutionResumed {} => (Tone::Busy, "ExecutionResumed", String::new()),
        EventKind::ExecutionMigrated { from, to, .. } => {
            let detail = format!("version {from} → {to}");
            (Tone::Busy, "ExecutionMigrated", detail)
        }
    }
}

/// A consequence on one line.
#[expect(
    clippy::too_many_lines,
    reason = "one arm for each kind of record, and the compiler sees that none is missing"
)]
fn record_line(record: &Record) -> String {
    let (tone, text) = match record {
        Record::StateEntered { place } => {
            (Tone::Plain, format!("→ {}", at(&place.path, &place.state)))
        }
        Record::StateExited { place, output } => (
            Tone::Plain,
            format!("← {} {}", at(&place.path, &place.state), json(output)),
        ),
        Record::ActivityScheduled {
            task,
            attempt,
            input,
            ..
        } => (
            Tone::Faint,
            format!(
                "  scheduled {} {}",
                attempt_name(task.0, *attempt),
                json(input)
            ),
        ),
        Record::ActivityCancelled { task, attempt } => (
            Tone::Busy,
            format!("  no longer awaited: {}", attempt_name(task.0, *attempt)),
        ),
        Record::RetryScheduled {
            attempt, at, error, ..
        } => (
            Tone::Busy,
            format!("  attempt {attempt} follows at {at}, after {error}"),
        ),
        Record::Caught { place, error, next } => (
            Tone::Busy,
            format!("  {} caught {error}, next is {next}", place.state),
        ),
        Record::SignalReceived { name, buffered } => {
            let waits = if *buffered {
                ", nobody waits for it yet"
            } else {
                ""
            };
            (Tone::Faint, format!("  signal {name} taken{waits}"))
        }
        Record::PersonAsked {
            place, assignee, ..
        } => (Tone::Busy, format!("  {} asks {assignee}", place.state)),
        Record::PersonAnswered { place, by, .. } => {
            (Tone::Good, format!("  {by} answers {}", place.state))
        }
        Record::CallbackAwaited { task, attempt, .. } => (
            Tone::Busy,
            format!(
                "  its outcome is told from outside: {}",
                attempt_name(task.0, *attempt)
            ),
        ),
        Record::CallbackTaken { place, .. } => (
            Tone::Good,
            format!("  {} was told its outcome", place.state),
        ),
        Record::TimerSet { timer, at, .. } => {
            (Tone::Faint, format!("  timer {} set to {at}", timer.0))
        }
        Record::BranchEnded { branch, open, .. } => (
            Tone::Faint,
            format!("  branch {branch} ended, {open} still open"),
        ),
        Record::BranchFailed {
            branch,
            error,
            open,
            ..
        } => (
            Tone::Bad,
            format!("  branch {branch} failed: {error}, {open} still open"),
        ),
        Record::EventIgnored { reason } => (Tone::Faint, format!("  changed nothing: {reason}")),
        Record::CompensationStarted { steps, cause } => (
            Tone::Bad,
            format!("{cause}: compensating {steps} completed steps"),
        ),
        Record::StepCompensated { place, output } => (
            Tone::Good,
            format!("  {} compensated {}", place.state, json(output)),
        ),
        Record::CompensationFailed {
            place,
            error,
            message,
        } => (
            Tone::Bad,
            format!("  {} was not compensated: {error}: {message}", place.state),
        ),
        Record::ExecutionMigrated { to, .. } => (Tone::Busy, format!("goes on under version {to}")),
        Record::ExecutionRetried {} => (Tone::Busy, "goes on from where it failed".to_owned()),
        Record::ExecutionPaused { .. } => (Tone::Busy, "paused: nothing new begins".to_owned()),
        Record::ExecutionResumed {} => (Tone::Busy, "goes on".to_owned()),
        Record::ExecutionCompleted { output } => {
            (Tone::Good, format!("completed {}", json(output)))
        }
        Record::ExecutionFailed { failure } => (Tone::Bad, failure_text(failure)),
        Record::ExecutionCancelled { reason } => (Tone::Bad, format!("cancelled: {reason}")),
        Record::ExecutionTimedOut { timeout_ms } => {
            (Tone::Bad, format!("timed out after {timeout_ms} ms"))
        }
    };
    let indent = " ".repeat(17);
    format!("{indent}{}", paint(tone, plain(&text)))
}

/// How an execution stands, in a few words.
pub(crate) fn status_text(status: &Status) -> (Tone, String) {
    match status {
        Status::Running => (Tone::Busy, "running".into()),
        Status::Compensating { .. } => (Tone::Busy, "compensating".into()),
        Status::Completed { output } => (Tone::Good, format!("completed {}", json(output))),
        Status::Failed { failure } => (Tone::Bad, failure_text(failure)),
        Status::Cancelled { reason } => (Tone::Bad, format!("cancelled: {reason}")),
        Status::TimedOut { timeout_ms } => (Tone::Bad, format!("timed out after {timeout_ms} ms")),
    }
}

fn failure_text(failure: &Failure) -> String {
    let place = match &failure.state {
        Some(state) => format!(" in {state}"),
        None => String::new(),
    };
    format!("failed{place} with {}: {}", failure.error, failure.message)
}

fn at(path: &str, state: &str) -> String {
    if path.is_empty() {
        state.to_owned()
    } else {
        format!("{path}/{state}")
    }
}

fn attempt_name(task: u64, attempt: u32) -> String {
    format!("task {task}, attempt {attempt}")
}

fn cost(fuel: u64, duration_us: u64) -> String {
    let millis = duration_us / 1000;
    let micros = duration_us % 1000;
    format!("({fuel} fuel, {millis}.{micros:03} ms)")
}

fn json(json: &Json) -> String {
    brief(json.as_str(), SHOWN_JSON)
}
