//! Tests of the machine as transcripts: what happens, and indented beneath it
//! what must follow.
//!
//! ```text
//! start {"n":1}
//!   enter Charge
//!   schedule Charge#1 {"n":1}
//! fail Charge#1 ServiceUnavailable
//!   retry Charge#2 at 1000 after ServiceUnavailable
//!   timer at 1000
//! at 1000
//!   schedule Charge#2 {"n":1}
//! ```
//!
//! Happenings: `start INPUT`, `complete STATE#ATTEMPT OUTPUT`, `fail
//! STATE#ATTEMPT ERROR [final|retryable]`, `at MS` (the clock moves on and
//! fires what is due), `signal NAME PAYLOAD`, `answer STATE OUTPUT`, `cancel REASON`, `retry`, `pause REASON`,
//! `resume`, `again` (the last event a second time). Times are in milliseconds from the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::plan::Plan;
use cascade_cdl::program::{ParentClose, Program, StateKind};
use cascade_cdl::spread::{ChunkTask, Work};
use cascade_cdl::{
    ActivityFailure, ActivityTask, Callback, Command, Event, EventKind, Execution, ExecutionId,
    Frame, Json, Parent, Place, Receipt, Record, SEMANTICS, Saga, Spreading, Status, Step, TaskId,
    TenantId, TimerKind, Timestamp, Transition, apply, apply_traced, migrate, replay_moved,
};

use crate::compile::compile;

/// When every test starts: 2026-01-31T09:30:00.000Z.
pub(crate) const START: Timestamp = Timestamp(1_769_851_800_000);

pub(crate) fn id() -> ExecutionId {
    "0190163d-8694-739b-aea5-966c26f8ad91"
        .parse()
        .expect("a UUID")
}

pub(crate) fn tenant() -> TenantId {
    "acme".parse().expect("a tenant")
}

/// Runs the happenings of `expected` and compares what follows.
#[track_caller]
pub(crate) fn check(workflow: &str, expected: &str) {
    check_program(compile(workflow), expected);
}

/// The same of a program.
#[track_caller]
pub(crate) fn check_program(program: Arc<Program>, expected: &str) {
    let expected = unindent(expected);
    let mut run = Run::new(program);
    let mut actual = String::new();
    for line in expected.lines().filter(|line| !line.starts_with(' ')) {
        let told = run.happen(line);
        actual.push_str(line);
        actual.push('\n');
        for line in told {
            actual.push_str("  ");
            actual.push_str(&line);
            actual.push('\n');
        }
    }
    assert!(
        actual == expected,
        "expected:\n{expected}\nactual:\n{actual}"
    );
    run.check_replay();
}

fn unindent(text: &str) -> String {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let margin = lines()
        .map(|line| line.len() - line.trim_start().len())
        .min();
    let lines: Vec<_> = lines().map(|line| &line[margin.unwrap_or(0)..]).collect();
    lines.join("\n") + "\n"
}

/// One execution, its history, and the shell's view of what is outstanding.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) program: Arc<Program>,
    /// All that it ran, the first being version 1.
    versions: Vec<Arc<Program>>,
    pub(crate) execution: Execution,
    pub(crate) history: Vec<Event>,
    pub(crate) outstanding: BTreeMap<(TaskId, u32), ActivityTask>,
    now: Timestamp,
    /// Which state each task belongs to.
    names: BTreeMap<TaskId, String>,
    /// What is to be compensated, the next last; none unless that has begun.
    undo: Vec<Json>,
}

