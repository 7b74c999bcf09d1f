//! One case, from its definition to its end, under virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::asl::conformance::{Case, Outcome};
use cascade_cdl::asl::{Binding, Bindings, Envelope, MachineType};
use cascade_cdl::program::{Program, Resource};
use cascade_cdl::{
    ActivityTask, AslOptions, ExecutionId, Json, Record, Source, Status, Timestamp, parse_with,
};
use serde_json::Value;

use super::super::local::Caller;
use super::super::virtual_time::VirtualTime;
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
    workflow: String,
    behaviors: Vec<&'c Value>,
    time: VirtualTime,
    entered: BTreeMap<String, u64>,
}

impl<'c> Run<'c> {
    fn new(stand_in: &'c StandIn, program: Arc<Program>, behaviors: Vec<&'c Value>) -> Self {
        let id = ExecutionId(uuid::Uuid::now_v7());
        Self {
            stand_in,
            workflow: program.name.clone(),
            behaviors,
            time: VirtualTime::new(program, id, START),
            entered: BTreeMap::new(),
        }
    }

    /// Lets happen what is next, until the execution ends or waits for what nobody
    /// sends. The machine bounds how long its history may get.
    async fn finish(&mut self, input: &Value) {
        // A definition in ASL has no shard key.
        let mut next = self.time.begin(Json::from_value(input)).ok();
        while let Some(event) = next {
            let entered = &mut self.entered;
            let mut observe = |record| {
                if let Record::StateEntered { place } = record {
                    *entered.entry(place.state.to_string()).or_default() += 1;
                }
            };
            let (_, asked) = (self.time.apply(event, &mut observe))
                .expect("the machine takes the events that it asked for");
            for task in asked {
                self.attempt(task).await;
            }
            next = self.time.next();
        }
    }

    /// Runs an attempt. How it ends is known at once, and told when it is time.
    async fn attempt(&mut self, task: ActivityTask) {
        let name = task.resource.name.rsplit('-').next();
        let index = name.and_then(|index| index.parse::<usize>().ok());
        // What is bound to no activity has nobody to behave in its place.
        let behavior = index.and_then(|index| self.behaviors.get(index).copied());
        let caller = Caller {
            application: APPLICATION,
            workflow: &self.workflow,
            execution: self.time.execution().id,
        };
        let Reply {
            after_seconds,
            result,
        } = self
            .stand_in
            .run(&caller, &task, behavior.unwrap_or(&Value::Null))
            .await;
        let after_ms = after_seconds.saturating_mul(1_000);
        self.time.end(task, after_ms, result);
    }

    fn outcome(self) -> Outcome {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (status, output, error, cause) = match &self.time.execution().status {
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
