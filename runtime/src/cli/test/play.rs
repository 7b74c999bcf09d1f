//! One test: an execution from its start to its end, with the activities that are
//! mocked and those that are real.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cascade_cdl::coverage::Trace;
use cascade_cdl::program::StateId;
use cascade_cdl::schema::Unfit;
use cascade_cdl::{
    ActivityFailure, ActivityTask, Callback, EventKind, Execution, ExecutionId, Json, Place,
    Record, Status, TaskId, Timestamp, errors,
};
use serde_json::Value;

use super::super::events;
use super::super::local::{Caller, Local};
use super::super::object_files::ObjectFiles;
use super::super::output::plain;
use super::super::outside::{Awaited, awaited, check_input};
use super::super::virtual_time::VirtualTime;
use super::file::{Reply, Test};
use super::load::Suite;
use super::mocks::{Dealt, Mocks};
use crate::sandbox::{Cancel, LogLevel, LogSink};

/// When tests start that do not say: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);

/// Every test has an execution of the same id: what is made from it, as the pauses
/// between attempts and `uuid`, is the same each time.
const ID: ExecutionId = ExecutionId(uuid::Uuid::from_u128(
    0x0000_0000_0000_7000_8000_0000_0000_0001,
));

/// Who answers.
const BY: &str = "the test";

/// Lines of log that are kept of a test, for when it fails.
const MAX_LOG: usize = 200;

/// How a test went.
pub(super) struct Played {
    pub status: Status,
    /// What it waits for, if it did not end.
    pub awaited: Vec<String>,
    pub visits: Vec<Visit>,
    pub calls: Vec<Call>,
    pub took: Duration,
    /// What is wrong with the test, whatever it expects.
    pub faults: Vec<String>,
    pub trace: Trace,
    /// The history with what followed, and what real activities logged.
    pub history: Vec<String>,
    pub log: Vec<String>,
}

/// A state that was entered.
pub(super) struct Visit {
    pub state: StateId,
    /// Its path, with the indexes of iterations.
    pub place: String,
}

/// An attempt that was made.
pub(super) struct Call {
    /// The state that asked for it; `None` for one that undoes it.
    pub state: Option<StateId>,
    pub activity: Arc<str>,
    pub input: Json,
}

/// Runs a test. Its history is kept only if it is to be shown.
pub(super) async fn play(
    suite: &Suite,
    test: &Test,
    local: Option<&Local>,
    objects: &ObjectFiles,
    keeps_history: bool,
) -> Played {
    let mut play = Play::new(suite, test, local, objects);
    play.history = keeps_history.then(Vec::new);
    let input = test
        .input
        .clone()
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let input = Json::from_value(&input);
    if let Err(refused) = check_input(&suite.program, &input) {
        play.faults.push(refused.to_string());
        return play.finish();
    }
    let mut next = match play.time.begin(input) {
        Ok(started) => Some(started),
        Err(no_key) => {
            let name = &suite.program.name;
            play.faults.push(format!("the input of `{name}`: {no_key}"));
            return play.finish();
        }
    };
    while let Some(event) = next {
        let Some(asked) = play.apply(event) else {
            break;
        };
        for task in asked {
            play.attempt(task).await;
        }
        play.outside();
        next = play.next();
    }
    play.finish()
}

/// Whether an attempt of this state's activity is mocked, known by names as these.
pub(super) fn names<'n>(
    suite: &'n Suite,
    state: StateId,
    activity: &'n str,
    undoes: bool,
) -> Vec<&'n str> {
    let mut names = Vec::new();
    // A state stands for what it runs, not for what undoes that.
    if !undoes {
        names.push(suite.state(state));
        names.push(&*suite.program.state(state).name);
    }
    names.push(activity);
    names
}

/// Something from outside on its way.
struct Arrival {
    at: Timestamp,
    event: EventKind,
}

