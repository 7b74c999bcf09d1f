//! Moves values between states, the context and the outside.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::budget::{Budget, text_len};
use super::limits::{MAX_CONTEXT_BYTES, MAX_HELD_BYTES, MAX_WAIT_MS, SMALL_BYTES};
use super::walk::Machine;
use crate::expression::{Env, MAX_VALUE_DEPTH, Path, Template, fits_depth};
use crate::front::duration;
use crate::program::{StateId, Until, Way};
use crate::{Failure, Frame, FrameId, Json, Step, Timestamp, errors};

/// Longest name of somebody to ask, in bytes: that of an e-mail address.
const MAX_ASSIGNEE_BYTES: usize = 254;

/// What a state gave: as text or as a value, whichever it had. Most outputs
/// are never looked into.
pub(super) enum Output {
    Null,
    Text(Json),
    Value(Value),
}

impl Output {
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::from_value(&Value::Null),
            Self::Text(text) => text.clone(),
            Self::Value(value) => Json::from_value(value),
        }
    }
}

impl Machine<'_> {
    /// Makes the context that an execution starts with.
    pub(super) fn begin_context(
        &mut self,
        input: &Json,
        shard_key: Option<&str>,
    ) -> Result<(), Failure> {
        let refuse = |message| Err(Failure::new(errors::INVALID_INPUT, message));
        if input.len() as u64 > MAX_CONTEXT_BYTES {
            return refuse(format!(
                "the input has {} bytes, the context holds at most {MAX_CONTEXT_BYTES}",
                input.len()
            ));
        }
        self.budget.read(input)?;
        let value: Value = match serde_json::from_str(input.as_str()) {
            Ok(value) => value,
            Err(error) => return refuse(format!("the input cannot be read: {error}")),
        };
        // It stands two levels deep, at `$.workflow.input`.
        if !fits_depth(&value, MAX_VALUE_DEPTH - 2) {
            let depth = MAX_VALUE_DEPTH - 2;
            return refuse(format!("the input is nested deeper than {depth} levels"));
        }
        let execution = &mut self.execution;
        execution.context = json!({
            "workflow": {
                "execution_id": execution.id.to_string(),
                "started_at": execution.started_at.to_string(),
                "tenant": execution.tenant.as_str(),
            }
        });
        if let Some(schedule) = &execution.schedule {
            execution.context["workflow"]["schedule"] =
                json!({ "name": &*schedule.name, "at": schedule.at.to_string() });
        }
        if let Some(key) = shard_key {
            execution.context["workflow"]["shard_key"] = key.into();
        }
        execution.context_bytes = text_len(&execution.context) + input.len() as u64;
        execution.context["workflow"]["input"] = value;
        self.untagged = true;
        Ok(())
    }

    /// Evaluates an expression of the program, as a frame sees the context.
    pub(super) fn eval(&mut self, id: FrameId, template: &Template) -> Result<Value, Failure> {
        self.eval_with(id, template, Budget::own)
    }

    /// Evaluates an expression to text, without copying what it points to.
    pub(super) fn eval_text(&mut self, id: FrameId, template: &Template) -> Result<Json, Failure> {
        self.eval_with(id, template, |budget, value| budget.write(value.as_ref()))
    }

    /// Evaluates an expression to a string: itself, or JSON of anything else.
    fn eval_string(&mut self, id: FrameId, template: &Template) -> Result<String, Failure> {
        self.eval_with(id, template, |budget, value| match value.as_ref() {
            Value::String(text) => {
                budget.text(text.len())?;
                Ok(text.clone())
            }
            other => budget.write(other).map(|text| text.as_str().to_owned()),
        })
    }

    pub(super) fn eval_with<T>(
        &mut self,
        id: FrameId,
        template: &Template,
        convert: impl FnOnce(&mut Budget, Cow<'_, Value>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let seq = self.fresh();
        let iterations = self.execution.iterations(id);
        let (overlays, locals): (Vec<_>, Vec<_>) = iterations
            .map(|iteration| (&iteration.context, ("map", &iteration.map)))
            .unzip();
        let budget = &mut self.budget;
        let env = Env {
            context: &self.execution.context,
            overlays: &overlays,
            locals: &locals,
            now: self.now,
            shards: self.execution.shards,
            id: self.execution.id,
            seq,
        };
        let (value, steps) = match budget.steps_left() {
            Some(left) => template.eval_within(&env, left),
            None => template.eval_counted(&env),
        };
        budget.evaluation(steps)?;
        match value {
            Ok(value) => convert(budget, value),
            Err(error) => {
                budget.fault()?;
                Err(Failure::new(errors::EXPRESSION, error.to_string()))
            }
        }
    }

    /// The whole context as text. Branches that start together share it.
    pub(super) fn context_text(&mut self) -> Result<Json, Failure> {
        if let Some(text) = &self.context_text {
            return Ok(text.clone());
        }
        let text = self.budget.write(&self.execution.context)?;
        self.context_text = Some(text.clone());
        Ok(text)
    }

    /// The context without what Cascade put there: the output of a workflow
    /// that does not say otherwise.
    pub(super) fn results(&mut self) -> Result<Json, Failure> {
        let context = &mut self.execution.context;
        let own = context
            .as_object_mut()
            .and_then(|all| all.remove("workflow"));
        let text = self.budget.write(context);
        // The execution may fail yet, and be retried.
        if let (Some(all), Some(own)) = (context.as_object_mut(), own) {
            all.insert("workflow".to_owned(), own);
        }
        text
    }

    /// The text of an output, for those who hold it.
    pub(super) fn text_of(&mut self, output: &Output) -> Result<Json, Failure> {
        match output {
            Output::Null | Output::Text(_) => Ok(output.to_json()),
            Output::Value(value) => self.budget.write(value),
        }
    }

    /// Puts an output into the context, or into the overlay of the iteration
    /// that the frame is in, if its state says where.
    pub(super) fn write(
        &mut self,
        id: FrameId,
        path: Option<&Path>,
        output: Output,
    ) -> Result<(), Failure> {
        let Some(path) = path else { return Ok(()) };
        // Keys may be long, and be compared with others on the way.
        self.budget
            .text(path.segments().iter().map(|key| key.len()).sum())?;
        let len = match &output {
            Output::Null => 4,
            Output::Text(text) => text.len() as u64,
            Output::Value(value) => self.budget.measure(value)?,
        };
        self.make_room(len)?;
        let value = match output {
            Output::Null => Value::Null,
            Output::Text(text) => self.read(&text, path)?,
            Output::Value(value) => value,
        };
        self.context_text = None;
        let owner = self.execution.iteration_of(id);
        if let (Some(owner), [key, _, ..]) = (owner, path.segments()) {
            self.uncover(owner, key)?;
        }
        let owner = owner.and_then(|owner| self.execution.frames.get_mut(&owner));
        let iteration = owner.and_then(|frame| frame.iteration.as_mut());
        self.untagged |= iteration.is_none();
        let context = match iteration {
            Some(iteration) => &mut iteration.context,
            None => &mut self.execution.context,
        };
        path.set(context, value)
            .map_err(|error| Failure::new(errors::EXPRESSION, error.to_string()))
    }

    /// Reads the text of an output that goes to `path`.
    fn read(&mut self, text: &Json, path: &Path) -> Result<Value, Failure> {
        self.budget.read(text)?;
        serde_json::from_str(text.as_str()).map_err(|error| {
            let message = format!("the output cannot go to {path}: {error}");
            Failure::new(errors::EXPRESSION, message)
        })
    }

    /// Counts `bytes` that are about to enter the context.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), Failure> {
        let execution = &mut self.execution;
        if execution.context_bytes + bytes > MAX_CONTEXT_BYTES {
            // The count includes what was overwritten, or written by iterations
            // that have ended; measured, it may fit.
            let mut measured = self.budget.measure(&execution.context)?;
            let frames = execution.frames.values();
            for iteration in frames.filter_map(|frame| frame.iteration.as_ref()) {
                measured += self.budget.measure(&iteration.context)?;
            }
            execution.context_bytes = measured;
        }
        let total = execution.context_bytes + bytes;
        if total > MAX_CONTEXT_BYTES {
            let message = format!(
                "the context would have {total} bytes, and holds at most {MAX_CONTEXT_BYTES}; \
                 keep large data outside and its name in the context"
            );
            return Err(Failure::new(errors::CONTEXT_TOO_LARGE, message));
        }
        execution.context_bytes = total;
        Ok(())
    }

    /// Checks that a frame may hold this text, too, as input or output.
    pub(super) fn check_held(&self, text: &Json) -> Result<(), Failure> {
        self.check_room(text.len() as u64, 0)
    }

    /// Checks that a frame which holds `held` bytes may hold more.
    pub(super) fn check_room(&self, added: u64, held: u64) -> Result<(), Failure> {
        if added + held <= SMALL_BYTES {
            return Ok(());
        }
        let frames = self.execution.frames.values();
        let held: u64 = frames.map(held_bytes).sum();
        let total = held + self.execution.saga.bytes + added;
        if total <= MAX_HELD_BYTES {
            return Ok(());
        }
        let message = format!(
            "task inputs and branch outputs together would have {total} bytes, \
             an execution holds at most {MAX_HELD_BYTES}"
        );
        Err(Failure::new(errors::CONTEXT_TOO_LARGE, message))
    }

    /// The text of the output of a branch or iteration, which its frame, or that
    /// of the Map state, is to hold.
    pub(super) fn hold(&mut self, parent: FrameId, output: &Output) -> Result<Json, Failure> {
        let text = self.text_of(output)?;
        let held = match &self.frame_mut(parent).step {
            Step::Mapping(mapping) => mapping.bytes,
            _ => 0,
        };
        self.check_room(text.len() as u64, held)?;
        Ok(text)
    }

    /// The way that a Choice state takes.
    pub(super) fn choose(
        &mut self,
        id: FrameId,
        choices: &[Way],
        default: Option<StateId>,
    ) -> Result<StateId, Failure> {
        for (at, way) in choices.iter().enumerate() {
            match self.eval(id, &way.condition)? {
                Value::Bool(true) => return Ok(way.next),
                Value::Bool(false) => {}
                other => {
                    let message = format!(
                        "condition {} is {}, not true or false",
                        at + 1,
                        type_name(&other)
                    );
                    return Err(Failure::new(errors::EXPRESSION, message));
                }
            }
        }
        default.ok_or_else(|| {
            let message = "no condition holds, and there is no default";
            Failure::new(errors::NO_CHOICE_MATCHED, message)
        })
    }

    /// When a Wait state that is entered now ends.
    pub(super) fn end_of_wait(&mut self, id: FrameId, until: &Until) -> Result<Timestamp, Failure> {
        let (value, end): (_, Result<_, String>) = match until {
            Until::Duration(template) => {
                let value = self.eval(id, template)?;
                let end = wait_ms(&value).map(|wait| self.now.plus(wait));
                (
                    value,
                    end.ok_or_else(|| "a duration as in 1h30m, or a number of seconds".into()),
                )
            }
            Until::Timestamp(template) => {
                let value = self.eval(id, template)?;
                let end = value.as_str().and_then(timestamp);
                (
                    value,
                    end.ok_or_else(|| "an RFC 3339 time as in 2026-01-31T09:30:00Z".into()),
                )
            }
        };
        let refuse = |message| Failure::new(errors::EXPRESSION, message);
        let end = end.map_err(|expected| {
            let found = match &value {
                Value::String(text) => format!("`{}`", text.chars().take(80).collect::<String>()),
                other => type_name(other).to_owned(),
            };
            refuse(format!("the wait is {found}, not {expected}"))
        })?;
        if end.since(self.now) > MAX_WAIT_MS {
            return Err(refuse(format!(
                "the wait would last until {end}: over ten years"
            )));
        }
        Ok(end)
    }

    /// Who a `HumanTask` asks.
    pub(super) fn assignee(&mut self, id: FrameId, assignee: &Template) -> Result<String, Failure> {
        let name = self.eval_string(id, assignee)?;
        if name.trim().is_empty() || name.len() > MAX_ASSIGNEE_BYTES {
            let message = format!("`assignee` is empty, or longer than {MAX_ASSIGNEE_BYTES} bytes");
            return Err(Failure::new(errors::EXPRESSION, message));
        }
        Ok(name)
    }

    /// A Fail state's error.
    pub(super) fn declared_failure(
        &mut self,
        id: FrameId,
        error: &Template,
        message: Option<&Template>,
    ) -> Failure {
        let mut text = |template: &Template| self.eval_string(id, template);
        let message = message.map_or_else(|| Ok(String::new()), &mut text);
        match (text(error), message) {
            (Ok(error), Ok(message)) => Failure::new(&error, message),
            (Err(failure), _) | (_, Err(failure)) => failure,
        }
    }
}

fn held_bytes(frame: &Frame) -> u64 {
    let data = frame.data.as_ref().map_or(0, |data| data.bytes());
    data + match &frame.step {
        Step::Activity { input: text, .. }
        | Step::BackingOff { input: text, .. }
        | Step::Done { output: text }
        | Step::Failed { error: text } => text.len() as u64,
        Step::Mapping(mapping) => mapping.bytes,
        Step::Spreading(spreading) => {
            let asked = spreading
                .asked
                .values()
                .map(|asked| asked.input.len() as u64);
            spreading.bytes + asked.sum::<u64>()
        }
        Step::Asking(asking) => asking.input.len() as u64,
        Step::Waiting { .. }
        | Step::Listening { .. }
        | Step::Joining { .. }
        | Step::Retrying { .. }
        | Step::Held { .. }
        | Step::Calling { .. }
        | Step::Stopped {} => 0,
    }
}

fn wait_ms(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => duration::parse(text).ok(),
        Value::Number(seconds) => {
            let wait = std::time::Duration::try_from_secs_f64(seconds.as_f64()?).ok()?;
            u64::try_from(wait.as_millis()).ok()
        }
        _ => None,
    }
}

/// Times before 1970 are over, whichever they are.
fn timestamp(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
