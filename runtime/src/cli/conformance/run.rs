//! One case, from its definition to its end, under virtual time: the clock goes to
//! whatever is next.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::asl::conformance::{Case, Outcome};
use cascade_cdl::asl::{Binding, Bindings, Envelope, MachineType};
use cascade_cdl::program::{Program, Resource};
use cascade_cdl::{
    ActivityTask, AslOptions, Command, Event, EventKind, Execution, ExecutionId, Json, Receipt,
    Record, SEMANTICS, Source, Status, Timestamp, apply_traced, parse_with,
};
use serde_json::Value;

use super::super::local::{self, Caller};
use super::stand_in::{Reply, StandIn};

/// When every case starts: 2026-01-31T09:30:00.000Z. Cases that tell of times
/// leave them open.
const START: Timestamp = Timestamp(1_769_851_800_000);

/// What the application is called. No case can see it.
const APPLICATION: &str = "conformance";

/// How a definition is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Json,
    /// As the same in YAML.
    Yaml,
}

/// Compiles a definition; its resources are activities `activity-0`, `activity-1`
/// and so on. `Err` says why it is refused.
pub(super) fn parse(
    definition: &Value,
    machine_type: MachineType,
    resources: &[&String],
    form: Form,
) -> Result<Arc<Program>, String> {
    let text = match definition {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = match form {
        Form::Json => text,
        // What is no JSON is left as it is: to refuse it is the parser's.
        Form::Yaml => serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|value| serde_yaml::to_string(&value).ok())
            .unwrap_or(text),
    };
    let bindings = resources
        .iter()
        .enumerate()
        .map(|(at, resource)| Binding {
            pattern: (*resource).clone(),
            activity: Resource {
                name: format!("activity-{at}").into(),
                version: None,
                region: None,
                child: None,
            },
            // The case's own activities wrap their answers.
            envelope: Envelope::None,
        })
        .collect();
    let options = AslOptions {
        bindings: Bindings { entries: bindings },
        machine_type,
    };
    let source = Source {
        name: "machine.asl.json",
        bytes: text.as_bytes(),
    };
    let parsed = parse_with(&source, &options);
    let workflow = parsed
        .application
        .and_then(|application| application.workflows.into_values().next());
    workflow.ok_or_else(|| {
        let reasons: Vec<_> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        reasons.join(", ")
    })
}

/// Runs a case to its end.
pub(super) async fn run(stand_in: &StandIn, case: &Case, form: Form) -> Outcome {
    let resources: Vec<_> = case.activities.keys().collect();
    match parse(&case.definition, case.machine_type, &resources, form) {
        Ok(program) => {
            let mut run = Run::new(stand_in, program, case.activities.values().collect());
            run.finish(&case.input).await;
            run.outcome()
        }
        Err(reasons) => Outcome {
            status: "INVALID".to_owned(),
            cause: Some(reasons),
            ..Outcome::default()
        },
    }
}

struct Run<'c> {
    stand_in: &'c StandIn,
    program: Arc<Program>,
    behaviors: Vec<&'c Value>,
    execution: Execution,
    now: Timestamp,
    /// Attempts that run: when they end, and how.
    attempts: Vec<(
        Timestamp,
        ActivityTask,
        Result<Json, cascade_cdl::ActivityFailure>,
    )>,
    entered: BTreeMap<String, u64>,
}

impl<'c> Run<'c> {
    fn new(stand_in: &'c StandIn, program: Arc<Program>, behaviors: Vec<&'c Value>) -> Self {
        let id = ExecutionId(uuid::Uuid::now_v7());
        Self {
            stand_in,
            program,
            behaviors,
            execution: Execution::new(id, local::tenant()),
            now: START,
            attempts: Vec::new(),
            entered: BTreeMap::new(),
        }
    }

    /// Lets happen what is next, until the execution ends or waits for what nobody
    /// sends. The machine bounds how long its history may get.
    async fn finish(&mut self, input: &Value) {
        let mut next = Some(EventKind::ExecutionStarted {
            input: Json::from_value(input),
            shards: super::super::run::SHARDS,
            machine: SEMANTICS,
            parent: None,
        });
        while let Some(event) = next {
            for task in self.apply(event) {
                self.attempt(task).await;
            }
            next = self.next();
        }
    }

