//! Runs the states of ASL definitions.
//!
//! What differs from CDL is where data is: there, results go into one context;
//! here, each frame has the input of the state that it is in, and variables. A
//! state's output is the input of the next one. Frames, timers, attempts,
//! joining and Map are the machine's own. `flow` moves data into a state and
//! out of it, `task` asks for activities, `callback` waits for what becomes of a
//! token, `iterate` makes items of data, and
//! `recover` is `Retry` and `Catch`.
//!
//! All of it is evaluated when it is needed, from the frame's data and the
//! event; nothing in between is kept.

use std::sync::Arc;

use serde_json::{Value, json};

use super::data::Output;
use super::limits::MAX_WAIT_MS;
use super::record::Record;
use super::walk::{Machine, Work};
use super::{ApplyError, CALLBACKS};
use crate::asl::fault::Fault;
use crate::asl::path::Path;
use crate::asl::program::{Amount, AmountSource, Data, Flow, Kind, Rule, State, Until, Words};
use crate::asl::random::Random;
use crate::asl::scope::{Scope, Variables, quote};
use crate::asl::time::parse_timestamp;
use crate::asl::{jsonata, names};
use crate::program::{Next, ScopeId, StateId, StateKind, Strategy};
use crate::{Failure, FrameId, Json, Step, TaskId, TaskToken, TimerKind, Timestamp};

mod callback;
mod flow;
mod iterate;
mod recover;
mod task;

pub(super) use iterate::{batch_lengths, in_batches};

/// Largest input and output of a state, as JSON text in bytes: AWS's limit.
pub(super) const MAX_STATE_BYTES: u64 = 262_144;

/// Most text of all variables that a frame assigns, in bytes: AWS's limit.
const MAX_VARIABLE_BYTES: u64 = 10 * 1024 * 1024;

/// Steps of paths and of JSONata for each one of CDL's. So an evaluation at its own bound
/// takes half of what an event may.
const STEPS_PER_STEP: u64 = 16;

impl<'a> Machine<'a> {
    /// Gives the root frame the execution's input.
    pub(super) fn begin_data(&mut self) -> Result<(), Failure> {
        let input = &self.execution.context["workflow"]["input"];
        let bytes = self.budget.measure(input)?;
        if bytes > MAX_STATE_BYTES {
            let message = format!("the input has {bytes} bytes; {MAX_STATE_BYTES} are allowed");
            return Err(Failure::new(names::DATA_LIMIT, message));
        }
        let data = Data::new(Arc::new(input.clone()), bytes);
        self.frame_mut(FrameId::ROOT).data = Some(Box::new(data));
        Ok(())
    }

    /// Enters a state for the first time.
    pub(super) fn enter_asl(&mut self, id: FrameId, state: &'a State) -> Result<(), Failure> {
        let (now, seq) = (self.now, self.execution.version);
        let data = self.data_mut(id);
        data.entered_at = now;
        data.entered_seq = seq;
        data.retries.clear();
        data.task = None;
        data.timeout_ms = None;
        data.heartbeat_ms = None;
        self.run_asl(id, state)
    }

    /// The end of the pause before another try.
    pub(super) fn retry_asl(&mut self, id: FrameId) -> Result<(), ApplyError> {
        let state = self.asl_of(id)?;
        match self.run_asl(id, state) {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(id, failure),
        }
    }

    fn run_asl(&mut self, id: FrameId, state: &'a State) -> Result<(), Failure> {
        match &state.kind {
            Kind::Task(task) => self.run_task(id, state, task),
            Kind::Pass { .. } | Kind::Succeed => {
                self.work.push(Work::Leave(id, Output::Null));
                Ok(())
            }
            Kind::Choice { rules, default } => self.run_choice(id, state, rules, *default),
            Kind::Wait(until) => self.run_wait(id, state, until),
            Kind::Fail { error, cause } => {
                Err(self.asl_fail(id, state, error.as_ref(), cause.as_ref()))
            }
            Kind::Parallel { branches } => self.run_parallel(id, state, branches),
            Kind::Map(map) => self.run_map(id, state, map),
        }
    }

