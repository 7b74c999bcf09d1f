//! A compiled workflow: what both front ends produce and the machine runs.
//!
//! States are numbered, transitions resolved, expressions compiled. A program
//! is never stored: its source is, and compiles again to the same program.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::expression::{Path, Secrets, Template};
use crate::schedule::Schedule;
use crate::schema::Schema;
use crate::spread::{Format, SEPARATOR, Work};
use crate::{asl, plan};

mod ways;

/// Index of a state in [`Program::states`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateId(pub u32);

/// Index of a scope in [`Program::scopes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(pub u32);

impl ScopeId {
    /// The scope of the workflow itself.
    pub const ROOT: Self = Self(0);
}

/// What one CDL file declares.
#[derive(Debug, Clone)]
pub struct Application {
    /// `metadata.name`, or the file's name for a shorthand.
    pub name: String,
    /// `metadata.namespace`, `default` if not given.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Its workflows, by name.
    pub workflows: BTreeMap<String, Arc<Program>>,
    /// What starts them by the time, by name.
    pub schedules: BTreeMap<String, Arc<Schedule>>,
}

impl Application {
    /// What an execution runs whose workflow has this name: a workflow, or what runs the
    /// chunks of one of its Maps.
    pub fn program(&self, name: &str) -> Option<Arc<Program>> {
        match name.split_once(SEPARATOR) {
            Some((workflow, map)) => self.workflows.get(workflow)?.chunk(map).map(Arc::new),
            None => self.workflows.get(name).cloned(),
        }
    }
}

/// One compiled workflow.
#[derive(Debug, Clone)]
pub struct Program {
    /// The workflow's name.
    pub name: String,
    /// Nested lists of states; the first is the workflow's own.
    pub scopes: Vec<Scope>,
    /// All states of all scopes.
    pub states: Vec<State>,
    /// The workflow's `timeout`, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What the input has to look like, which is for who starts an execution to check:
    /// the machine takes whatever it is given.
    pub input: Option<Arc<Schema>>,
    /// Which key executions are placed by, instead of their ids. The machine is given
    /// what comes of it.
    pub shard_key: Option<Template>,
    /// What its executions are found by, by name, computed over the context.
    pub attributes: BTreeMap<String, Template>,
    /// How urgent its executions are, if who starts them does not say.
    pub priority: Option<Priority>,
    /// How often executions may be started.
    pub start_rate_limit: Option<Rate>,
    /// The workflow's `output`; without it the output is the context less `workflow`.
    pub output: Option<Template>,
    /// That it runs chunks of a Map state: see [`Program::chunk`].
    pub chunk: Option<Box<ChunkOf>>,
    /// Whether Maps that are distributed elsewhere run in the one execution, since
    /// whoever runs it runs no others.
    pub whole: bool,
}

/// Whose chunks a program runs.
#[derive(Debug, Clone)]
pub struct ChunkOf {
    /// The workflow.
    pub workflow: String,
    /// What stands before the Map state's name in its path.
    pub around: String,
}

/// How urgent something is, among what one tenant has: 1 is the most urgent, 5 the
/// least. Five, with the third as what is meant if nothing is said, as elsewhere in the
/// field: so many people can tell apart, and there is room above and below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

/// What is wrong with a priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a priority is 1, the most urgent, to 5, not {0}")]
pub struct InvalidPriority(u8);

impl Priority {
    /// How many there are.
    pub const COUNT: u8 = 5;

    /// From 0, the most urgent.
    pub fn index(self) -> usize {
        usize::from(self.0 - 1)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<u8> for Priority {
    type Error = InvalidPriority;

    fn try_from(number: u8) -> Result<Self, InvalidPriority> {
        if (1..=Self::COUNT).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidPriority(number))
        }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many times, at least once.
    pub count: u32,
    /// In so many milliseconds: a second, a minute or an hour.
    pub per_ms: u32,
    /// How many may come at once after a pause, at least 1.
    pub burst: u32,
}

impl Rate {
    /// From one to the next, if they come evenly spaced.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.per_ms)) / self.count.max(1)
    }
}

