//! The states of a compiled ASL definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::choice::{Condition, matches_pattern};
use super::jsonata::Query;
use super::path::{Fuel, MAX_VISITS, Path};
use super::payload::{Payload, Source};
use crate::Timestamp;
use crate::program::{Jitter, Next, Resource, ScopeId, StateId};
use crate::spread::Style;

/// Which kind of state machine AWS would run a definition as: what an Express
/// one cannot do is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MachineType {
    /// Durable; the default.
    #[default]
    Standard,
    /// Short: no callbacks, no `.sync`, no Activity ARNs, no distributed Map.
    Express,
}

/// Which activities stand behind the resources of a definition that are not
/// Cascade's own URNs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// The first entry whose pattern fits a resource is taken.
    pub entries: Vec<Binding>,
}

/// One resource, or all that fit a pattern, and what runs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// An ARN, in which `*` stands for anything. Of a `lambda:invoke` whose
    /// `FunctionName` is written out, the function's name or ARN is tried first.
    pub pattern: String,
    /// The activity that runs.
    pub activity: Resource,
    /// How the activity's input and output are wrapped.
    pub envelope: Envelope,
}

/// How the input and output of an activity are wrapped for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Envelope {
    /// Not at all: the activity sees what the service would see.
    #[default]
    None,
    /// As `lambda:invoke` does: the activity is the function. Its input is
    /// `Payload`, and the result of the state is `{ExecutedVersion, Payload, StatusCode}`.
    LambdaInvoke,
}

impl Bindings {
    /// As a file that [`crate::parse_bindings`] reads, on one line, in their order.
    pub fn to_json(&self) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let entries = self.entries.iter().map(|entry| {
            let activity = text(&entry.activity.to_string());
            let envelope = match entry.envelope {
                Envelope::None => "",
                Envelope::LambdaInvoke => ",\"envelope\":\"lambda_invoke\"",
            };
            format!(
                "{}:{{\"activity\":{activity}{envelope}}}",
                text(&entry.pattern)
            )
        });
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    }

    /// These, and `more` for what they do not bind.
    #[must_use]
    pub(crate) fn or(mut self, more: &Self) -> Self {
        self.entries.extend(more.entries.iter().cloned());
        self
    }

    /// The binding of a resource.
    pub(crate) fn find(&self, resource: &str) -> Option<&Binding> {
        let mut entries = self.entries.iter();
        entries.find(|entry| {
            // Resources are short.
            let fits = matches_pattern(&entry.pattern, resource, &mut Fuel(MAX_VISITS));
            fits == Ok(true)
        })
    }
}

/// One state of an ASL definition.
#[derive(Debug, PartialEq)]
pub struct State {
    pub(crate) kind: Kind,
    pub(crate) flow: Flow,
    pub(crate) assign: Option<Template>,
    pub(crate) retry: Vec<Retrier>,
    pub(crate) catch: Vec<Catcher>,
    /// What follows; `None` for Choice and Fail.
    pub(crate) next: Option<Next>,
    /// Whether any expression of the state looks into the context object.
    pub(crate) uses_context: bool,
}

impl State {
    /// The activity that the state runs, if it is a Task and bound to one.
    pub fn activity(&self) -> Option<&Resource> {
        match &self.kind {
            Kind::Task(task) => task.bound.as_ref().map(|bound| &bound.activity),
            Kind::Map(map) => {
                let reader = map.reader.as_ref()?;
                reader.bound.as_ref().map(|bound| &bound.activity)
            }
            _ => None,
        }
    }

    /// The names of errors that its `Catch` handles.
    pub fn caught(&self) -> impl Iterator<Item = &str> {
        let names = self.catch.iter().flat_map(|catcher| &catcher.errors);
        names.map(String::as_str)
    }

    /// Whether it runs its one scope for each of several items.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Map(_))
    }
}

/// A value with expressions in it, in either query language.
#[derive(Debug, PartialEq)]
pub(crate) enum Template {
    Payload(Payload),
    Query(Query),
}