    fn run_parallel(
        &mut self,
        id: FrameId,
        state: &'a State,
        branches: &'a [ScopeId],
    ) -> Result<(), Failure> {
        let scope = self.scope(id, state);
        let mut steps = 0;
        let input = flow::arguments(&state.flow, &scope, &mut steps);
        let input = self.settled(id, &scope, steps, input)?;
        let bytes = self.check_size(id, &input)?;
        self.check_room(bytes * branches.len() as u64, 0)?;
        self.enter_parallel(id, branches, Strategy::All)?;
        let frames = self.execution.frames.values_mut();
        for frame in frames.filter(|frame| frame.parent == Some(id)) {
            frame.data = Some(Box::new(Data::new(Arc::clone(&input), bytes)));
        }
        Ok(())
    }

    fn run_choice(
        &mut self,
        id: FrameId,
        state: &'a State,
        rules: &'a [Rule],
        default: Option<StateId>,
    ) -> Result<(), Failure> {
        let scope = self.scope(id, state);
        let mut steps = 0;
        let chosen = choose(&state.flow, rules, &scope, &mut steps);
        let chosen = self.settled(id, &scope, steps, chosen)?;
        let (next, assign, output) = match (chosen, default) {
            (Some(rule), _) => (rule.next, rule.assign.as_ref(), rule.output.as_ref()),
            (None, Some(default)) => {
                let output = match &state.flow {
                    Flow::Query { output, .. } => output.as_ref(),
                    Flow::Path(_) => None,
                };
                (default, state.assign.as_ref(), output)
            }
            (None, None) => {
                let cause = "No choice rule matched and no Default is given.";
                let fault = Fault::new(names::NO_CHOICE_MATCHED, cause);
                return Err(self.failure_of(id, &fault));
            }
        };
        let mut steps = 0;
        let left = flow::leave_choice(&state.flow, &scope, assign, output, &mut steps);
        let left = self.settled(id, &scope, steps, left)?;
        self.keep(id, left)?;
        self.tell(|machine| Record::StateExited {
            place: machine.place(id),
            output: machine.input_text(id),
        });
        self.go(id, next);
        Ok(())
    }

    fn run_wait(&mut self, id: FrameId, state: &'a State, until: &'a Until) -> Result<(), Failure> {
        let scope = self.scope(id, state);
        let mut steps = 0;
        let at = end_of_wait(&state.flow, until, &scope, &mut steps);
        let at = self.settled(id, &scope, steps, at)?;
        if at.since(self.now) > MAX_WAIT_MS {
            let cause = format!("The wait would last until {at}: over ten years");
            return Err(self.failure_of(id, &Fault::runtime(cause)));
        }
        if at <= self.now {
            self.work.push(Work::Leave(id, Output::Null));
        } else {
            let timer = self.set_timer(at, TimerKind::Resume(id));
            self.frame_mut(id).step = Step::Waiting { timer };
        }
        Ok(())
    }

    /// A Fail state's error; empty texts for what it does not say.
    fn asl_fail(
        &mut self,
        id: FrameId,
        state: &'a State,
        error: Option<&Words>,
        cause: Option<&Words>,
    ) -> Failure {
        let scope = self.scope(id, state);
        let mut steps = 0;
        let mut text = |given: Option<&Words>| match given {
            Some(given) => words(given, &scope, &mut steps),
            None => Ok(String::new()),
        };
        let texts = text(error).and_then(|error| Ok((error, text(cause)?)));
        match self.settled(id, &scope, steps, texts) {
            Ok((error, cause)) => Failure::new(&error, cause),
            Err(failure) => failure,
        }
    }

