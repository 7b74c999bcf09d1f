//! The machine: a program, a line `---`, and what happens to it, a line each.
//!
//! ```text
//! s JSON          it starts with this input
//! c N JSON        the Nth of the attempts that are outstanding gives this
//! f N NAME        it fails by this name
//! t MS            time passes, and what is due then fires
//! i NAME JSON     a signal comes
//! a N JSON        the Nth of those who are asked answers this
//! x               somebody cancels
//! r               somebody retries
//! p               somebody pauses
//! g               somebody resumes
//! ```
//!
//! Any other line may be an event as it is in a history.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityFailure, ApplyError, Command, Event, EventKind, Execution, ExecutionId, Json, Receipt,
    SEMANTICS, Source, Step, TaskId, TenantId, Timestamp, apply, parse, replay,
};

/// Most events of a run: what takes more is found with fewer.
const MAX_LINES: usize = 60;

/// When every run starts: 2026-01-31T09:30:00Z.
pub(crate) const START: Timestamp = Timestamp(1_769_851_800_000);

pub(crate) fn id() -> ExecutionId {
    let id = "0190163d-8694-739b-aea5-966c26f8ad91".parse();
    id.expect("a UUID")
}

fn tenant() -> TenantId {
    "acme".parse().expect("a tenant")
}

/// An execution after its first event.
pub(crate) fn start(program: &Program, input: Json) -> Execution {
    let mut run = Run::new(program);
    run.apply(started(input));
    run.execution
}

/// Lets what happens happen, and checks after each event what has to hold.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some((program, lines)) = text.split_once("\n---\n") else {
        return;
    };
    let parsed = parse(&Source {
        name: "fuzz.yaml",
        bytes: program.as_bytes(),
    });
    let application = parsed.application;
    let Some(program) = application.and_then(|a| a.workflows.into_values().next()) else {
        return;
    };
    let mut run = Run::new(&program);
    for line in lines.lines().take(MAX_LINES) {
        run.happen(line);
    }
    run.check_replay();
    if run.execution.version > 0 {
        run.cancel();
        run.check_replay();
    }
}

fn started(input: Json) -> EventKind {
    EventKind::ExecutionStarted {
        input,
        shards: 10,
        machine: SEMANTICS,
        parent: None,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    }
}

struct Run<'p> {
    program: &'p Program,
    execution: Execution,
    history: Vec<Event>,
    outstanding: BTreeSet<(TaskId, u32)>,
    now: Timestamp,
}

impl<'p> Run<'p> {
    fn new(program: &'p Program) -> Self {
        Self {
            program,
            execution: Execution::new(id(), tenant()),
            history: Vec::new(),
            outstanding: BTreeSet::new(),
            now: START,
        }
    }

    fn happen(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (first, detail) = rest.split_once(' ').unwrap_or((rest, "null"));
        let kind = match word {
            "s" => json(rest).map(started),
            "c" => self.outstanding(first).zip(json(detail)).map(completed),
            "f" => self.outstanding(first).map(|key| failed(key, detail)),
            "i" => json(detail).map(|payload| EventKind::SignalReceived {
                name: first.to_owned(),
                payload,
                id: None,
            }),
            "a" => self.asked(first).zip(json(detail)).map(answered),
            "t" => return self.pass_time(first),
            "x" => Some(cancelled()),
            "r" => Some(EventKind::RetryRequested {}),
            "p" => Some(EventKind::ExecutionPaused {
                reason: rest.to_owned(),
            }),
            "g" => Some(EventKind::ExecutionResumed {}),
            _ => serde_json::from_str(line).ok(),
        };
        if let Some(kind) = kind {
            self.apply(kind);
        }
    }

    fn outstanding(&self, number: &str) -> Option<(TaskId, u32)> {
        let number: usize = number.parse().ok()?;
        let count = self.outstanding.len().max(1);
        self.outstanding.iter().nth(number % count).copied()
    }

    fn asked(&self, number: &str) -> Option<TaskId> {
        let number: usize = number.parse().ok()?;
        let frames = self.execution.frames.values();
        let asked = frames.filter_map(|frame| match &frame.step {
            Step::Asking(asking) => Some(asking.task),
            _ => None,
        });
        let asked: Vec<_> = asked.collect();
        asked.get(number % asked.len().max(1)).copied()
    }

