//! JSONata expressions: `{% $states.input.total > 100 %}`.
//!
//! Evaluation is the crate `jsonata-core`'s. It is made deterministic here (time
//! and random numbers come from the event and the execution) and bounded:
//! [`guard`] rewrites each expression so that it counts what it does, and ends
//! with an error when that is too much. The clock is never asked.
//!
//! Source: <https://docs.jsonata.org> and "Transforming data with JSONata" of
//! the Step Functions guide.

use std::cell::Cell;
use std::rc::Rc;

use jsonata_core::ast::AstNode;
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorError, EvaluatorOptions};
use jsonata_core::value::JValue;
use serde_json::{Map, Number, Value};

use super::fault::Fault;
use super::path::nodes;
use super::scope::{Scope, quote};
use crate::expression::MAX_VALUE_DEPTH;

mod functions;
mod guard;

/// Longest expression, in bytes. AWS has no limit but that of a definition;
/// what is longer belongs into an activity.
pub(crate) const MAX_EXPRESSION_LEN: usize = 32 * 1024;

/// Deepest nesting of an evaluation: a few levels a call of a function.
const MAX_EVALUATION_DEPTH: usize = 1_000;

/// Longest list that an expression makes: more than the 256 KiB that a state
/// may pass on have room for.
const MAX_SEQUENCE: usize = 100_000;

/// Steps of the expressions of one field: see [`guard`] for what costs how many.
pub(crate) const MAX_STEPS: u64 = 2_000_000;

/// A value with expressions in it: strings in `{% %}`.
#[derive(Debug, PartialEq)]
pub(crate) enum Query {
    Literal(Value),
    List(Vec<Query>),
    Object(Vec<(Box<str>, Query)>),
    Expression(Expression),
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    text: Box<str>,
    /// The field that it stands in, as in `Output/total`.
    field: Box<str>,
    ast: AstNode,
}

/// Equal if the texts are: the rest follows from them.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.field == other.field
    }
}

impl Expression {
    /// The text between `{%` and `%}`, if `text` is an expression.
    pub(crate) fn body(text: &str) -> Option<&str> {
        text.strip_prefix("{%")?.strip_suffix("%}")
    }

    /// Compiles what stands between `{%` and `%}` in the field `field`.
    pub(crate) fn parse(body: &str, field: &str) -> Result<Self, String> {
        if body.len() > MAX_EXPRESSION_LEN {
            return Err(format!(
                "an expression has at most {MAX_EXPRESSION_LEN} bytes"
            ));
        }
        let text = body.trim();
        let mut ast = jsonata_core::parser::parse(text).map_err(|error| error.to_string())?;
        guard::guard(&mut ast)?;
        Ok(Self {
            text: text.into(),
            field: field.into(),
            ast,
        })
    }

    /// Whether it may look into the context object: unless each `$states` in
    /// it is followed by something else.
    fn uses_context(&self) -> bool {
        self.text.split("$states").skip(1).any(|rest| {
            let others = [".input", ".result", ".errorOutput"];
            !others.iter().any(|other| rest.starts_with(other))
        })
    }

    /// What it wants of its field, which got something else.
    pub(crate) fn wrong_type(&self, expected: &str, value: &Value) -> Fault {
        Fault::query(format!(
            "The JSONata expression '{}' specified for the field '{}' returned an unexpected \
             result type. Expected '{expected}', but was '{}' for value: {}",
            self.text,
            self.field,
            type_name(value),
            quote(value)
        ))
    }
}

impl Query {
    /// The expression, if it is nothing else.
    pub(crate) fn as_expression(&self) -> Option<&Expression> {
        match self {
            Self::Expression(expression) => Some(expression),
            _ => None,
        }
    }

    /// Whether it may look into the context object.
    pub(crate) fn uses_context(&self) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::List(items) => items.iter().any(Self::uses_context),
            Self::Object(fields) => fields.iter().any(|(_, item)| item.uses_context()),
            Self::Expression(expression) => expression.uses_context(),
        }
    }

    /// Its value.
    pub(crate) fn evaluate(&self, scope: &Scope, steps: &mut u64) -> Result<Value, Fault> {
        if let Self::Literal(value) = self {
            return Ok(value.clone());
        }
        let mut texts = Vec::new();
        self.texts(&mut texts);
        let spent = Rc::new(Cell::new(0));
        let mut evaluator = evaluator(scope, &texts, &spent);
        let value = self.value(&mut evaluator);
        *steps += spent.get().min(MAX_STEPS);
        value
    }

    fn texts<'q>(&'q self, found: &mut Vec<&'q str>) {
        match self {
            Self::Literal(_) => {}
            Self::List(items) => {
                for item in items {
                    item.texts(found);
                }
            }
            Self::Object(fields) => {
                for (_, item) in fields {
                    item.texts(found);
                }
            }
            Self::Expression(expression) => found.push(&expression.text),
        }
    }

    fn value(&self, evaluator: &mut Evaluator) -> Result<Value, Fault> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::List(items) => {
                let items = items.iter().map(|item| item.value(evaluator));
                items.collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, item)| Ok((name.to_string(), item.value(evaluator)?)));
                fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            Self::Expression(expression) => expression.value(evaluator),
        }
    }
}