    /// Leaves a state: makes its output, assigns variables, and goes on.
    pub(super) fn leave_asl(
        &mut self,
        id: FrameId,
        state: &'a State,
        output: Output,
    ) -> Result<(), ApplyError> {
        if let Err(failure) = self.pass_on_asl(id, state, output) {
            return self.fail(id, failure);
        }
        let text = self.input_text(id);
        self.tell(|machine| Record::StateExited {
            place: machine.place(id),
            output: text.clone(),
        });
        let parent = self.frame_mut(id).parent;
        match (state.next, parent) {
            (Some(Next::State(next)), _) => {
                self.go(id, next);
                Ok(())
            }
            (Some(Next::End), None) => {
                let output = Output::Null.to_json();
                self.frame_mut(id).step = Step::Done { output };
                self.work.push(Work::Complete(Some(text)));
                Ok(())
            }
            (Some(Next::End), Some(parent)) => match self.hold(parent, &Output::Text(text)) {
                Ok(held) if self.frame_mut(id).iteration.is_some() => {
                    self.end_iteration(id, parent, held)
                }
                Ok(held) => self.end_branch(id, parent, held),
                Err(failure) => self.fail(id, failure),
            },
            (None, _) => Err(self.mismatch(id)),
        }
    }

    /// Turns what a state gave into the input of what follows it.
    fn pass_on_asl(
        &mut self,
        id: FrameId,
        state: &'a State,
        output: Output,
    ) -> Result<(), Failure> {
        let result = self.result(id, state, output)?;
        let mut scope = self.scope(id, state);
        let mut steps = 0;
        let left = flow::leave(state, &mut scope, result, &mut steps);
        let left = self.settled(id, &scope, steps, left)?;
        self.keep(id, left)
    }

    /// What a state gave as a value; none for states that only pass on.
    fn result(
        &mut self,
        id: FrameId,
        state: &'a State,
        output: Output,
    ) -> Result<Option<Arc<Value>>, Failure> {
        match (&state.kind, output) {
            (Kind::Task(task), Output::Text(text)) => self.task_result(id, task, &text).map(Some),
            (_, Output::Text(text)) => self.parse(id, &text).map(Some),
            (_, Output::Value(value)) => Ok(Some(Arc::new(value))),
            (_, Output::Null) => Ok(None),
        }
    }

    /// Reads a text that a state gave.
    fn parse(&mut self, id: FrameId, text: &Json) -> Result<Arc<Value>, Failure> {
        self.budget.read(text)?;
        match serde_json::from_str(text.as_str()) {
            Ok(value) => Ok(Arc::new(value)),
            Err(error) => {
                let cause = format!("The result cannot be read: {error}");
                Err(self.failure_of(id, &Fault::runtime(cause)))
            }
        }
    }

    /// Makes what a state left behind the frame's data.
    fn keep(&mut self, id: FrameId, left: flow::Left) -> Result<(), Failure> {
        let mut bytes = self.check_size(id, &left.output)?;
        let mut assigned = Variables::new();
        for (name, value) in left.variables {
            let size = self.budget.measure(&value)?;
            if size > MAX_STATE_BYTES {
                return Err(self.too_large(id));
            }
            assigned.insert(name, Arc::new(value));
        }
        let data = self.data_mut(id);
        data.input = left.output;
        data.variables.append(&mut assigned);
        let variables: Vec<_> = data.variables.values().map(Arc::clone).collect();
        let mut held = 0;
        for value in &variables {
            held += self.budget.measure(value)?;
        }
        if held > MAX_VARIABLE_BYTES {
            return Err(self.too_large(id));
        }
        bytes += held;
        self.check_room(bytes, 0)?;
        self.data_mut(id).bytes = bytes;
        Ok(())
    }

    /// Size of a state's data as text, if it is not too large.
    fn check_size(&mut self, id: FrameId, value: &Value) -> Result<u64, Failure> {
        let bytes = self.budget.measure(value)?;
        if bytes > MAX_STATE_BYTES {
            return Err(self.too_large(id));
        }
        Ok(bytes)
    }