/// As it is written: `10/s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per_ms {
            1_000 => "s",
            60_000 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A list of states that is entered at its start: a workflow, a branch or the
/// iterator of a Map state.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The workflow's or branch's name, or that of the Map state.
    pub name: String,
    /// Its first state.
    pub start: StateId,
    /// The state that this scope is nested in; `None` for the workflow.
    pub owner: Option<StateId>,
}

/// One step of a workflow.
#[derive(Debug, Clone)]
pub struct State {
    /// Name, unique in its scope.
    pub name: Arc<str>,
    /// The scope that it is in.
    pub scope: ScopeId,
    /// What it does.
    pub kind: StateKind,
}

/// The kinds of [`State`].
#[expect(
    clippy::large_enum_variant,
    reason = "a program is made once, and most of its states are Tasks"
)]
#[derive(Debug, Clone)]
pub enum StateKind {
    /// Runs an activity, or a workflow as a child.
    Task(Task),
    /// Computes a value.
    Pass {
        /// What it computes; without it the state only passes on.
        parameters: Option<Template>,
        /// Where the value goes.
        result: Option<Path>,
        /// What follows.
        next: Next,
    },
    /// Takes the first way whose condition holds.
    Choice {
        /// The ways, in order.
        choices: Vec<Way>,
        /// The way if none holds.
        default: Option<StateId>,
    },
    /// Runs scopes side by side.
    Parallel {
        /// One scope a branch, in the order of the file.
        branches: Vec<ScopeId>,
        /// When it has succeeded, and what a failed branch means to it.
        strategy: Strategy,
        /// Where `{branch name: output}` goes.
        result: Option<Path>,
        /// Who handles a failed branch.
        catch: Vec<Catch>,
        /// What follows.
        next: Next,
    },
    /// Runs a scope for each item of a list.
    Map(Map),
    /// Waits for a named signal.
    Event(EventTask),
    /// Waits for a person.
    Human(HumanTask),
    /// Lets time pass.
    Wait {
        /// Until when.
        until: Until,
        /// What follows.
        next: Next,
    },
    /// Ends the scope well.
    Succeed {
        /// Its output, for the workflow or the branch. Without it a workflow has the
        /// output that it has without Succeed, and a branch has `null`.
        output: Option<Template>,
    },
    /// Ends the execution with an error, unless an enclosing state catches it.
    Fail {
        /// Error name.
        error: Template,
        /// For people.
        message: Option<Template>,
    },
    /// A state of an ASL definition.
    Asl(Arc<asl::State>),
}

/// A Map state.
#[derive(Debug, Clone)]
pub struct Map {
    /// The list, evaluated once, where the state stands.
    pub items: Template,
    /// What runs for each item.
    pub iterator: ScopeId,
    /// Most iterations at a time, at least 1.
    pub max_concurrency: u32,
    /// Items of one iteration, at least 1: its item is then a list of so many,
    /// or fewer in the last. `None` gives each item as it is.
    pub batch: Option<u32>,
    /// Failures that the state bears; `None` makes the first one its own.
    pub tolerance: Option<Tolerance>,
    /// How it goes through more than one execution runs.
    pub spread: Option<Box<Spread>>,
    /// Where the list of outputs goes.
    pub result: Option<Path>,
    /// Who handles a failed iteration.
    pub catch: Vec<Catch>,
    /// What follows.
    pub next: Next,
}

/// What a Map state has whose items are of an object, or whose chunks are executions.
#[derive(Debug, Clone)]
pub struct Spread {
    /// The form of the object whose name `items` gives; `None` if it gives a list.
    pub format: Option<Format>,
    /// Items of the object beyond are left out.
    pub max_items: Option<u32>,
    /// Whether this execution runs all of them.
    pub whole: bool,
    /// The bucket and the beginning of the keys of what is written of them.
    pub results: Option<Template>,
}