impl Run {
    pub(crate) fn new(program: Arc<Program>) -> Self {
        Self {
            versions: vec![Arc::clone(&program)],
            program,
            execution: Execution::new(id(), tenant()),
            history: Vec::new(),
            outstanding: BTreeMap::new(),
            now: START,
            names: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// Lets one line of a transcript happen; gives what followed.
    fn happen(&mut self, line: &str) -> Vec<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (subject, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        let kind = match word {
            "start" => return self.start(json(rest)),
            "complete" => {
                let (task, attempt) = self.attempt(subject);
                completed(task, attempt, json(detail))
            }
            "fail" => {
                let (task, attempt) = self.attempt(subject);
                let (error, retryable) = match detail.split_once(' ') {
                    Some((error, "final")) => (error, Some(false)),
                    Some((error, "retryable")) => (error, Some(true)),
                    _ => (detail, None),
                };
                failed(task, attempt, error, retryable)
            }
            "at" => {
                self.now = START.plus(subject.parse().expect("milliseconds"));
                return self.fire_due_timers();
            }
            "signal" => signal(subject, json(detail), None),
            "answer" => EventKind::HumanTaskCompleted {
                task: self.attempt(&format!("{subject}#1")).0,
                output: json(detail),
                by: "ann".to_owned(),
            },
            "succeed" | "refuse" | "beat" => {
                let (task, attempt) = self.attempt(subject);
                let callback = match word {
                    "succeed" => Callback::Succeeded {
                        output: json(detail),
                    },
                    "refuse" => Callback::Failed {
                        error: detail.to_owned(),
                        cause: "told".to_owned(),
                    },
                    _ => Callback::Heartbeat {},
                };
                called_back(task, attempt, callback)
            }
            "cancel" => EventKind::CancelRequested {
                reason: rest.to_owned(),
            },
            "retry" => EventKind::RetryRequested {},
            "pause" => EventKind::ExecutionPaused {
                reason: rest.to_owned(),
            },
            "resume" => EventKind::ExecutionResumed {},
            "again" => self.history.last().expect("an event").kind.clone(),
            other => panic!("nothing is called `{other}`"),
        };
        self.apply(kind)
    }

    /// Applies the first event.
    pub(crate) fn start(&mut self, input: Json) -> Vec<String> {
        self.start_as(input, SEMANTICS)
    }

    /// The same with the meaning that an older machine gave to events.
    pub(crate) fn start_as(&mut self, input: Json, machine: u32) -> Vec<String> {
        self.apply(started(input, machine, None))
    }

    /// The same of a child that is so deep.
    pub(crate) fn start_as_child(&mut self, input: Json, depth: u32) -> Vec<String> {
        let parent = Parent {
            execution: id(),
            task: TaskId(2),
            attempt: 1,
            depth,
            on_close: ParentClose::Abandon,
        };
        self.apply(started(input, SEMANTICS, Some(parent)))
    }

    /// The one outstanding task.
    pub(crate) fn only_task(&self) -> ActivityTask {
        assert_eq!(self.outstanding.len(), 1, "not one outstanding task");
        self.outstanding.values().next().expect("one").clone()
    }

    pub(crate) fn pass_time(&mut self, millis: u64) {
        self.now = self.now.plus(millis);
    }

    /// A clock that is behind, as that of another server may be.
    pub(crate) fn turn_back(&mut self, millis: u64) {
        self.now = Timestamp(self.now.0.saturating_sub(millis));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn pass_until(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
    }

    pub(crate) fn fire_due_timers(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for timer in self.execution.due_timers(self.now) {
            told.extend(self.apply(EventKind::TimerFired { timer }));
        }
        told
    }

    /// Goes on under another version of the program, with `states` renamed.
    pub(crate) fn migrate(
        &mut self,
        program: Arc<Program>,
        states: BTreeMap<String, String>,
    ) -> Vec<String> {
        let from = u32::try_from(self.versions.len()).expect("a few");
        self.versions.push(program);
        self.apply(EventKind::ExecutionMigrated {
            from,
            to: from + 1,
            states,
        })
    }

    /// Applies one event to an execution as it was before.
    fn applied(
        &self,
        before: Execution,
        event: &Event,
        observe: Option<&mut dyn FnMut(Record)>,
    ) -> Transition {
        let applied = match (&event.kind, observe) {
            (EventKind::ExecutionMigrated { states, .. }, observe) => {
                let new = self.versions.last().expect("the first, at least");
                let plan = Plan::new(&self.program, new, states);
                match observe {
                    Some(observe) => migrate(&plan, before, event, observe),
                    None => migrate(&plan, before, event, &mut |_| ()),
                }
            }
            (_, Some(observe)) => apply_traced(&self.program, before, event, observe),
            (_, None) => apply(&self.program, before, event),
        };
        applied.expect("the event can follow")
    }

    /// Applies one event and checks what holds for each: the observer changes
    /// nothing, a snapshot in between changes nothing, what the execution says
    /// is pending is what was commanded, and what has ended stays quiet.
    pub(crate) fn apply(&mut self, kind: EventKind) -> Vec<String> {
        let event = Event {
            seq: self.execution.version + 1,
            at: self.now,
            kind,
        };
        let before = self.execution.clone();
        let snapshot = serde_json::to_string(&before).expect("an execution is JSON");
        let restored = serde_json::from_str(&snapshot).expect("a snapshot reads back");
        let quiet = self.applied(restored, &event, None);
        let mut records = Vec::new();
        let observed = self.applied(before, &event, Some(&mut |r| records.push(r)));
        assert_eq!(
            quiet, observed,
            "a snapshot or an observer makes a difference"
        );
        for record in &records {
            if let Record::ActivityScheduled { place, task, .. }
            | Record::PersonAsked { place, task, .. } = record
            {
                self.names.insert(*task, place.state.as_ref().to_owned());
            }
        }

        if observed.execution.paused.is_some() {
            check_nothing_begins(&records, &observed);
        }
        self.check_saga(&event.kind, &observed);
        check_counts(&observed.execution);
        let asked: Vec<_> = scheduled(&observed).collect();
        for command in &observed.commands {
            match command {
                Command::ScheduleActivity(task) => {
                    let key = (task.task, task.attempt);
                    let old = self.outstanding.insert(key, task.clone());
                    assert_eq!(old, None, "scheduled twice");
                }
                Command::CancelActivity { task, attempt } => {
                    // It is not asked for in the first place.
                    assert!(!asked.contains(&(*task, *attempt)), "asked for in vain");
                    let old = self.outstanding.remove(&(*task, *attempt));
                    assert!(old.is_some(), "cancelled what was not outstanding");
                }
            }
        }
        self.outstanding.retain(|key, _| match &event.kind {
            EventKind::ActivityCompleted { task, attempt, .. }
            | EventKind::ActivityFailed { task, attempt, .. } => *key != (*task, *attempt),
            _ => true,
        });
        self.execution = observed.execution;
        if let EventKind::ExecutionMigrated { .. } = &event.kind {
            self.program = Arc::clone(self.versions.last().expect("the first, at least"));
            // The same attempts; a new version may give them other times to end.
            for task in self.execution.pending_tasks(&self.program) {
                let key = (task.task, task.attempt);
                assert!(
                    self.outstanding.insert(key, task).is_some(),
                    "begun by a move"
                );
            }
        }
        self.history.push(event);
        let mut pending = self.execution.pending_tasks(&self.program);
        pending.sort_by_key(|task| (task.task, task.attempt));
        let outstanding: Vec<_> = self.outstanding.values().cloned().collect();
        assert_eq!(
            pending, outstanding,
            "pending tasks are not what was commanded"
        );
        if self.execution.is_closed() {
            assert_eq!((pending.len(), self.execution.wake_at()), (0, None));
            assert_eq!(self.execution.paused, None);
        } else {
            assert!(
                !pending.is_empty()
                    || self.execution.wake_at().is_some()
                    || self.waits_outside()
                    || self.execution.paused.is_some(),
                "it runs and waits for nothing"
            );
            assert_eq!(self.execution.is_idle(), pending.is_empty());
        }
        records.iter().map(|record| self.line(record)).collect()
    }

    /// Every Task that completes is remembered once if it has a compensation, and
    /// what is remembered is undone once, the last first.
    fn check_saga(&mut self, event: &EventKind, after: &Transition) {
        let before = &self.execution;
        let counted =
            |saga: &Saga| saga.completed.len() as u64 + u64::from(saga.compensated + saga.failures);
        let compensable = |frame: &&Frame| match (&frame.step, event) {
            (
                Step::Activity { task, attempt, .. },
                EventKind::ActivityCompleted {
                    task: t,
                    attempt: a,
                    ..
                },
            ) => {
                let kind = &self.program.state(frame.state).kind;
                let undo = matches!(kind, StateKind::Task(task) if task.compensate.is_some());
                task == t && attempt == a && undo && !before.is_compensating()
            }
            _ => false,
        };
        let completed = before.frames.values().filter(compensable).count() as u64;
        let expected = match after.execution.status {
            Status::Completed { .. } => 0,
            _ => counted(&before.saga) + completed,
        };
        assert_eq!(
            counted(&after.execution.saga),
            expected,
            "not each step once"
        );

        let saga = &after.execution.saga;
        let has_begun = before.is_compensating() || saga.compensated + saga.failures > 0;
        if after.execution.is_compensating() && !has_begun {
            self.undo = saga
                .completed
                .iter()
                .map(|step| step.input.clone())
                .collect();
        }
        for command in &after.commands {
            if let (true, Command::ScheduleActivity(task)) =
                (after.execution.is_compensating(), command)
                && task.attempt == 1
            {
                assert_eq!(Some(&task.input), self.undo.pop().as_ref(), "out of order");
            }
        }
        if after.execution.is_closed() {
            assert!(self.undo.is_empty(), "it ends before all is undone");
        }
    }

    /// Whether a signal or somebody is waited for.
    fn waits_outside(&self) -> bool {
        let mut frames = self.execution.frames.values();
        frames.any(|frame| {
            matches!(
                frame.step,
                Step::Listening { .. } | Step::Asking(_) | Step::Calling { .. }
            )
        })
    }

    /// A replay gives the same execution, and what is still to be done.
    pub(crate) fn check_replay(&self) {
        let version = |number: u32| self.versions.get(number as usize - 1).cloned();
        let (replayed, pending) =
            replay_moved(&self.versions[0], version, id(), tenant(), &self.history)
                .expect("the history replays");
        assert_eq!(replayed, self.execution, "replay differs from live");
        assert_eq!(pending.len(), self.outstanding.len());
    }

    /// `STATE#ATTEMPT` of a task scheduled at some time, the latest if several.
    fn attempt(&self, subject: &str) -> (TaskId, u32) {
        let (state, attempt) = subject.split_once('#').expect("STATE#ATTEMPT");
        let mut tasks = self.names.iter().rev();
        let task = tasks.find(|(_, name)| *name == state);
        let (task, _) = task.unwrap_or_else(|| panic!("{state} never scheduled a task"));
        (*task, attempt.parse().expect("an attempt"))
    }

    fn line(&self, record: &Record) -> String {
        let ms = |at: &Timestamp| at.since(START);
        let name = |task: &TaskId| self.names.get(task).map_or("?", String::as_str);
        match record {
            Record::StateEntered { place } => format!("enter {}", at(place)),
            Record::StateExited { place, output } => {
                format!("exit {} {}", at(place), output.as_str())
            }
            Record::ActivityScheduled {
                place,
                attempt,
                input,
                ..
            } => format!("schedule {}#{attempt} {}", at(place), input.as_str()),
            Record::ActivityCancelled { task, attempt } => {
                format!("cancel {}#{attempt}", name(task))
            }
            Record::RetryScheduled {
                place,
                attempt,
                at: time,
                error,
                ..
            } => format!(
                "retry {}#{attempt} at {} after {error}",
                at(place),
                ms(time)
            ),
            Record::Caught { place, error, next } => {
                format!("caught {} {error}, on to {next}", at(place))
            }
            Record::SignalReceived { name, buffered } => match buffered {
                true => format!("signal {name} waits"),
                false => format!("signal {name}"),
            },
            Record::PersonAsked {
                place, assignee, ..
            } => format!("ask {assignee} for {}", at(place)),
            Record::PersonAnswered { place, by, .. } => format!("{by} answered {}", at(place)),
            Record::CallbackAwaited { place, attempt, .. } => {
                format!("call {}#{attempt}", at(place))
            }
            Record::CallbackTaken { place, attempt, .. } => {
                format!("told {}#{attempt}", at(place))
            }
            Record::TimerSet { at, kind, .. } => match kind {
                TimerKind::Heartbeat(_) => format!("heartbeat at {}", ms(at)),
                TimerKind::WaitTimeout(_) => format!("wait timeout at {}", ms(at)),
                TimerKind::Escalation(_) => format!("escalation at {}", ms(at)),
                TimerKind::Resume(_) => format!("timer at {}", ms(at)),
                TimerKind::AttemptTimeout(_) => format!("timeout at {}", ms(at)),
                TimerKind::WorkflowTimeout => format!("workflow timeout at {}", ms(at)),
            },
            Record::BranchEnded {
                place,
                branch,
                open,
            } => format!("branch {}/{branch} done, {open} open", at(place)),
            Record::BranchFailed {
                place,
                branch,
                error,
                open,
            } => format!("branch {}/{branch} failed {error}, {open} open", at(place)),
            Record::CompensationStarted { steps, cause } => {
                format!("compensating {steps} after {cause}")
            }
            Record::StepCompensated { place, output } => {
                format!("compensated {} {}", at(place), output.as_str())
            }
            Record::CompensationFailed { place, error, .. } => {
                format!("not compensated {}: {error}", at(place))
            }
            Record::EventIgnored { reason } => format!("ignored: {reason}"),
            Record::ExecutionRetried {} => "goes on".to_owned(),
            Record::ExecutionPaused { reason } => format!("paused: {reason}"),
            Record::ExecutionResumed {} => "resumed".to_owned(),
            Record::ExecutionMigrated { from, to } => format!("moved from {from} to {to}"),
            Record::ExecutionCompleted { output } => format!("completed {}", output.as_str()),
            Record::ExecutionFailed { failure } => format!(
                "failed {} at {}: {}",
                failure.error,
                failure.state.as_deref().unwrap_or("the end"),
                failure.message
            ),
            Record::ExecutionCancelled { reason } => format!("cancelled: {reason}"),
            Record::ExecutionTimedOut { timeout_ms } => format!("timed out after {timeout_ms}"),
        }
    }
}

/// Applies events without looking at each execution, which may be large.
pub(crate) struct Long {
    pub(crate) program: Arc<Program>,
    pub(crate) execution: Execution,
}

impl Long {
    pub(crate) fn new(program: Arc<Program>) -> Self {
        let mut long = Self {
            program,
            execution: Execution::new(id(), tenant()),
        };
        long.apply(EventKind::ExecutionStarted {
            input: json("null"),
            shards: 10,
            machine: SEMANTICS,
            parent: None,
            schedule: None,
            shard_key: None,
            priority: None,
            labels: BTreeMap::new(),
        });
        long
    }

    pub(crate) fn apply(&mut self, kind: EventKind) {
        let event = Event {
            seq: self.execution.version + 1,
            at: Timestamp(self.execution.wake_at().unwrap_or(START).0),
            kind,
        };
        let execution = std::mem::replace(&mut self.execution, Execution::new(id(), tenant()));
        let applied = apply(&self.program, execution, &event).expect("the event can follow");
        self.execution = applied.execution;
    }

    /// Lets the one attempt end, or the pause before it.
    pub(crate) fn go_on(&mut self, outcome: impl Fn(TaskId, u32) -> EventKind) {
        let kind = match self.execution.pending_tasks(&self.program).pop() {
            Some(task) => outcome(task.task, task.attempt),
            None => EventKind::TimerFired {
                timer: *self.execution.timers.keys().next().expect("a timer"),
            },
        };
        self.apply(kind);
    }
}

/// What an execution counts is what it has.
fn check_counts(execution: &Execution) {
    let saga = execution.saga.completed.iter();
    let bytes = saga.map(|step| step.input.len() + step.path.len());
    assert_eq!(execution.saga.bytes, bytes.sum::<usize>() as u64, "to undo");
    let signals = execution.inbox.signals.iter();
    let bytes = signals.map(|signal| signal.payload.len());
    assert_eq!(execution.inbox.bytes, bytes.sum::<usize>() as u64, "inbox");
    for (id, frame) in &execution.frames {
        let inner: Vec<_> = (execution.frames.values())
            .filter(|inner| inner.parent == Some(*id))
            .collect();
        match &frame.step {
            Step::Joining { open, failed } => {
                let count = |is: fn(&Step) -> bool| {
                    let inner = inner.iter().filter(|inner| is(&inner.step));
                    u32::try_from(inner.count()).expect("a few")
                };
                let is_open =
                    |step: &Step| !matches!(step, Step::Done { .. } | Step::Failed { .. });
                assert_eq!(*open, count(is_open), "branches");
                assert_eq!(*failed, count(|step| matches!(step, Step::Failed { .. })));
            }
            Step::Mapping(mapping) => {
                assert_eq!(mapping.open as usize, inner.len(), "iterations");
                let texts = mapping.waiting.values().chain(mapping.done.values());
                let borne = mapping.failed.values();
                let borne = borne.flat_map(|borne| [&borne.item, &borne.error]);
                let texts: usize = texts.chain(borne).map(Json::len).sum();
                let items = inner.iter().filter_map(|inner| inner.iteration.as_ref());
                let items: u64 = items.map(|iteration| iteration.bytes).sum();
                assert_eq!(mapping.bytes, texts as u64 + items, "bytes of a Map state");
            }
            Step::Spreading(spreading) => check_chunks(spreading),
            _ => {}
        }
    }
}

/// Each item of a distributed Map is in one chunk, and counted as what became of it.
fn check_chunks(spreading: &Spreading) {
    let asked: Vec<ChunkTask> = (spreading.asked.values())
        .filter(|asked| asked.work == Work::Chunk)
        .map(|asked| serde_json::from_str(asked.input.as_str()).expect("a chunk"))
        .collect();
    let open = spreading.waiting.values();
    let open: Vec<_> = open
        .chain(asked.iter().map(|chunk| &chunk.portion))
        .collect();
    let done = spreading.done.values();
    let portions: Vec<_> = (open.iter().copied())
        .chain(done.clone().map(|done| &done.portion))
        .collect();
    let items: u64 = portions
        .iter()
        .map(|portion| u64::from(portion.count))
        .sum();
    assert_eq!(spreading.items, items, "items of a Map in chunks");
    let failed: u64 = done.clone().map(|done| done.failed).sum();
    assert_eq!(spreading.failed, failed, "failed items");
    let ended: u64 = done.clone().map(|done| u64::from(done.portion.count)).sum();
    assert_eq!(spreading.succeeded, ended - failed, "items that succeeded");
    let texts = portions.iter().filter_map(|portion| portion.items.as_ref());
    let texts = texts.chain(done.map(|done| &done.output));
    let bytes: usize = texts.map(Json::len).sum();
    let bytes = (spreading.shared.len() + bytes) as u64;
    assert_eq!(spreading.bytes, bytes, "bytes of a Map in chunks");
}

/// What is paused enters no state and asks for nothing.
fn check_nothing_begins(records: &[Record], after: &Transition) {
    let begins = |record: &Record| {
        matches!(
            record,
            Record::StateEntered { .. }
                | Record::ActivityScheduled { .. }
                | Record::PersonAsked { .. }
        )
    };
    assert!(!records.iter().any(begins), "begun while paused");
    let schedules = |command: &Command| matches!(command, Command::ScheduleActivity(_));
    assert!(!after.commands.iter().any(schedules), "asked while paused");
}

/// The attempts that are asked for.
fn scheduled(after: &Transition) -> impl Iterator<Item = (TaskId, u32)> {
    after.commands.iter().filter_map(|command| match command {
        Command::ScheduleActivity(task) => Some((task.task, task.attempt)),
        Command::CancelActivity { .. } => None,
    })
}

fn at(place: &Place) -> String {
    match place.path.as_str() {
        "" => place.state.as_ref().to_owned(),
        path => format!("{path}/{}", place.state),
    }
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).expect("JSON")
}

pub(crate) fn signal(name: &str, payload: Json, id: Option<&str>) -> EventKind {
    EventKind::SignalReceived {
        name: name.to_owned(),
        payload,
        id: id.map(ToOwned::to_owned),
    }
}

fn started(input: Json, machine: u32, parent: Option<Parent>) -> EventKind {
    EventKind::ExecutionStarted {
        input,
        shards: 10,
        machine,
        parent,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    }
}

pub(crate) fn completed(task: TaskId, attempt: u32, output: Json) -> EventKind {
    EventKind::ActivityCompleted {
        task,
        attempt,
        output,
        receipt: Receipt::default(),
    }
}

pub(crate) fn called_back(task: TaskId, attempt: u32, callback: Callback) -> EventKind {
    EventKind::CallbackReceived {
        task,
        attempt,
        callback,
    }
}

pub(crate) fn failed(
    task: TaskId,
    attempt: u32,
    error: &str,
    retryable: Option<bool>,
) -> EventKind {
    EventKind::ActivityFailed {
        task,
        attempt,
        failure: ActivityFailure {
            error: error.to_owned(),
            message: "told".to_owned(),
            retryable,
            details: None,
        },
        receipt: None,
    }
}