    fn pass_time(&mut self, millis: &str) {
        let Ok(millis) = millis.parse::<u32>() else {
            return;
        };
        self.now = self.now.plus(u64::from(millis));
        for timer in self.execution.due_timers(self.now) {
            self.apply(EventKind::TimerFired { timer });
        }
    }

    /// Applies one event. Only one that stands in a wrong place is refused; and a
    /// snapshot in between makes no difference.
    fn apply(&mut self, kind: EventKind) {
        let event = Event {
            seq: self.execution.version + 1,
            at: self.now,
            kind,
        };
        let snapshot = serde_json::to_string(&self.execution).expect("an execution is JSON");
        let restored: Execution = serde_json::from_str(&snapshot).expect("a snapshot reads back");
        let after = match apply(self.program, self.execution.clone(), &event) {
            Ok(after) => after,
            Err(ApplyError::Start { .. } | ApplyError::NewerMachine { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let same = apply(self.program, restored, &event);
        assert_eq!(same.as_ref(), Ok(&after), "a snapshot makes a difference");
        self.settle(&event.kind);
        for command in &after.commands {
            match command {
                Command::ScheduleActivity(task) => {
                    let fresh = self.outstanding.insert((task.task, task.attempt));
                    assert!(fresh, "scheduled twice");
                }
                Command::CancelActivity { task, attempt } => {
                    let known = self.outstanding.remove(&(*task, *attempt));
                    assert!(known, "cancelled what was not outstanding");
                }
            }
        }
        self.execution = after.execution;
        self.history.push(event);
        let pending = self.execution.pending_tasks(self.program);
        let pending: BTreeSet<_> = pending
            .iter()
            .map(|task| (task.task, task.attempt))
            .collect();
        assert_eq!(pending, self.outstanding, "not what was commanded");
        if self.execution.is_closed() {
            assert!(pending.is_empty() && self.execution.wake_at().is_none());
        }
    }

    /// The outcome of an attempt came.
    fn settle(&mut self, kind: &EventKind) {
        if let EventKind::ActivityCompleted { task, attempt, .. }
        | EventKind::ActivityFailed { task, attempt, .. } = kind
        {
            self.outstanding.remove(&(*task, *attempt));
        }
    }

    /// Cancels, and lets what undoes succeed: then it has ended.
    fn cancel(&mut self) {
        self.apply(cancelled());
        // What is being undone already is not resumed by that.
        self.apply(EventKind::ExecutionResumed {});
        for _ in 0..2 * MAX_LINES {
            let Some(key) = self.outstanding.first().copied() else {
                break;
            };
            self.apply(completed((key, Json::from_value(&true.into()))));
        }
        if self.outstanding.is_empty() {
            let left = self.execution.wake_at();
            // Only a pause before another attempt to undo can be left.
            assert!(self.execution.is_closed() || left.is_some());
        }
    }

    fn check_replay(&self) {
        let replayed = replay(self.program, id(), tenant(), &self.history);
        let (replayed, pending) = replayed.expect("a history replays");
        assert_eq!(replayed, self.execution, "replay differs from live");
        assert_eq!(pending.len(), self.outstanding.len());
    }
}

fn json(text: &str) -> Option<Json> {
    Json::parse(text.to_owned()).ok()
}

fn completed(((task, attempt), output): ((TaskId, u32), Json)) -> EventKind {
    EventKind::ActivityCompleted {
        task,
        attempt,
        output,
        receipt: Receipt::default(),
    }
}

fn failed((task, attempt): (TaskId, u32), name: &str) -> EventKind {
    EventKind::ActivityFailed {
        task,
        attempt,
        failure: ActivityFailure {
            error: name.to_owned(),
            message: "told".to_owned(),
            retryable: None,
            details: None,
        },
        receipt: None,
    }
}

fn answered((task, output): (TaskId, Json)) -> EventKind {
    EventKind::HumanTaskCompleted {
        task,
        output,
        by: "ann".to_owned(),
    }
}

fn cancelled() -> EventKind {
    EventKind::CancelRequested {
        reason: "enough".to_owned(),
    }
}