struct Play<'a> {
    suite: &'a Suite,
    local: Option<&'a Local>,
    objects: &'a ObjectFiles,
    time: VirtualTime,
    mocks: Mocks<'a>,
    answers: Mocks<'a>,
    arrivals: Vec<Arrival>,
    /// What somebody was asked for already.
    asked: BTreeSet<(TaskId, u32)>,
    /// Where attempts come from.
    places: BTreeMap<(TaskId, u32), Place>,
    start: Timestamp,
    visits: Vec<Visit>,
    calls: Vec<Call>,
    faults: Vec<String>,
    trace: Trace,
    history: Option<Vec<String>>,
    log: Arc<Log>,
}

impl<'a> Play<'a> {
    fn new(
        suite: &'a Suite,
        test: &'a Test,
        local: Option<&'a Local>,
        objects: &'a ObjectFiles,
    ) -> Self {
        let start = test.at.unwrap_or(START);
        let after = |after: Option<Duration>| start.plus(millis(after));
        let signals = test.signals.iter().map(|signal| Arrival {
            at: after(signal.after),
            event: EventKind::SignalReceived {
                name: signal.name.clone(),
                payload: Json::from_value(signal.payload.as_ref().unwrap_or(&Value::Null)),
                id: None,
            },
        });
        let cancel = test.cancel.iter().map(|cancel| Arrival {
            at: after(cancel.after),
            event: EventKind::CancelRequested {
                reason: cancel.reason.clone(),
            },
        });
        Self {
            suite,
            local,
            objects,
            time: VirtualTime::new(Arc::clone(&suite.program), ID, start),
            mocks: Mocks::new(vec![&test.mocks, &suite.content.mocks]),
            answers: Mocks::new(vec![&test.answers]),
            arrivals: signals.chain(cancel).collect(),
            asked: BTreeSet::new(),
            places: BTreeMap::new(),
            start,
            visits: Vec::new(),
            calls: Vec::new(),
            faults: Vec::new(),
            trace: Trace::default(),
            history: None,
            log: Arc::default(),
        }
    }