/// How data gets into a state and out of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Flow {
    Path(Box<PathFlow>),
    Query {
        arguments: Option<Query>,
        output: Option<Query>,
    },
}

/// The five filters of a JSONPath state, in the order of their use.
#[derive(Debug, PartialEq)]
pub(crate) struct PathFlow {
    pub(crate) input: Part,
    pub(crate) parameters: Option<Payload>,
    pub(crate) selector: Option<Payload>,
    pub(crate) result: ResultPath,
    pub(crate) output: Part,
}

/// `InputPath` or `OutputPath`.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    /// Not given: everything.
    All,
    /// `null`: an empty object.
    Nothing,
    At(Path),
}

/// `ResultPath`
#[derive(Debug, PartialEq)]
pub(crate) enum ResultPath {
    /// Not given, or `$`: the result takes the place of the input.
    Replace,
    /// `null`: the input is passed on.
    Discard,
    At(Path),
}

/// What a state does.
#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Task(Task),
    Pass {
        result: Option<Value>,
    },
    Choice {
        rules: Vec<Rule>,
        default: Option<StateId>,
    },
    Wait(Until),
    Succeed,
    Fail {
        error: Option<Words>,
        cause: Option<Words>,
    },
    Parallel {
        branches: Vec<ScopeId>,
    },
    Map(Box<Map>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Task {
    /// The resource as written.
    pub(crate) resource: Arc<str>,
    pub(crate) bound: Option<Bound>,
    /// In seconds.
    pub(crate) timeout: Option<Amount>,
    /// In seconds.
    pub(crate) heartbeat: Option<Amount>,
}

impl Task {
    /// Whether the activity only passes a token on, with which somebody else tells
    /// how the task went.
    pub(crate) fn waits_for_callback(&self) -> bool {
        self.resource.ends_with(".waitForTaskToken")
    }
}

/// The activity behind a resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bound {
    pub(crate) activity: Resource,
    pub(crate) envelope: Envelope,
}

/// A way out of a Choice state.
#[derive(Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) condition: Condition,
    pub(crate) next: StateId,
    pub(crate) assign: Option<Template>,
    pub(crate) output: Option<Query>,
}

/// When a Wait state ends.
#[derive(Debug, PartialEq)]
pub(crate) enum Until {
    Seconds(Amount),
    At(Timestamp),
    AtPath(Path),
    AtQuery(Query),
}

/// A number that is fixed or comes from the data.
#[derive(Debug, PartialEq)]
pub(crate) struct Amount {
    /// The field, as in `TimeoutSecondsPath`.
    pub(crate) field: &'static str,
    pub(crate) source: AmountSource,
}

#[derive(Debug, PartialEq)]
pub(crate) enum AmountSource {
    Fixed(f64),
    Path(Path),
    Query(Query),
}

/// Text that is fixed or comes from the data.
#[derive(Debug, PartialEq)]
pub(crate) enum Words {
    Fixed(String),
    /// `ErrorPath`, `CausePath`
    Source {
        field: &'static str,
        source: Source,
    },
    Query(Query),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Map {
    pub(crate) items: Items,
    pub(crate) reader: Option<Reader>,
    pub(crate) writer: Option<Writer>,
    pub(crate) selector: Option<Template>,
    pub(crate) batcher: Option<Batcher>,
    pub(crate) processor: ScopeId,
    /// Whether each iteration is an execution of its own, as to variables and errors.
    pub(crate) distributed: bool,
    pub(crate) concurrency: Option<Amount>,
    pub(crate) tolerated_count: Option<Amount>,
    pub(crate) tolerated_percentage: Option<Amount>,
}

/// What a Map state iterates over.
#[derive(Debug, PartialEq)]
pub(crate) enum Items {
    /// The state's input.
    Input,
    Path(Path),
    Query(Query),
}

/// `ItemReader`: an activity gives the data, or an object has it.
#[derive(Debug, PartialEq)]
pub(crate) struct Reader {
    pub(crate) resource: Arc<str>,
    pub(crate) bound: Option<Bound>,
    /// What is read of the tenant's objects, if no activity is bound to the resource.
    pub(crate) native: Option<Native>,
    pub(crate) parameters: Option<Template>,
    pub(crate) format: Format,
    pub(crate) max_items: Option<Amount>,
}

/// How the text that a reader gives is made items.
#[derive(Debug, PartialEq)]
pub(crate) enum Format {
    Json,
    JsonLines,
    Csv {
        /// Names of the columns; those of the first row if absent.
        headers: Option<Vec<String>>,
        delimiter: char,
    },
}

/// What is read of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Native {
    /// The content of one.
    Object,
    /// Which there are.
    Listing,
}