/// How many failed items a Map state bears. What is given must all hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// So many of them.
    pub count: Option<u32>,
    /// So many of a hundred, 0 to 100.
    pub percentage: Option<f64>,
}

impl Tolerance {
    /// Whether `failed` of `items` are no more than that.
    pub fn bears(&self, failed: u32, items: u32) -> bool {
        let counted = self.count.is_none_or(|count| failed <= count);
        // Products, not a quotient: 3 of 10 are 30 % exactly.
        let share = |most: f64| f64::from(failed) * 100.0 <= most * f64::from(items);
        counted && self.percentage.is_none_or(share)
    }
}

/// When a Parallel state has succeeded, and what a failed branch means to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Every branch has to succeed; the first failure is the state's own.
    All,
    /// So many branches have to succeed, and the others are cancelled then. The
    /// state fails as soon as too many have failed.
    AtLeast(u32),
    /// Every branch has to end, well or not.
    Settled,
}

/// What follows a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another state of the same scope.
    State(StateId),
    /// The end of the scope.
    End,
}

/// A Task state.
#[derive(Debug, Clone)]
pub struct Task {
    /// What runs.
    pub resource: Resource,
    /// The input of what runs; without it, the whole context.
    pub parameters: Option<Template>,
    /// Where `parameters` name secrets, if they do.
    pub secrets: Option<Arc<Secrets>>,
    /// Where the output goes; without it, into the history only.
    pub result: Option<Path>,
    /// Limit of one attempt, from its scheduling, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Longest silence of a running attempt, in milliseconds.
    pub heartbeat_ms: Option<u64>,
    /// How urgent it is, if not as the execution.
    pub priority: Option<Priority>,
    /// How often attempts may begin, those of all executions together.
    pub rate_limit: Option<Rate>,
    /// When to try again.
    pub retries: RetryPolicy,
    /// Who handles the error that is left.
    pub catch: Vec<Catch>,
    /// What undoes it, should the execution end without success later.
    pub compensate: Option<Compensation>,
    /// What follows.
    pub next: Next,
}

/// What undoes a Task that completed.
#[derive(Debug, Clone)]
pub struct Compensation {
    /// What runs.
    pub resource: Resource,
    /// The activity's input, evaluated when the Task has completed; without it,
    /// `{input, output}` of the Task.
    pub parameters: Option<Template>,
    /// Where what it is given names secrets, if it does.
    pub secrets: Option<Arc<Secrets>>,
    /// Limit of one attempt, from its scheduling, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// When to try again.
    pub retries: RetryPolicy,
}

/// What the attempts of a Task or of its compensation run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempted<'p> {
    pub(crate) resource: &'p Resource,
    pub(crate) secrets: Option<&'p Arc<Secrets>>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) heartbeat_ms: Option<u64>,
    pub(crate) priority: Option<Priority>,
    pub(crate) rate_limit: Option<Rate>,
    pub(crate) retries: &'p RetryPolicy,
}

impl Task {
    /// What an attempt runs, or one that undoes it.
    pub(crate) fn attempted(&self, compensating: bool) -> Option<Attempted<'_>> {
        if !compensating {
            return Some(Attempted {
                resource: &self.resource,
                secrets: self.secrets.as_ref(),
                timeout_ms: self.timeout_ms,
                heartbeat_ms: self.heartbeat_ms,
                priority: self.priority,
                rate_limit: self.rate_limit,
                retries: &self.retries,
            });
        }
        self.compensate.as_ref().map(|undo| Attempted {
            resource: &undo.resource,
            secrets: undo.secrets.as_ref(),
            timeout_ms: undo.timeout_ms,
            heartbeat_ms: None,
            priority: self.priority,
            // What was done has to be undone, and may be of another activity.
            rate_limit: None,
            retries: &undo.retries,
        })
    }
}

/// A way out of a Choice state.
#[derive(Debug, Clone)]
pub struct Way {
    /// Holds if it evaluates to `true`.
    pub condition: Template,
    /// Where it leads.
    pub next: StateId,
}