    /// Lets an event happen; gives the attempts that it asks for.
    fn apply(&mut self, event: EventKind) -> Option<Vec<ActivityTask>> {
        let mut records = Vec::new();
        let applied = self.time.apply(event, &mut |record| records.push(record));
        let (event, asked) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                self.faults
                    .push(format!("the machine refused its own event: {error}"));
                return None;
            }
        };
        for record in &records {
            self.trace.observe(&self.suite.program, record);
            match record {
                Record::StateEntered { place } => self.visits.push(Visit {
                    state: place.id,
                    place: full(place),
                }),
                Record::ActivityScheduled {
                    place,
                    task,
                    attempt,
                    ..
                } => {
                    self.places.insert((*task, *attempt), place.clone());
                }
                _ => {}
            }
        }
        if let Some(history) = &mut self.history {
            history.push(events::step_text(&event, &records, self.start));
        }
        Some(asked)
    }

    /// Makes an attempt. How it ends is known at once, and told when it is time.
    async fn attempt(&mut self, task: ActivityTask) {
        let undoes = self.time.execution().is_compensating();
        let place = self.places.remove(&(task.task, task.attempt));
        let state = place.map(|place| place.id).filter(|_| !undoes);
        self.calls.push(Call {
            state,
            activity: Arc::clone(&task.resource.name),
            input: task.input.clone(),
        });
        if let Some(answer) = self.objects.answer(&task) {
            return self.end_at_once(task, answer);
        }
        let activity = Arc::clone(&task.resource.name);
        let names = match state {
            Some(state) => names(self.suite, state, &activity, undoes),
            None => vec![&*activity],
        };
        let input = task.input.to_value();
        match self.mocks.deal(&names, &input) {
            Dealt::Reply(reply) => self.reply(task, reply),
            Dealt::NoneFits(name) => {
                let text = format!("no reply of the mock `{name}` is for this input: {input}");
                self.end_at_once(task, Err(failure(text.clone())));
                self.fault(text);
            }
            Dealt::Real => self.run(task).await,
        }
    }

    fn reply(&mut self, task: ActivityTask, reply: &Reply) {
        if reply.hangs {
            // Who says nothing for so long is given up, as in the sandbox.
            if let Some(limit) = task.heartbeat_ms {
                let mut failure = failure(format!("no heartbeat for {limit} ms"));
                errors::TIMEOUT.clone_into(&mut failure.error);
                failure.retryable = None;
                self.time.end(task, limit, Err(failure));
            }
            return;
        }
        let result = match &reply.fails {
            Some(fails) => Err(ActivityFailure {
                error: fails.error.clone(),
                message: fails.message.clone(),
                retryable: fails.retryable,
                details: fails.details.as_ref().map(Json::from_value),
            }),
            None => Ok(Json::from_value(
                reply.returns.as_ref().unwrap_or(&Value::Null),
            )),
        };
        self.time.end(task, millis(reply.after), result);
    }

    /// Runs the activity in the sandbox, which takes no time here.
    async fn run(&mut self, task: ActivityTask) {
        let local = self.local.filter(|local| local.has(&task.resource));
        let Some(local) = local else {
            let name = &task.resource.name;
            let text = if task.resource.child.is_some() {
                format!("the workflow `{name}` is to be mocked: tests run one execution")
            } else {
                let folder = self.suite.activities.display();
                format!("the activity `{name}` is not mocked, and not in {folder}")
            };
            self.end_at_once(task, Err(failure(text.clone())));
            return self.fault(text);
        };
        let caller = Caller {
            application: &self.suite.application,
            workflow: &self.suite.program.name,
            execution: ID,
        };
        let log = Arc::clone(&self.log);
        let log = Arc::new(Named {
            state: Arc::clone(&task.state),
            log,
        });
        let outcome = local
            .run_logging(&caller, &task, Cancel::default(), log)
            .await;
        self.end_at_once(task, outcome.result);
    }

    fn end_at_once(&mut self, task: ActivityTask, result: Result<Json, ActivityFailure>) {
        self.time.end(task, 0, result);
    }

    fn fault(&mut self, text: String) {
        if !self.faults.contains(&text) {
            self.faults.push(text);
        }
    }

    /// Has whoever is asked for something newly answer it.
    fn outside(&mut self) {
        let program = &self.suite.program;
        let execution = self.time.execution();
        let mut found = Vec::new();
        for (frame, asking, human) in execution.asked(program) {
            if self.asked.insert((asking.task, 0)) {
                let answer = Asked::Person(asking.task, human.schema.clone());
                found.push((
                    execution.frames[&frame].state,
                    asking.input.to_value(),
                    answer,
                ));
            }
        }
        for (frame, token) in execution.called() {
            if self.asked.insert((token.task, token.attempt)) {
                let answer = Asked::Token(token.task, token.attempt);
                found.push((execution.frames[&frame].state, Value::Null, answer));
            }
        }
        for (state, input, asked) in found {
            let names = [
                self.suite.state(state),
                &*self.suite.program.state(state).name,
            ];
            match self.answers.deal(&names, &input) {
                Dealt::Reply(reply) if reply.hangs => {}
                Dealt::Reply(reply) => self.answer(names[0], &asked, reply),
                // Then nobody answers.
                Dealt::Real => {}
                Dealt::NoneFits(name) => {
                    self.fault(format!("no answer to `{name}` is for this input: {input}"));
                }
            }
        }
    }

    fn answer(&mut self, state: &str, asked: &Asked, reply: &Reply) {
        let output = reply.returns.as_ref().unwrap_or(&Value::Null);
        let event = match asked {
            Asked::Person(task, schema) => {
                if let Some(schema) = schema
                    && let Err(unfit) = schema.check(output)
                {
                    return self.fault(misfits(state, &unfit));
                }
                EventKind::HumanTaskCompleted {
                    task: *task,
                    output: Json::from_value(output),
                    by: BY.to_owned(),
                }
            }
            Asked::Token(task, attempt) => EventKind::CallbackReceived {
                task: *task,
                attempt: *attempt,
                callback: match &reply.fails {
                    Some(fails) => Callback::Failed {
                        error: fails.error.clone(),
                        cause: fails.message.clone(),
                    },
                    None => Callback::Succeeded {
                        output: Json::from_value(output),
                    },
                },
            },
        };
        let at = self.time.now().plus(millis(reply.after));
        self.arrivals.push(Arrival { at, event });
    }

    /// What happens next. What comes from outside goes before what happens by
    /// itself at the same moment.
    fn next(&mut self) -> Option<EventKind> {
        if self.time.execution().is_closed() {
            return None;
        }
        let arrivals = self.arrivals.iter().enumerate();
        let first = arrivals.map(|(index, arrival)| (arrival.at, index)).min();
        match (first, self.time.next_at()) {
            (Some((at, index)), next) if next.is_none_or(|next| at <= next) => {
                self.time.pass_until(at);
                Some(self.arrivals.remove(index).event)
            }
            _ => self.time.next(),
        }
    }

    fn finish(self) -> Played {
        let execution: &Execution = self.time.execution();
        let mut waits = Vec::new();
        if !execution.is_closed() {
            let outside = awaited(&self.suite.program, execution);
            waits.extend(outside.iter().map(waits_for));
            let hanging = execution.pending_tasks(&self.suite.program).into_iter();
            waits.extend(hanging.map(|task| {
                let (state, activity) = (task.state, task.resource.name);
                format!("state `{state}` waits for `{activity}`, which hangs, without a timeout")
            }));
        }
        let log = self.log.0.lock().unwrap_or_else(PoisonError::into_inner);
        Played {
            status: execution.status.clone(),
            awaited: waits,
            visits: self.visits,
            calls: self.calls,
            took: Duration::from_millis(self.time.now().since(self.start)),
            faults: self.faults,
            trace: self.trace,
            history: self.history.unwrap_or_default(),
            log: log.clone(),
        }
    }
}

