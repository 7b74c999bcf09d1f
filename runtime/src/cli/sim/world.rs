//! One run: an engine of one execution, its workers and its disk, under virtual time.
//!
//! What the real engine promises holds here, and no more than that: events are gathered
//! and committed together; a pure activity starts at once, any other when its cause is durable; an
//! outcome is taken if it is awaited. A crash drops all but what was committed; then the
//! history is read back and replayed, what is outstanding is attempted again, and whoever
//! started the execution or told it something without an answer does so again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cascade_cdl::program::{Program, State, StateKind};
use cascade_cdl::{
    ActivityFailure, ActivityTask, Command, Event, EventKind, Execution, ExecutionId, Json,
    Receipt, TaskId, Timestamp, apply, apply_traced, replay,
};

use super::super::error::Error;
use super::super::local::{self, Caller};
use super::super::outside::{Outside, awaited};
use super::super::virtual_time::started;
use super::activities::{Activities, Given, Values};
use super::faults::{Dice, Fault, Faults, Injected, Injector, Point, Prospect};
use super::story::{Story, short};
use crate::store::{decode_events, encode_events};

/// When every run starts: 2026-01-31T09:30:00.000Z.
const START: Timestamp = Timestamp(1_769_851_800_000);

/// How long a commit takes: a sync of a common disk.
const COMMIT_MS: u64 = 5;

/// How long the engine keeps events that nothing waits for, as the real one does.
const DEFER_MS: u64 = 100;

/// How long a server is away after a crash.
const RESTART_MS: u64 = 1_000;

/// How long attempts take. Few values, so that runs meet the same moments, and what
/// activities give for them is remembered.
const LATENCIES_MS: [u64; 4] = [5, 10, 20, 40];

/// Events after which an execution is said not to end: a history with as many items and
/// rounds as are worth simulating has fewer. The machine's own limit is higher.
pub(super) const MAX_EVENTS: u64 = 10_000;

/// What all runs have in common.
pub(super) struct Scene {
    pub(super) application: String,
    pub(super) program: Arc<Program>,
    /// The same without outputs of its own: what it completes with is its context.
    pub(super) plain: Program,
    pub(super) inputs: Vec<Json>,
    pub(super) outside: Outside,
    /// Names of the errors that are caught where a state is.
    caught: BTreeMap<Arc<str>, Vec<String>>,
}

/// What came of a run.
pub(super) struct Run {
    pub(super) input: Json,
    pub(super) end: End,
    /// What is wrong with the engine or the machine, if anything.
    pub(super) broken: Option<String>,
    pub(super) execution: Execution,
    /// The history as it stands on the disk.
    pub(super) disk: String,
    /// Number of events on it.
    pub(super) durable: u64,
    pub(super) injected: Vec<Injected>,
    /// Attempts of each activity that have run to a good end, whoever heard of it.
    pub(super) calls: BTreeMap<Arc<str>, u64>,
    /// The idempotency keys among them.
    pub(super) effects: BTreeMap<Arc<str>, BTreeSet<u64>>,
    pub(super) values: Values,
    pub(super) lasted_ms: u64,
    pub(super) story: Story,
    pub(super) now: Timestamp,
}

/// Where a run stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The execution ended.
    Closed,
    /// It waits for these, which nobody sends.
    Waiting(Vec<String>),
    /// It goes on and on.
    Endless,
}

/// The execution of every run: activities see its id, and are asked the same in all runs.
pub(super) fn execution_id() -> ExecutionId {
    ExecutionId::from_key(&local::tenant(), "simulation")
}

impl Scene {
    pub(super) fn new(
        application: String,
        program: Arc<Program>,
        inputs: Vec<Json>,
        outside: Outside,
    ) -> Self {
        let caught = caught(&program);
        Self {
            application,
            plain: without_outputs(&program),
            program,
            inputs,
            outside,
            caught,
        }
    }