/// An `EventTask` state: its output is what the signal brings.
#[derive(Debug, Clone)]
pub struct EventTask {
    /// The signal's name.
    pub event: Arc<str>,
    /// How long it waits.
    pub timeout: Option<Timeout>,
    /// Where the output goes.
    pub result: Option<Path>,
    /// Who handles its error, a `TimeoutError`.
    pub catch: Vec<Catch>,
    /// What follows.
    pub next: Next,
}

/// A `HumanTask` state: its output is the answer.
#[derive(Debug, Clone)]
pub struct HumanTask {
    /// Who is asked, a text.
    pub assignee: Template,
    /// What they are shown; `null` without it.
    pub parameters: Option<Template>,
    /// What the answer has to look like. Whoever takes the answer checks it,
    /// before it is recorded.
    pub schema: Option<Arc<Schema>>,
    /// How long it waits.
    pub timeout: Option<Timeout>,
    /// Who is asked instead while nobody answers, the earliest first.
    pub escalate: Vec<Escalation>,
    /// Where the output goes.
    pub result: Option<Path>,
    /// Who handles its error.
    pub catch: Vec<Catch>,
    /// What follows.
    pub next: Next,
}

/// How long a state waits for the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// From when the state is entered, in milliseconds.
    pub ms: u64,
    /// What follows then; without it the state fails with a `TimeoutError`.
    pub next: Option<StateId>,
}

/// Somebody else to ask.
#[derive(Debug, Clone)]
pub struct Escalation {
    /// When, from when the state is entered, in milliseconds.
    pub after_ms: u64,
    /// Who, a text.
    pub assignee: Template,
}

/// When a Wait state ends.
#[derive(Debug, Clone)]
pub enum Until {
    /// After a duration as in `1h30m`, or a number of seconds.
    Duration(Template),
    /// At an RFC 3339 timestamp.
    Timestamp(Template),
}

/// A handler of errors.
#[derive(Debug, Clone)]
pub struct Catch {
    /// Names that it handles; `*` is any.
    pub errors: Vec<String>,
    /// Where `{error, message, state, details}` goes.
    pub result: Option<Path>,
    /// Where it leads.
    pub next: StateId,
}

/// How often and when an activity is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in total, the first included; at least 1.
    pub max_attempts: u32,
    /// Pause before the second attempt, in milliseconds.
    pub initial_interval_ms: u64,
    /// Longest pause, in milliseconds.
    pub max_interval_ms: u64,
    /// Factor from one pause to the next, at least 1.
    pub multiplier: f64,
    /// How much of the pause is random.
    pub jitter: Jitter,
}

/// How much of a pause is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// The pause is exact.
    None,
    /// Between nothing and the pause.
    Full,
    /// Between half the pause and the pause.
    Equal,
}

impl RetryPolicy {
    /// One attempt and no other.
    pub(crate) const ONCE: Self = Self {
        max_attempts: 1,
        initial_interval_ms: 0,
        max_interval_ms: 0,
        multiplier: 1.0,
        jitter: Jitter::None,
    };
}

/// The design's policy: 3 attempts in total, 1 s, at most 60 s, doubling.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_interval_ms: 1_000,
            max_interval_ms: 60_000,
            multiplier: 2.0,
            jitter: Jitter::None,
        }
    }
}

/// What a Task runs: `urn:cascade:activity:NAME[:VERSION][@REGION]`, or
/// `urn:cascade:workflow:[APPLICATION/]NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// The activity's name, or the workflow's.
    pub name: Arc<str>,
    /// The version asked for; the newest if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// The region whose workers run it; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Arc<str>>,
    /// That it is a workflow, and how it is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Arc<Child>>,
}

/// How a Task runs a workflow: each attempt is an execution of its own, whose
/// id is [`ExecutionId::of_child`](crate::ExecutionId::of_child).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Child {
    /// The application that has the workflow; absent, the parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Arc<str>>,
    /// Whether the attempt ends as the child does. If not, it ends when the child
    /// has started, and gives `{execution_id}`.
    pub waits: bool,
    /// What becomes of a child that nobody waits for any more.
    pub on_close: ParentClose,
    /// That it is not asked for by a Task, but by a distributed Map, and for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
}

