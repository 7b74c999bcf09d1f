//! Runs a case under virtual time: the clock goes to whatever is next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cascade_cdl::asl::conformance::{Case, Outcome};
use cascade_cdl::asl::{Binding, Bindings, Envelope, MachineType};
use cascade_cdl::program::{Program, Resource};
use cascade_cdl::{
    ActivityFailure, ActivityTask, AslOptions, Command, Event, EventKind, Execution, ExecutionId,
    Json, Parsed, Receipt, Record, SEMANTICS, Source, Status, TenantId, Timestamp, apply_traced,
    parse_with, replay,
};
use serde_json::Value;

use crate::activities::Reply;
use crate::suite::{self, Activities, Definition};

/// When every case starts: 2026-01-31T09:30:00.000Z.
const START: Timestamp = Timestamp(1_769_851_800_000);

/// How an execution ended, and whether its history gives the same again.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) replayed: bool,
    /// The errors that were caught on the way.
    pub(crate) caught: BTreeSet<String>,
}

/// The bindings of a case's resources, to activities that are numbered.
pub(crate) fn names(case: &Case) -> BTreeMap<String, String> {
    let resources = case.activities.keys().enumerate();
    let names = resources.map(|(at, resource)| (resource.clone(), format!("activity-{at}")));
    names.collect()
}

/// What a definition is read with whose resources are bound to activities of these names.
pub(crate) fn options(machine_type: MachineType, names: &BTreeMap<String, String>) -> AslOptions {
    let entries = names.iter().map(|(resource, name)| Binding {
        pattern: resource.clone(),
        activity: Resource {
            name: name.as_str().into(),
            version: None,
            region: None,
            child: None,
        },
        envelope: Envelope::None,
    });
    AslOptions {
        bindings: Bindings {
            entries: entries.collect(),
        },
        machine_type,
    }
}

/// Reads a definition whose resources are bound to activities of these names.
pub(crate) fn parse(
    text: &str,
    machine_type: MachineType,
    names: &BTreeMap<String, String>,
) -> Parsed {
    let options = options(machine_type, names);
    let source = Source {
        name: "machine.asl.json",
        bytes: text.as_bytes(),
    };
    parse_with(&source, &options)
}

/// The text of a case's definition.
pub(crate) fn text(case: &Case, form: Definition) -> String {
    match (&case.definition, form) {
        (Value::String(text), Definition::Json) => text.clone(),
        (value, Definition::Json) => value.to_string(),
        (value, Definition::Yaml) => {
            let value = match value {
                Value::String(text) => serde_json::from_str(text).expect("a definition in JSON"),
                other => other.clone(),
            };
            serde_yaml::to_string(&value).expect("JSON is YAML")
        }
    }
}

/// Runs a case to its end.
pub(crate) fn run(case: &Case, form: Definition) -> Ended {
    let text = text(case, form);
    let parsed = parse(&text, case.machine_type, &names(case));
    let Some(application) = parsed.application else {
        let reasons: Vec<_> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        let outcome = Outcome {
            status: "INVALID".to_owned(),
            cause: Some(reasons.join(", ")),
            ..Outcome::default()
        };
        return Ended {
            outcome,
            replayed: true,
            caught: BTreeSet::new(),
        };
    };
    let program = application.workflows.into_values().next();
    run_program(case, program.expect("a definition is one workflow"))
}

/// Runs a program with the activities and the input of a case.
pub(crate) fn run_program(case: &Case, program: Arc<Program>) -> Ended {
    let activities = suite::activities(case);
    let mut run = Run::new(program, &activities);
    run.start(&case.input);
    run.finish();
    run.outcome()
}

struct Run<'c> {
    program: Arc<Program>,
    activities: Vec<&'c suite::Activity>,
    execution: Execution,
    history: Vec<Event>,
    now: Timestamp,
    /// Replies that are to come, and when.
    replies: Vec<(Timestamp, ActivityTask, Reply)>,
    entered: BTreeMap<String, u64>,
    caught: BTreeSet<String>,
}

impl<'c> Run<'c> {
    fn new(program: Arc<Program>, activities: &'c Activities) -> Self {
        let id: ExecutionId = "0190163d-8694-739b-aea5-966c26f8ad91"
            .parse()
            .expect("a UUID");
        let tenant: TenantId = "acme".parse().expect("a tenant");
        Self {
            program,
            activities: activities.values().collect(),
            execution: Execution::new(id, tenant),
            history: Vec::new(),
            now: START,
            replies: Vec::new(),
            entered: BTreeMap::new(),
            caught: BTreeSet::new(),
        }
    }