    /// Plays one run to its end.
    pub(super) async fn play(
        &self,
        activities: &mut Activities,
        seed: u64,
        faults: Faults<'_>,
        told: bool,
    ) -> Result<Run, Error> {
        World::new(self, activities, seed, faults, told).run().await
    }
}

fn without_outputs(program: &Program) -> Program {
    let mut plain = program.clone();
    plain.output = None;
    for state in &mut plain.states {
        if let StateKind::Succeed { output } = &mut state.kind {
            *output = None;
        }
    }
    plain
}

/// The names that the `catch` of each state and of those around it has, but for those
/// that stand for any error.
fn caught(program: &Program) -> BTreeMap<Arc<str>, Vec<String>> {
    let mut all: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
    for state in &program.states {
        let around = std::iter::successors(Some(state), |inner| {
            program.scope(inner.scope).owner.map(|id| program.state(id))
        });
        let names = all.entry(state.name.clone()).or_default();
        for name in around.flat_map(own_catches) {
            if name != "*" && !name.starts_with("States.") && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    all
}

fn own_catches(state: &State) -> Vec<String> {
    if let StateKind::Asl(asl) = &state.kind {
        return asl.caught().map(str::to_owned).collect();
    }
    let catches = state.catches().iter();
    catches.flat_map(|catch| catch.errors.clone()).collect()
}

/// What is bound to happen.
enum Happening {
    /// An attempt gets to its end.
    Ran(Box<Attempt>),
    /// An outcome reaches the engine.
    Arrives(Box<Report>),
    /// The disk has a commit.
    Committed,
    /// Events have been kept back for long enough.
    Deferred,
    /// The server is back.
    Restarted,
}

struct Attempt {
    task: ActivityTask,
    fault: Option<Fault>,
}

#[derive(Clone)]
struct Report {
    task: ActivityTask,
    result: Result<Json, ActivityFailure>,
    receipt: Option<Receipt>,
}

/// What waits until its cause is durable.
enum Effect {
    Dispatch(ActivityTask),
    Cancel(TaskId, u32),
}

/// What is being written.
struct InFlight {
    number: u32,
    blob: String,
    version: u64,
    effects: Vec<Effect>,
    outside: Outside,
    crash: Option<Fault>,
}

/// Which attempts have been sent, so that each has a name that outlasts crashes.
#[derive(Default)]
struct Sent {
    /// Tasks of a state, in the order in which they came up.
    entries: BTreeMap<Arc<str>, Vec<TaskId>>,
    dispatches: BTreeMap<(Arc<str>, u32, u32), u32>,
}

struct World<'a> {
    scene: &'a Scene,
    activities: &'a mut Activities,
    dice: Dice,
    injector: Injector<'a>,
    input: Json,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    queued: u64,
    sent: Sent,
    // What a crash drops.
    up: bool,
    execution: Execution,
    outside: Outside,
    events: Vec<Event>,
    held: Vec<Effect>,
    in_flight: Option<InFlight>,
    urgent: bool,
    deferring: bool,
    // What it does not.
    disk: String,
    durable: u64,
    outside_then: Outside,
    commits: u32,
    values: Values,
    calls: BTreeMap<Arc<str>, u64>,
    effects: BTreeMap<Arc<str>, BTreeSet<u64>>,
    broken: Option<String>,
    story: Story,
}

impl<'a> World<'a> {
    fn new(
        scene: &'a Scene,
        activities: &'a mut Activities,
        seed: u64,
        faults: Faults<'a>,
        told: bool,
    ) -> Self {
        let index = seed % (scene.inputs.len() as u64).max(1);
        let index = usize::try_from(index).expect("an index of a list");
        let dice = Dice { seed };
        Self {
            scene,
            activities,
            dice,
            injector: Injector::new(dice, faults),
            input: scene.inputs[index].clone(),
            now: START,
            queue: BTreeMap::new(),
            queued: 0,
            sent: Sent::default(),
            up: true,
            execution: Execution::new(execution_id(), local::tenant()),
            outside: scene.outside.clone(),
            events: Vec::new(),
            held: Vec::new(),
            in_flight: None,
            urgent: false,
            deferring: false,
            disk: String::new(),
            durable: 0,
            outside_then: scene.outside.clone(),
            commits: 0,
            values: Values::new(),
            calls: BTreeMap::new(),
            effects: BTreeMap::new(),
            broken: None,
            story: Story::new(START, told),
        }
    }

    async fn run(mut self) -> Result<Run, Error> {
        self.start();
        let end = loop {
            if self.up {
                self.settle()?;
            }
            let resting = self.up && self.events.is_empty() && self.in_flight.is_none();
            if self.broken.is_some() || (resting && self.execution.is_closed()) {
                break End::Closed;
            }
            if self.execution.version >= MAX_EVENTS {
                break End::Endless;
            }
            if !self.step().await? {
                let awaited = awaited(&self.scene.program, &self.execution);
                let awaited: Vec<_> = awaited.iter().map(ToString::to_string).collect();
                if awaited.is_empty() {
                    self.breaks("the execution waits for nothing".to_owned());
                }
                break End::Waiting(awaited);
            }
        };
        if end == End::Closed && self.broken.is_none() {
            self.check_leftovers();
        }
        let since = self.execution.updated_at.since(START);
        Ok(Run {
            input: self.input,
            end,
            broken: self.broken,
            execution: self.execution,
            disk: self.disk,
            durable: self.durable,
            injected: self.injector.injected,
            calls: self.calls,
            effects: self.effects,
            values: self.values,
            lasted_ms: since,
            story: self.story,
            now: self.now,
        })
    }

    fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn start(&mut self) {
        // Whoever starts it waits for the answer.
        self.urgent = true;
        let input = self.input.clone();
        self.story.tell(self.now, || {
            format!("started with {}", short(input.as_str()))
        });
        let (id, input) = (self.execution.id, self.input.clone());
        match started(&self.scene.program, id, self.now, input, None) {
            Ok(started) => self.apply(started),
            Err(no_key) => self.breaks(format!("nothing can be started: {no_key}")),
        }
    }

    /// Lets happen what is next. An answer comes before a timer of the same moment.
    async fn step(&mut self) -> Result<bool, Error> {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self.execution.wake_at().filter(|_| self.up);
        let queue_first = match (queued, timer) {
            (Some(queued), Some(timer)) => queued <= timer,
            (queued, _) => queued.is_some(),
        };
        if queue_first && let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.happen(happening).await?;
            return Ok(true);
        }
        let Some(at) = timer else { return Ok(false) };
        self.now = self.now.max(at);
        if let Some(timer) = self.execution.due_timers(self.now).first() {
            self.apply(EventKind::TimerFired { timer: *timer });
        }
        Ok(true)
    }

    async fn happen(&mut self, happening: Happening) -> Result<(), Error> {
        match happening {
            Happening::Ran(attempt) => self.ran(*attempt).await?,
            Happening::Arrives(report) => self.arrives(*report),
            Happening::Committed => self.committed(),
            Happening::Restarted => self.restart(),
            Happening::Deferred => {
                self.deferring = false;
                self.urgent |= !self.events.is_empty();
            }
        }
        Ok(())
    }

    fn queue(&mut self, after_ms: u64, happening: Happening) {
        self.queued += 1;
        let at = self.now.plus(after_ms);
        self.queue.insert((at, self.queued), happening);
    }

    /// Applies an event of this moment, and does or holds back what follows.
    fn apply(&mut self, kind: EventKind) {
        let event = Event {
            seq: self.execution.version + 1,
            at: self.now,
            kind,
        };
        let empty = Execution::new(self.execution.id, self.execution.tenant.clone());
        let execution = std::mem::replace(&mut self.execution, empty);
        let program = &self.scene.program;
        let applied = if self.story.is_told() {
            let (story, now) = (&mut self.story, self.now);
            let mut observe = |record| story.record(now, &record);
            apply_traced(program, execution, &event, &mut observe)
        } else {
            apply(program, execution, &event)
        };
        let transition = match applied {
            Ok(transition) => transition,
            Err(error) => return self.breaks(format!("the machine refused its event: {error}")),
        };
        self.execution = transition.execution;
        self.events.push(event);
        for command in transition.commands {
            match command {
                Command::ScheduleActivity(task) => {
                    if self.activities.is_pure(&task.resource) {
                        self.dispatch(task);
                    } else {
                        self.urgent = true;
                        self.held.push(Effect::Dispatch(task));
                    }
                }
                Command::CancelActivity { task, attempt } => self.take_back(task, attempt),
            }
        }
    }

    /// An attempt that has not left is dropped; one that has is cancelled when that is
    /// durable.
    fn take_back(&mut self, task: TaskId, attempt: u32) {
        let before = self.held.len();
        self.held.retain(|effect| match effect {
            Effect::Dispatch(held) => (held.task, held.attempt) != (task, attempt),
            Effect::Cancel(..) => true,
        });
        if self.held.len() == before {
            self.held.push(Effect::Cancel(task, attempt));
        }
    }

    /// Lets in what comes from outside, and begins a commit if it is time for one.
    fn settle(&mut self) -> Result<(), Error> {
        while self.broken.is_none() && !self.execution.is_closed() {
            let arrival = self
                .outside
                .arrival(&self.scene.program, &self.execution, true)?;
            let Some(arrival) = arrival else { break };
            self.urgent = true;
            self.apply(arrival);
        }
        if self.events.is_empty() || self.in_flight.is_some() {
            return Ok(());
        }
        if self.urgent || self.execution.is_closed() || self.execution.is_idle() {
            self.begin_commit();
        } else if !self.deferring {
            self.deferring = true;
            self.queue(DEFER_MS, Happening::Deferred);
        }
        Ok(())
    }

    fn begin_commit(&mut self) {
        self.commits += 1;
        let point = Point::Commit {
            number: self.commits,
        };
        let crash = self.injector.commit(&point);
        self.urgent = false;
        self.in_flight = Some(InFlight {
            number: self.commits,
            blob: encode_events(&std::mem::take(&mut self.events)),
            version: self.execution.version,
            effects: std::mem::take(&mut self.held),
            outside: self.outside.clone(),
            crash,
        });
        self.queue(COMMIT_MS, Happening::Committed);
    }

    fn committed(&mut self) {
        let Some(commit) = self.in_flight.take() else {
            return;
        };
        let durable = !matches!(commit.crash, Some(Fault::Crash { durable: false }));
        let first = self.durable + 1;
        if durable {
            self.disk.push_str(&commit.blob);
            self.durable = commit.version;
            self.outside_then = commit.outside;
        }
        if let Some(fault) = commit.crash {
            let (number, last) = (commit.number, commit.version);
            self.story.tell(self.now, || {
                format!("commit {number} (events {first} to {last}): fault: {fault}")
            });
            return self.crash();
        }
        for effect in commit.effects {
            match effect {
                Effect::Dispatch(task) => self.dispatch(task),
                Effect::Cancel(task, attempt) => self.queue.retain(|_, happening| {
                    !matches!(happening, Happening::Ran(ran)
                        if (ran.task.task, ran.task.attempt) == (task, attempt))
                }),
            }
        }
    }

    fn crash(&mut self) {
        self.up = false;
        self.queue.clear();
        self.events.clear();
        self.held.clear();
        self.in_flight = None;
        self.urgent = false;
        self.deferring = false;
        self.queue(RESTART_MS, Happening::Restarted);
    }

    /// Comes back with what is on the disk.
    fn restart(&mut self) {
        self.up = true;
        self.outside = self.outside_then.clone();
        let (id, tenant) = (self.execution.id, self.execution.tenant.clone());
        if self.durable == 0 {
            self.story.tell(self.now, || {
                "the server is back and knows of no execution".to_owned()
            });
            self.execution = Execution::new(id, tenant);
            return self.start();
        }
        let events = match decode_events(self.disk.as_bytes(), Some(1), self.durable) {
            Ok(events) => events,
            Err(error) => return self.breaks(format!("the history does not read: {error}")),
        };
        match replay(&self.scene.program, id, tenant, &events) {
            Ok((execution, commands)) => {
                self.execution = execution;
                let (count, again) = (events.len(), commands.len());
                self.story.tell(self.now, || {
                    format!("the server is back: {count} events replayed, {again} attempts again")
                });
                for command in commands {
                    if let Command::ScheduleActivity(task) = command {
                        self.dispatch(task);
                    }
                }
            }
            Err(error) => self.breaks(format!("the history does not replay: {error}")),
        }
    }

    /// Sends an attempt to a worker.
    fn dispatch(&mut self, task: ActivityTask) {
        let point = self.sent.point(&task);
        let caught = self.scene.caught.get(&task.state);
        let prospect = Prospect {
            caught: caught.map_or(&[], Vec::as_slice),
            timeout_ms: task.timeout_ms,
        };
        let fault = self.injector.attempt(&point, &prospect);
        if let Some(fault) = &fault {
            self.story
                .tell(self.now, || format!("{}: fault: {fault}", name(&task)));
        }
        let latency = self.dice.pick(&LATENCIES_MS, "latency", Some(&point));
        let limit = self.activities.limit_ms(&task.resource);
        match &fault {
            Some(Fault::Error {
                after_effect: false,
                error,
                retryable,
            }) => {
                let report = failed(task, error, *retryable);
                self.queue(latency, Happening::Arrives(Box::new(report)));
            }
            Some(Fault::Timeout { after_effect }) => {
                // The sandbox gives up in the end, though a `timeout` of the state may be
                // shorter.
                let message = format!("the attempt ran for more than {limit} ms");
                let report = Report {
                    result: Err(failure("TimeoutError", None, &message)),
                    receipt: None,
                    task: task.clone(),
                };
                if task.timeout_ms.is_none_or(|timeout| timeout > limit) {
                    self.queue(limit, Happening::Arrives(Box::new(report)));
                }
                if *after_effect {
                    let attempt = Attempt { task, fault };
                    self.queue(latency, Happening::Ran(Box::new(attempt)));
                }
            }
            _ => {
                let attempt = Attempt { task, fault };
                self.queue(latency, Happening::Ran(Box::new(attempt)));
            }
        }
    }

    /// Runs the activity of an attempt, and sends its outcome on its way.
    async fn ran(&mut self, attempt: Attempt) -> Result<(), Error> {
        let Attempt { task, fault } = attempt;
        let caller = Caller {
            application: &self.scene.application,
            workflow: &self.scene.program.name,
            execution: self.execution.id,
        };
        let given = self.activities.run(&caller, &task, &mut self.values);
        let Given { result, receipt } = given.await?;
        if result.is_ok() {
            let activity = task.resource.name.clone();
            *self.calls.entry(activity.clone()).or_default() += 1;
            let keys = self.effects.entry(activity).or_default();
            keys.insert(task.task.0);
        }
        let report = Report {
            task,
            result,
            receipt: Some(receipt).filter(|receipt| *receipt != Receipt::default()),
        };
        match fault {
            None | Some(Fault::Crash { .. }) => self.arrives(report),
            Some(Fault::Timeout { .. }) => {}
            Some(Fault::Slow { by_ms }) => {
                self.queue(by_ms, Happening::Arrives(Box::new(report)));
            }
            Some(Fault::Duplicate { after_ms }) => {
                self.queue(after_ms, Happening::Arrives(Box::new(report.clone())));
                self.arrives(report);
            }
            Some(Fault::Error {
                error, retryable, ..
            }) => self.arrives(if report.result.is_ok() {
                failed(report.task, &error, retryable)
            } else {
                report
            }),
        }
        Ok(())
    }

    /// Takes an outcome if it is awaited, as a shard does.
    fn arrives(&mut self, report: Report) {
        let Report {
            task,
            result,
            receipt,
        } = report;
        let heard = self
            .execution
            .awaits_since(task.task, task.attempt, task.scheduled_at);
        self.story.tell(self.now, || {
            let told = match &result {
                Ok(output) => format!("answers {}", short(output.as_str())),
                Err(failure) => {
                    format!("fails with {}: {}", failure.error, short(&failure.message))
                }
            };
            let nobody = if heard { "" } else { "; nobody waits for it" };
            format!("{} {told}{nobody}", name(&task))
        });
        if !heard {
            return;
        }
        let ActivityTask { task, attempt, .. } = task;
        self.apply(match result {
            Ok(output) => EventKind::ActivityCompleted {
                task,
                attempt,
                output,
                receipt: receipt.unwrap_or_default(),
            },
            Err(failure) => EventKind::ActivityFailed {
                task,
                attempt,
                failure,
                receipt,
            },
        });
    }

    /// Nothing may be under way for an execution that has ended.
    fn check_leftovers(&mut self) {
        let mut left = Vec::new();
        let tasks = self.execution.pending_tasks(&self.scene.program);
        left.extend(tasks.iter().map(name));
        let running = self.queue.values().filter_map(|happening| match happening {
            Happening::Ran(attempt) => Some(name(&attempt.task)),
            _ => None,
        });
        left.extend(running);
        if !self.execution.timers.is_empty() {
            left.push(format!("{} timers", self.execution.timers.len()));
        }
        if !left.is_empty() {
            let left = left.join(", ");
            self.breaks(format!(
                "the execution has ended, but not what it began: {left}"
            ));
        }
    }
}