    fn too_large(&self, id: FrameId) -> Failure {
        let name = match self.state_of(id).map(|state| &state.kind) {
            Ok(StateKind::Asl(state)) => match &state.kind {
                Kind::Task(task) => Some(task::short_name(&task.resource)),
                _ => None,
            },
            _ => None,
        };
        let name = name.unwrap_or_else(|| self.state_name(id));
        let cause = format!(
            "The state/task '{name}' returned a result with a size exceeding the maximum number \
             of bytes service limit."
        );
        Failure::new(names::DATA_LIMIT, cause)
    }

    /// What the expressions of a state can see.
    fn scope(&mut self, id: FrameId, state: &State) -> Scope {
        let seq = self.fresh();
        let context = if state.uses_context {
            self.context_object(id)
        } else {
            Value::Null
        };
        let variables = self.visible(id);
        let input = Arc::clone(&self.data_mut(id).input);
        let random = Random::new(self.execution.id, seq);
        Scope::new(input, context, variables, self.now, random)
    }

    /// The variables of a frame and of those around it. An iteration of a
    /// distributed Map is an execution of its own and sees no further.
    fn visible(&self, id: FrameId) -> Variables {
        let mut visible = Variables::new();
        let mut at = Some(id);
        while let Some(frame) = at.and_then(|id| self.execution.frames.get(&id)) {
            if let Some(data) = &frame.data {
                for (name, value) in &data.variables {
                    visible
                        .entry(name.clone())
                        .or_insert_with(|| Arc::clone(value));
                }
            }
            at = frame.parent.filter(|_| !self.is_own_execution(frame));
        }
        visible
    }

    fn is_own_execution(&self, frame: &crate::Frame) -> bool {
        let parent = frame.parent.filter(|_| frame.iteration.is_some());
        let state = parent.and_then(|parent| self.state_of(parent).ok());
        match state.map(|state| &state.kind) {
            Some(StateKind::Asl(state)) => {
                matches!(&state.kind, Kind::Map(map) if map.distributed)
            }
            _ => false,
        }
    }

    /// `$$`: what a state can learn of its execution. Names have the shape of ARNs,
    /// since definitions take them apart.
    fn context_object(&self, id: FrameId) -> Value {
        let execution = &self.execution;
        let (tenant, name) = (execution.tenant.as_str(), &self.program.name);
        let own = execution.id;
        let data = execution
            .frames
            .get(&id)
            .and_then(|frame| frame.data.as_ref());
        let entered = data.map_or(self.now, |data| data.entered_at);
        let mut context = json!({
            "Execution": {
                "Id": format!("arn:cascade:states::{tenant}:execution:{name}:{own}"),
                "Input": execution.context["workflow"]["input"],
                "StartTime": execution.started_at.to_string(),
                "Name": own.to_string(),
                "RoleArn": format!("arn:cascade:iam::{tenant}:role/{name}"),
            },
            "StateMachine": {
                "Id": format!("arn:cascade:states::{tenant}:stateMachine:{name}"),
                "Name": name,
            },
            "State": {
                "Name": self.state_name(id),
                "EnteredTime": entered.to_string(),
            },
        });
        let kind = self.state_of(id).map(|state| &state.kind);
        if let Ok(StateKind::Asl(state)) = kind
            && matches!(
                state.kind,
                Kind::Task(_) | Kind::Parallel { .. } | Kind::Map(_)
            )
        {
            let retries = data.map_or(0, |data| data.retries.iter().sum::<u32>());
            context["State"]["RetryCount"] = retries.into();
            if let Kind::Task(task) = &state.kind
                && task.waits_for_callback()
            {
                let entry = data.and_then(|data| data.task).unwrap_or(TaskId(0));
                let token = if execution.machine < CALLBACKS {
                    format!("{own}:{}", entry.0)
                } else {
                    let (execution, task, attempt) = (own, entry, retries + 1);
                    TaskToken {
                        execution,
                        task,
                        attempt,
                    }
                    .to_string()
                };
                context["Task"] = json!({ "Token": token });
            }
        }
        if let Some(iteration) = execution.iterations(id).next() {
            context["Map"] = map_item(iteration.index, iteration.item());
        }
        context
    }