    /// What happens next, and when. An answer comes before a timer of the same moment.
    fn next(&mut self) -> Option<EventKind> {
        if self.execution.is_closed() {
            return None;
        }
        let ends = self.attempts.iter().map(|(at, ..)| *at);
        let first = ends.enumerate().min_by_key(|(index, at)| (*at, *index));
        let timer = self.execution.wake_at();
        match (first, timer) {
            (Some((index, at)), timer) if timer.is_none_or(|timer| at <= timer) => {
                self.now = self.now.max(at);
                let (_, task, result) = self.attempts.remove(index);
                Some(ended(&task, result))
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                let due = self.execution.due_timers(self.now);
                due.first()
                    .map(|timer| EventKind::TimerFired { timer: *timer })
            }
            (_, None) => None,
        }
    }

    /// Applies an event, and gives the attempts that it asks for.
    fn apply(&mut self, kind: EventKind) -> Vec<ActivityTask> {
        let event = Event {
            seq: self.execution.version + 1,
            at: self.now,
            kind,
        };
        let entered = &mut self.entered;
        let mut observe = |record| {
            if let Record::StateEntered { place } = record {
                *entered.entry(place.state.to_string()).or_default() += 1;
            }
        };
        let transition = apply_traced(&self.program, self.execution.clone(), &event, &mut observe)
            .expect("the machine takes the events that it asked for");
        self.execution = transition.execution;
        let mut asked = Vec::new();
        for command in transition.commands {
            match command {
                Command::ScheduleActivity(task) => asked.push(task),
                Command::CancelActivity { task, attempt } => {
                    let other =
                        |asked: &ActivityTask| (asked.task, asked.attempt) != (task, attempt);
                    asked.retain(other);
                    self.attempts.retain(|(_, asked, _)| other(asked));
                }
            }
        }
        asked
    }

    /// Runs an attempt. How it ends is known at once, and told when it is time.
    async fn attempt(&mut self, task: ActivityTask) {
        let name = task.resource.name.rsplit('-').next();
        let index = name.and_then(|index| index.parse::<usize>().ok());
        // What is bound to no activity has nobody to behave in its place.
        let behavior = index.and_then(|index| self.behaviors.get(index).copied());
        let caller = Caller {
            application: APPLICATION,
            workflow: &self.program.name,
            execution: self.execution.id,
        };
        let Reply {
            after_seconds,
            result,
        } = self
            .stand_in
            .run(&caller, &task, behavior.unwrap_or(&Value::Null))
            .await;
        let at = self.now.plus(after_seconds.saturating_mul(1_000));
        self.attempts.push((at, task, result));
    }

    fn outcome(self) -> Outcome {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (status, output, error, cause) = match &self.execution.status {
            Status::Completed { output } => ("SUCCEEDED", Some(output.to_value()), None, None),
            Status::Failed { failure } => {
                ("FAILED", None, said(&failure.error), said(&failure.message))
            }
            Status::TimedOut { .. } => ("TIMED_OUT", None, said("States.Timeout"), None),
            Status::Cancelled { reason } => ("ABORTED", None, None, said(reason)),
            Status::Running | Status::Compensating { .. } => (
                "RUNNING",
                None,
                None,
                said("it waits for what nobody sends"),
            ),
        };
        Outcome {
            status: status.to_owned(),
            output,
            error,
            cause,
            entered: self.entered,
        }
    }
}

fn ended(task: &ActivityTask, result: Result<Json, cascade_cdl::ActivityFailure>) -> EventKind {
    let (task, attempt) = (task.task, task.attempt);
    match result {
        Ok(output) => EventKind::ActivityCompleted {
            task,
            attempt,
            output,
            receipt: Receipt::default(),
        },
        Err(failure) => EventKind::ActivityFailed {
            task,
            attempt,
            failure,
            receipt: None,
        },
    }
}