impl Expression {
    fn value(&self, evaluator: &mut Evaluator) -> Result<Value, Fault> {
        let Self { text, field, ast } = self;
        let fault = |what: &str| {
            Fault::query(format!(
                "The JSONata expression '{text}' specified for the field '{field}' {what}"
            ))
        };
        let result = evaluator.evaluate(ast, &JValue::Undefined);
        let value = result.map_err(|error| {
            fault(&format!(
                "threw an error during evaluation. {}",
                error.message()
            ))
        })?;
        if value.is_undefined() {
            return Err(fault("returned nothing (undefined)."));
        }
        let mut room = guard::MAX_OUTPUT_NODES;
        match to_value(&value, MAX_VALUE_DEPTH, &mut room) {
            Ok(value) => Ok(value),
            Err(NoValue::Function) => Err(fault("returned an unsupported result type.")),
            Err(NoValue::TooLarge) => Err(fault("returned a result that is too large.")),
        }
    }
}

/// An evaluator with all that expressions of these texts can see. What none of
/// them names is left out, and what is not is counted: making it takes longer
/// than most expressions.
fn evaluator(scope: &Scope, texts: &[&str], spent: &Rc<Cell<u64>>) -> Evaluator {
    let mentions = |name: &str| texts.iter().any(|text| text.contains(name));
    let make = |value: &Value| {
        spent.set(spent.get() + nodes(value) as u64);
        from_value(value)
    };
    let mut context = Context::new();
    if mentions("$states") {
        let mut states = vec![
            ("input".to_owned(), make(&scope.input)),
            ("context".to_owned(), make(&scope.context)),
        ];
        if let Some(result) = &scope.result {
            states.push(("result".to_owned(), make(result)));
        }
        if let Some(error) = &scope.error {
            states.push(("errorOutput".to_owned(), make(error)));
        }
        let states = states.into_iter().collect();
        context.bind("states".to_owned(), JValue::object(states));
    }
    for (name, value) in &scope.variables {
        if mentions(&format!("${name}")) {
            context.bind(name.clone(), make(value));
        }
    }
    let options = EvaluatorOptions {
        timeout_ms: None,
        cancel: None,
        max_stack_depth: Some(MAX_EVALUATION_DEPTH),
        max_sequence_length: Some(MAX_SEQUENCE),
    };
    let mut evaluator = Evaluator::with_options(context, options);
    guard::install(&mut evaluator, spent);
    functions::install(&mut evaluator, scope);
    evaluator
}

/// The value as JSONata has it. Recursion is bounded: values of an execution
/// are at most as deep as JSON that was read.
fn from_value(value: &Value) -> JValue {
    match value {
        Value::Null => JValue::Null,
        Value::Bool(value) => JValue::Bool(*value),
        Value::Number(number) => JValue::Number(number.as_f64().unwrap_or(f64::MAX)),
        Value::String(text) => JValue::string(text.as_str()),
        Value::Array(items) => JValue::array(items.iter().map(from_value).collect()),
        Value::Object(map) => JValue::object(
            map.iter()
                .map(|(key, item)| (key.clone(), from_value(item)))
                .collect(),
        ),
    }
}

/// Why a result is no JSON value.
enum NoValue {
    Function,
    TooLarge,
}

/// The JSON value of a result, of at most `room` values and pieces of text.
fn to_value(value: &JValue, levels: usize, room: &mut u64) -> Result<Value, NoValue> {
    let size = 1 + value.as_str().map_or(0, str::len) as u64 / guard::STEP_BYTES;
    *room = room.checked_sub(size).ok_or(NoValue::TooLarge)?;
    let below = || levels.checked_sub(1).ok_or(NoValue::TooLarge);
    Ok(match value {
        JValue::Null | JValue::Undefined => Value::Null,
        JValue::Bool(value) => Value::Bool(*value),
        JValue::Number(number) => number_value(*number),
        JValue::String(text) => Value::String(text.to_string()),
        JValue::Array(items) => {
            let below = below()?;
            let items = items.iter().map(|item| to_value(item, below, room));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        JValue::Object(map) => {
            let below = below()?;
            let mut object = Map::new();
            for (key, item) in map.iter() {
                object.insert(key.clone(), to_value(item, below, room)?);
            }
            Value::Object(object)
        }
        JValue::Lambda(_) | JValue::Builtin { .. } | JValue::Regex { .. } => {
            return Err(NoValue::Function);
        }
    })
}

/// A whole number without a fraction, as AWS writes it.
fn number_value(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation)] // whole, and within 2^53
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// The type of a value as JSONata names it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// An error with a message of ours.
fn failure(message: impl Into<String>) -> EvaluatorError {
    EvaluatorError::EvaluationError(message.into())
}

#[cfg(test)]
mod tests;