    fn start(&mut self, input: &Value) {
        self.apply(EventKind::ExecutionStarted {
            input: Json::from_value(input),
            shards: 10,
            machine: SEMANTICS,
            parent: None,
            schedule: None,
            shard_key: None,
            priority: None,
            labels: BTreeMap::new(),
        });
    }

    fn finish(&mut self) {
        while !self.execution.is_closed() {
            let reply = self.replies.iter().map(|(at, ..)| *at).min();
            let timer = self.execution.wake_at();
            match (reply, timer) {
                (Some(at), timer) if timer.is_none_or(|timer| at <= timer) => {
                    let next = self.replies.iter().position(|(due, ..)| *due == at);
                    let (_, task, reply) = self.replies.remove(next.expect("it is the earliest"));
                    self.now = self.now.max(at);
                    self.answer(&task, reply);
                }
                (_, Some(at)) => {
                    self.now = self.now.max(at);
                    let due = self.execution.due_timers(self.now);
                    self.apply(EventKind::TimerFired { timer: due[0] });
                }
                _ => panic!("an execution that runs waits for something"),
            }
        }
    }

    fn answer(&mut self, task: &ActivityTask, reply: Reply) {
        let (task, attempt) = (task.task, task.attempt);
        let receipt = Receipt::default();
        self.apply(match reply {
            Reply::Output(output) => EventKind::ActivityCompleted {
                task,
                attempt,
                output: Json::from_value(&output),
                receipt,
            },
            Reply::Failure { error, cause } => EventKind::ActivityFailed {
                task,
                attempt,
                failure: ActivityFailure {
                    error,
                    message: cause,
                    retryable: None,
                    details: None,
                },
                receipt: Some(receipt),
            },
            Reply::Later(..) => unreachable!("delays were taken when the attempt was asked for"),
        });
    }

    fn apply(&mut self, kind: EventKind) {
        let event = Event {
            seq: self.execution.version + 1,
            at: self.now,
            kind,
        };
        let mut entered = Vec::new();
        let caught = &mut self.caught;
        let mut observe = |record| match record {
            Record::StateEntered { place } => entered.push(place.state.to_string()),
            Record::Caught { error, .. } => {
                caught.insert(error);
            }
            _ => {}
        };
        let transition = apply_traced(&self.program, self.execution.clone(), &event, &mut observe)
            .expect("a live history applies");
        for name in entered {
            *self.entered.entry(name).or_default() += 1;
        }
        self.history.push(event);
        self.execution = transition.execution;
        for command in transition.commands {
            match command {
                Command::ScheduleActivity(task) => self.schedule(task),
                Command::CancelActivity { task, attempt } => self
                    .replies
                    .retain(|(_, asked, _)| (asked.task, asked.attempt) != (task, attempt)),
            }
        }
    }

    fn schedule(&mut self, task: ActivityTask) {
        let at = task
            .resource
            .name
            .rsplit('-')
            .next()
            .and_then(|at| at.parse::<usize>().ok());
        let activity = self.activities[at.expect("names end in a number")];
        let mut reply = activity.reply(&task.input.to_value());
        let mut due = self.now;
        while let Reply::Later(seconds, then) = reply {
            due = due.plus(seconds * 1_000);
            reply = *then;
        }
        self.replies.push((due, task, reply));
    }

    fn outcome(self) -> Ended {
        let (id, tenant) = (self.execution.id, self.execution.tenant.clone());
        let again = replay(&self.program, id, tenant, &self.history);
        let replayed = again.is_ok_and(|(execution, _)| execution == self.execution);
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (status, output, error, cause) = match &self.execution.status {
            Status::Completed { output } => ("SUCCEEDED", Some(output.to_value()), None, None),
            Status::Failed { failure } => {
                ("FAILED", None, said(&failure.error), said(&failure.message))
            }
            Status::TimedOut { .. } => ("TIMED_OUT", None, Some("States.Timeout".into()), None),
            Status::Cancelled { reason } => ("ABORTED", None, None, said(reason)),
            Status::Running | Status::Compensating { .. } => ("RUNNING", None, None, None),
        };
        let outcome = Outcome {
            status: status.to_owned(),
            output,
            error,
            cause,
            entered: self.entered,
        };
        Ended {
            outcome,
            replayed,
            caught: self.caught,
        }
    }
}