impl Sent {
    /// The next sending of an attempt.
    fn point(&mut self, task: &ActivityTask) -> Point {
        let entries = self.entries.entry(task.state.clone()).or_default();
        let known = entries.iter().position(|known| *known == task.task);
        let index = known.unwrap_or_else(|| {
            entries.push(task.task);
            entries.len() - 1
        });
        let entry = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let sent = (task.state.clone(), entry, task.attempt);
        let dispatch = self.dispatches.entry(sent).or_default();
        *dispatch += 1;
        Point::Attempt {
            state: task.state.clone(),
            entry,
            attempt: task.attempt,
            dispatch: *dispatch,
        }
    }
}

fn name(task: &ActivityTask) -> String {
    let ActivityTask {
        attempt,
        resource,
        state,
        ..
    } = task;
    format!("{state}: attempt {attempt} of {}", resource.name)
}

fn failed(task: ActivityTask, error: &str, retryable: Option<bool>) -> Report {
    Report {
        result: Err(failure(error, retryable, "a fault of the simulation")),
        receipt: None,
        task,
    }
}

fn failure(error: &str, retryable: Option<bool>, message: &str) -> ActivityFailure {
    ActivityFailure {
        error: error.to_owned(),
        message: message.to_owned(),
        retryable,
        details: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_caught_around_a_state_is_known_but_not_what_catches_all() {
        let cdl = "states:
  - name: Checks
    type: Parallel
    branches:
      - name: one
        states:
          - name: A
            type: Task
            resource: urn:cascade:activity:a
            catch: [{ error: [Declined, Late], next: B }]
            end: true
          - { name: B, type: Pass, end: true }
    catch: [{ error: [Late, Gone], next: End }, { error: '*', next: End }]
    next: End
  - { name: End, type: Succeed }
";
        let parsed = cascade_cdl::parse(&cascade_cdl::Source {
            name: "flow.yaml",
            bytes: cdl.as_bytes(),
        });
        let application = parsed.application.expect("a workflow");
        let program = application.workflows.values().next().expect("one");
        let caught = caught(program);
        assert_eq!(caught["A"], ["Declined", "Late", "Gone"]);
        assert_eq!(caught["B"], ["Late", "Gone"]);
        assert_eq!(caught["Checks"], ["Late", "Gone"]);
        assert!(caught["End"].is_empty());
    }
}