    /// Counts an evaluation, and names the state in its fault.
    fn settled<T>(
        &mut self,
        id: FrameId,
        scope: &Scope,
        steps: u64,
        result: Result<T, Fault>,
    ) -> Result<T, Failure> {
        let steps = (steps + scope.visits() as u64) / STEPS_PER_STEP;
        self.budget
            .evaluation(usize::try_from(steps).unwrap_or(usize::MAX))?;
        result.map_err(|fault| self.failure_of(id, &fault))
    }

    /// A fault as AWS words it.
    fn failure_of(&self, id: FrameId, fault: &Fault) -> Failure {
        let frame = self.execution.frames.get(&id);
        let seq = frame.and_then(|frame| frame.data.as_ref());
        let seq = seq.map_or(0, |data| data.entered_seq);
        let name = self.state_name(id);
        let cause = format!(
            "An error occurred while executing the state '{name}' (entered at the event id #{seq}). {}",
            fault.cause
        );
        Failure::new(fault.error, cause)
    }

    /// A frame's data. What has none is a frame of another program; that its
    /// state does not fit either is found out elsewhere.
    fn data_mut(&mut self, id: FrameId) -> &mut Data {
        let frame = self.frame_mut(id);
        frame
            .data
            .get_or_insert_with(|| Box::new(Data::new(Arc::new(Value::Null), 4)))
    }

    fn asl_of(&self, id: FrameId) -> Result<&'a State, ApplyError> {
        match &self.state_of(id)?.kind {
            StateKind::Asl(state) => Ok(state),
            _ => Err(self.mismatch(id)),
        }
    }

    fn input_text(&self, id: FrameId) -> Json {
        let frame = self.execution.frames.get(&id);
        let data = frame.and_then(|frame| frame.data.as_ref());
        data.map_or_else(
            || Output::Null.to_json(),
            |data| Json::from_value(&data.input),
        )
    }
}

/// `$$.Map`
fn map_item(index: u32, value: &Value) -> Value {
    json!({"Item": {"Index": index, "Value": value}})
}

/// The rule of a Choice state that holds.
fn choose<'a>(
    flow: &Flow,
    rules: &'a [Rule],
    scope: &Scope,
    steps: &mut u64,
) -> Result<Option<&'a Rule>, Fault> {
    let data = flow::input(flow, scope)?;
    for rule in rules {
        if rule.condition.holds(scope, &data, steps)? {
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

/// When a Wait state that is entered now ends.
fn end_of_wait(
    flow: &Flow,
    until: &Until,
    scope: &Scope,
    steps: &mut u64,
) -> Result<Timestamp, Fault> {
    let data = flow::input(flow, scope)?;
    match until {
        Until::At(at) => Ok(*at),
        Until::Seconds(amount) => {
            let seconds = seconds_of_wait(amount, scope, &data, steps)?;
            Ok(scope.now.plus(seconds.saturating_mul(1_000)))
        }
        Until::AtPath(path) => {
            let value = wait_value(path, "TimestampPath", scope, &data)?;
            let at = value.as_str().and_then(parse_timestamp);
            at.ok_or_else(|| {
                Fault::runtime(format!(
                    "The TimestampPath parameter does not reference a valid ISO-8601 extended \
                     offset date-time format string: {path} == {}",
                    plain(&value)
                ))
            })
        }
        Until::AtQuery(query) => {
            let value = query.evaluate(scope, steps)?;
            let Some(text) = value.as_str() else {
                return Err(wrong_type(query, "string", &value));
            };
            parse_timestamp(text).ok_or_else(|| {
                Fault::query(format!(
                    "The Timestamp field cannot be parsed as an ISO-8601 extended offset \
                     date-time format string: {text}"
                ))
            })
        }
    }
}

fn seconds_of_wait(
    amount: &Amount,
    scope: &Scope,
    data: &Value,
    steps: &mut u64,
) -> Result<u64, Fault> {
    match &amount.source {
        AmountSource::Fixed(_) => {}
        AmountSource::Path(path) => {
            let value = wait_value(path, "SecondsPath", scope, data)?;
            return value.as_u64().ok_or_else(|| {
                Fault::runtime(if value.as_i64().is_some() {
                    format!(
                        "The SecondsPath parameter references a negative value: {path} == {value}"
                    )
                } else {
                    format!(
                        "The SecondsPath parameter cannot be parsed as a long value: {path} == {}",
                        plain(&value)
                    )
                })
            });
        }
        AmountSource::Query(query) => {
            let value = query.evaluate(scope, steps)?;
            return value
                .as_u64()
                .ok_or_else(|| wrong_type(query, "positive integer", &value));
        }
    }
    whole(amount, scope, data, steps)
}

fn wait_value<'s>(
    path: &Path,
    field: &str,
    scope: &'s Scope,
    data: &'s Value,
) -> Result<std::borrow::Cow<'s, Value>, Fault> {
    scope.select(path, data).map_err(|_| {
        Fault::runtime(format!(
            "The {field} parameter does not reference an input value: {path}"
        ))
    })
}