/// Who is to answer.
enum Asked {
    Person(TaskId, Option<Arc<cascade_cdl::schema::Schema>>),
    Token(TaskId, u32),
}

fn waits_for(awaited: &Awaited) -> String {
    match awaited {
        Awaited::Signal { state, signal } => {
            format!("state `{state}` waits for a signal: `signals: [{{name: {signal}}}]`")
        }
        Awaited::Answer { state, .. } | Awaited::Outcome { state } => {
            format!("state `{state}` waits for an answer: `answers: {{{state}: {{returns: ...}}}}`")
        }
    }
}

fn misfits(state: &str, unfit: &Unfit) -> String {
    let told = match unfit {
        Unfit::TooMuch => String::new(),
        Unfit::Misfits(misfits) => {
            let told = misfits
                .iter()
                .map(|m| format!("; `{}`: {}", m.at, m.message));
            told.collect()
        }
    };
    format!("the answer to `{state}`: {unfit}{told}")
}

fn failure(message: String) -> ActivityFailure {
    ActivityFailure {
        error: "ActivityNotFound".to_owned(),
        message,
        retryable: Some(false),
        details: None,
    }
}

fn full(place: &Place) -> String {
    if place.path.is_empty() {
        place.state.to_string()
    } else {
        format!("{}/{}", place.path, place.state)
    }
}

fn millis(duration: Option<Duration>) -> u64 {
    let ms = duration.unwrap_or_default().as_millis();
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// What activities log.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

/// The log of the attempts of one state.
struct Named {
    state: Arc<str>,
    log: Arc<Log>,
}

impl LogSink for Named {
    fn line(&self, level: LogLevel, message: &str) {
        let mut lines = self.log.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX_LOG {
            let level = format!("{level:?}").to_lowercase();
            lines.push(format!("{level} [{}] {}", self.state, plain(message)));
        }
    }
}