/// `ResultWriter` with a resource: results are written to objects.
#[derive(Debug, PartialEq)]
pub(crate) struct Writer {
    pub(crate) parameters: Option<Template>,
    pub(crate) style: Style,
    pub(crate) lines: bool,
}

/// `ItemBatcher`
#[derive(Debug, PartialEq)]
pub(crate) struct Batcher {
    pub(crate) max_items: Option<Amount>,
    pub(crate) max_bytes: Option<Amount>,
    pub(crate) input: Option<Template>,
}

/// One entry of `Retry`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retrier {
    pub(crate) errors: Vec<String>,
    pub(crate) interval_ms: u64,
    pub(crate) max_attempts: u32,
    pub(crate) backoff: f64,
    pub(crate) max_delay_ms: u64,
    pub(crate) jitter: Jitter,
}

/// One entry of `Catch`.
#[derive(Debug, PartialEq)]
pub(crate) struct Catcher {
    pub(crate) errors: Vec<String>,
    pub(crate) result: ResultPath,
    pub(crate) output: Option<Query>,
    pub(crate) assign: Option<Template>,
    pub(crate) next: StateId,
}

/// Whether an entry of `ErrorEquals` matches an error. `States.Runtime` ends the
/// execution past every entry, as the guide has it.
pub(crate) fn matches_error(names: &[String], error: &str) -> bool {
    use super::fault::names::{ALL, HEARTBEAT_TIMEOUT, RUNTIME, TASK_FAILED, TIMEOUT};
    error != RUNTIME
        && names.iter().any(|name| match name.as_str() {
            ALL => true,
            TASK_FAILED => error != TIMEOUT && error != HEARTBEAT_TIMEOUT,
            // The guide: a heartbeat that is missed is a time-out too.
            TIMEOUT => error == TIMEOUT || error == HEARTBEAT_TIMEOUT,
            name => name == error,
        })
}

/// What a frame of an ASL definition knows besides its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// The raw input of the state that the frame is in.
    pub(crate) input: Arc<Value>,
    /// Variables that were assigned in this frame. Frames see those of the
    /// frames around them, too, but for iterations of a distributed Map.
    pub(crate) variables: BTreeMap<String, Arc<Value>>,
    /// Size of input and variables as JSON text, in bytes.
    pub(crate) bytes: u64,
    /// When the state was entered.
    pub(crate) entered_at: Timestamp,
    /// The event by which the state was entered.
    pub(crate) entered_seq: u64,
    /// How often each entry of the state's `Retry` was used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) retries: Vec<u32>,
    /// The state entry, for a Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<crate::TaskId>,
    /// Limit of an attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<u64>,
    /// Longest silence of an attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat_ms: Option<u64>,
}

impl Data {
    /// The data of a frame that is about to enter its first state.
    pub(crate) fn new(input: Arc<Value>, bytes: u64) -> Self {
        Self {
            input,
            variables: BTreeMap::new(),
            bytes,
            entered_at: Timestamp(0),
            entered_seq: 0,
            retries: Vec::new(),
            task: None,
            timeout_ms: None,
            heartbeat_ms: None,
        }
    }

    /// Size of what it holds as JSON text, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The values that it holds.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        let variables = self.variables.values().map(AsRef::as_ref);
        std::iter::once(self.input.as_ref()).chain(variables)
    }
}