/// What becomes of a child when its parent gives its attempt up: because the
/// parent ends, the attempt takes too long, or its branch is not needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentClose {
    /// It is cancelled.
    Cancel,
    /// It goes on by itself.
    Abandon,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(child) = &self.child {
            f.write_str("urn:cascade:workflow:")?;
            if let Some(application) = &child.application {
                write!(f, "{application}/")?;
            }
            return f.write_str(&self.name);
        }
        write!(f, "urn:cascade:activity:{}", self.name)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        if let Some(region) = &self.region {
            write!(f, "@{region}")?;
        }
        Ok(())
    }
}

impl Program {
    /// The activities that it may run, those of compensations included.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.states.iter().flat_map(|state| {
            let (run, undo) = state.resources();
            let run = run.filter(|run| run.child.is_none());
            run.into_iter().chain(undo)
        })
    }

    /// The workflows that it may run as children.
    pub fn children(&self) -> impl Iterator<Item = &Resource> {
        self.states.iter().filter_map(|state| match &state.kind {
            StateKind::Task(task) => Some(&task.resource).filter(|run| run.child.is_some()),
            _ => None,
        })
    }

    /// The program that runs chunks of the Map state at a path: the same states, of which it
    /// runs this one, for the items that it is started with.
    pub fn chunk(&self, path: &str) -> Option<Self> {
        let spreads = |kind: &StateKind| match kind {
            StateKind::Map(map) => map.spread.is_some(),
            StateKind::Asl(state) => state.is_map(),
            _ => false,
        };
        let mut ids = (0..).map(StateId).zip(&self.states);
        let (id, state) =
            ids.find(|(id, state)| spreads(&state.kind) && plan::path(self, *id) == path)?;
        let (workflow, around) = self.origin();
        let around = format!("{around}{}", path.strip_suffix(&*state.name)?);
        let chunk = ChunkOf {
            workflow: workflow.to_owned(),
            around,
        };
        let root = Scope {
            name: state.name.to_string(),
            start: id,
            owner: None,
        };
        let mut program = self.clone();
        program.name = format!("{}{SEPARATOR}{path}", self.name);
        program.scopes[ScopeId::ROOT.0 as usize] = root;
        program.states[id.0 as usize].scope = ScopeId::ROOT;
        program.timeout_ms = None;
        program.input = None;
        program.output = None;
        // Chunks are placed by their ids, and begin as their Map lets them.
        program.shard_key = None;
        program.attributes.clear();
        program.start_rate_limit = None;
        program.chunk = Some(Box::new(chunk));
        Some(program)
    }

    /// The workflow that it is or runs chunks of, and what its paths lack then.
    fn origin(&self) -> (&str, &str) {
        match &self.chunk {
            Some(chunk) => (&chunk.workflow, &chunk.around),
            None => (&self.name, ""),
        }
    }

    /// What a distributed Map asks the shell for.
    pub(crate) fn chunk_resource(&self, map: StateId, work: Work) -> Resource {
        let path = plan::path(self, map);
        // A Map within the chunks of another is found from the workflow, too.
        let (workflow, around) = self.origin();
        Resource {
            name: format!("{workflow}{SEPARATOR}{around}{path}").into(),
            version: None,
            region: None,
            child: Some(Arc::new(Child {
                application: None,
                waits: true,
                on_close: ParentClose::Cancel,
                work: Some(work),
            })),
        }
    }

    /// The state with this index.
    pub fn state(&self, id: StateId) -> &State {
        &self.states[id.0 as usize]
    }

    /// Whether it is a definition in the Amazon States Language: then frames have
    /// data of their own and the context holds only what is under `workflow`.
    pub fn is_asl(&self) -> bool {
        let first = self.states.first();
        first.is_some_and(|state| matches!(state.kind, StateKind::Asl(_)))
    }

    /// The scope with this index.
    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.0 as usize]
    }
}
