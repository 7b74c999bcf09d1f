//! Payload templates of JSONPath states: JSON in which a field whose name ends
//! in `.$` is a path or a call of an intrinsic function.

use serde_json::{Map, Value};

use super::fault::{Fault, names};
use super::intrinsic::{Argument, Call};
use super::path::{Miss, Path, Root, nodes};
use super::scope::{Scope, too_much};

/// A compiled template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Payload {
    Literal(Value),
    List(Vec<Payload>),
    Object(Vec<(Box<str>, Payload)>),
    /// The value of a field `field`, whose name ended in `.$`.
    Computed {
        field: Box<str>,
        source: Source,
    },
}

/// Where a computed value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Path(Path),
    Call(Call),
}

impl Source {
    /// The paths in it.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Path(path) => vec![path],
            Self::Call(call) => {
                let mut paths = Vec::new();
                call.paths(&mut paths);
                paths
            }
        }
    }

    /// Whether it looks into the context object.
    pub(crate) fn uses_context(&self) -> bool {
        self.paths().iter().any(|path| path.root == Root::Context)
    }

    /// Its value, `data` being what `$` means.
    pub(crate) fn evaluate(
        &self,
        scope: &Scope,
        data: &Value,
        field: &str,
    ) -> Result<Value, Fault> {
        match self {
            Self::Path(path) => {
                let found = scope.resolve(path, data, field)?;
                pay(scope, &found).map_err(|_| too_much(path))?;
                Ok(found.into_owned())
            }
            Self::Call(call) => evaluate_call(call, scope, data, field),
        }
    }
}

impl Payload {
    /// Its value, `data` being what `$` means.
    pub(crate) fn evaluate(&self, scope: &Scope, data: &Value) -> Result<Value, Fault> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::List(items) => {
                let items = items.iter().map(|item| item.evaluate(scope, data));
                items.collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, item)| Ok((name.to_string(), item.evaluate(scope, data)?)));
                fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            Self::Computed { field, source } => source.evaluate(scope, data, field),
        }
    }
}

fn evaluate_call(call: &Call, scope: &Scope, data: &Value, field: &str) -> Result<Value, Fault> {
    let mut values = Vec::with_capacity(call.arguments.len());
    let mut template = None;
    for (at, argument) in call.arguments.iter().enumerate() {
        values.push(match argument {
            Argument::Text { raw, value } => {
                if at == 0 {
                    template = Some(&**raw);
                }
                value.clone()
            }
            Argument::Literal(value) => value.clone(),
            Argument::Path(path) => {
                let found = scope.resolve(path, data, field)?;
                pay(scope, &found).map_err(|_| too_much(path))?;
                found.into_owned()
            }
            Argument::Call(inner) => evaluate_call(inner, scope, data, field)?,
        });
    }
    let result = call.function.apply(&values, template, &scope.random);
    let refuse = |reason| {
        Fault::new(
            names::INTRINSIC_FAILURE,
            format!(
                "The function '{}' had the following error: {reason}",
                call.text()
            ),
        )
    };
    let result = result.map_err(refuse)?;
    pay(scope, &result).map_err(|_| refuse("the result is too large".to_owned()))?;
    Ok(result)
}

/// Counts a copy.
fn pay(scope: &Scope, value: &Value) -> Result<(), Miss> {
    scope.fuel.borrow_mut().take(nodes(value))
}