/// Text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => quote(other),
    }
}

fn wrong_type(query: &jsonata::Query, expected: &str, value: &Value) -> Fault {
    match query.as_expression() {
        Some(expression) => expression.wrong_type(expected, value),
        None => Fault::query(format!("Expected '{expected}', but was: {}", quote(value))),
    }
}

/// A whole number, not negative.
fn whole(amount: &Amount, scope: &Scope, data: &Value, steps: &mut u64) -> Result<u64, Fault> {
    match &amount.source {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // the front end takes 0 to 100,000,000
        AmountSource::Fixed(number) => Ok(*number as u64),
        AmountSource::Path(path) => {
            let value = scope.resolve(path, data, amount.field)?;
            let field = amount.field;
            let number = value.as_i64().ok_or_else(|| {
                Fault::runtime(format!(
                    "The {field} field refers to value \"{}\" which is not a valid integer: {path}",
                    plain(&value)
                ))
            })?;
            u64::try_from(number).map_err(|_| {
                Fault::runtime(format!("The value of {field} cannot be negative: {number}"))
            })
        }
        AmountSource::Query(query) => {
            let value = query.evaluate(scope, steps)?;
            value
                .as_u64()
                .ok_or_else(|| wrong_type(query, "positive integer", &value))
        }
    }
}

/// A percentage.
fn share(amount: &Amount, scope: &Scope, data: &Value, steps: &mut u64) -> Result<f64, Fault> {
    let percentage = match &amount.source {
        AmountSource::Fixed(number) => *number,
        AmountSource::Path(path) => {
            let value = scope.resolve(path, data, amount.field)?;
            value.as_f64().ok_or_else(|| {
                Fault::runtime(format!(
                    "The {} field refers to value \"{}\" which is not a valid float: {path}",
                    amount.field,
                    plain(&value)
                ))
            })?
        }
        AmountSource::Query(query) => {
            let value = query.evaluate(scope, steps)?;
            value
                .as_f64()
                .ok_or_else(|| wrong_type(query, "number", &value))?
        }
    };
    if (0.0..=100.0).contains(&percentage) {
        Ok(percentage)
    } else {
        let cause = "ToleratedFailurePercentage must be between 0 and 100.";
        Err(match &amount.source {
            AmountSource::Query(_) => Fault::query(cause),
            _ => Fault::runtime(cause),
        })
    }
}

/// The text of `Error` or `Cause`.
fn words(words: &Words, scope: &Scope, steps: &mut u64) -> Result<String, Fault> {
    match words {
        Words::Fixed(text) => Ok(text.clone()),
        Words::Source { field, source } => {
            let value = source.evaluate(scope, &scope.input, field)?;
            match value {
                Value::String(text) => Ok(text),
                other => Err(Fault::runtime(format!(
                    "The {field} field refers to a value that is not a string: {}",
                    quote(&other)
                ))),
            }
        }
        Words::Query(query) => match query.evaluate(scope, steps)? {
            Value::String(text) => Ok(text),
            other => Err(wrong_type(query, "string", &other)),
        },
    }
}
