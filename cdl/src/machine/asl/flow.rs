//! Data into a state and out of it: `InputPath`, `Parameters`, `ResultSelector`,
//! `ResultPath`, `OutputPath`; `Arguments`, `Output`; `Assign`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::asl::fault::{Fault, names};
use crate::asl::jsonata::Query;
use crate::asl::path::{Miss, put};
use crate::asl::program::{Flow, Kind, Part, PathFlow, ResultPath, State, Template};
use crate::asl::scope::{Scope, too_much};

/// What a state leaves behind: the input of the next one, and variables.
pub(super) struct Left {
    pub(super) output: Arc<Value>,
    pub(super) variables: Map<String, Value>,
}

/// What `$` means in a state: its input, by way of `InputPath`.
pub(super) fn input(flow: &Flow, scope: &Scope) -> Result<Arc<Value>, Fault> {
    match flow {
        Flow::Path(flow) => part(&flow.input, scope, &scope.input),
        Flow::Query { .. } => Ok(Arc::clone(&scope.input)),
    }
}

/// What a state works on: `Parameters` or `Arguments`, or else its input.
pub(super) fn arguments(flow: &Flow, scope: &Scope, steps: &mut u64) -> Result<Arc<Value>, Fault> {
    let input = input(flow, scope)?;
    match flow {
        Flow::Path(flow) => match &flow.parameters {
            Some(parameters) => parameters.evaluate(scope, &input).map(Arc::new),
            None => Ok(input),
        },
        Flow::Query { arguments, .. } => match arguments {
            Some(arguments) => arguments.evaluate(scope, steps).map(Arc::new),
            None => Ok(input),
        },
    }
}

/// What a state leaves behind that gave `result`, or only passes on.
pub(super) fn leave(
    state: &State,
    scope: &mut Scope,
    result: Option<Arc<Value>>,
    steps: &mut u64,
) -> Result<Left, Fault> {
    let assign = state.assign.as_ref();
    match &state.flow {
        Flow::Path(flow) => {
            let result = match (result, &state.kind) {
                (Some(result), _) => result,
                (
                    None,
                    Kind::Pass {
                        result: Some(result),
                    },
                ) => Arc::new(result.clone()),
                (None, _) => arguments(&state.flow, scope, steps)?,
            };
            leave_path(flow, scope, result, assign, steps)
        }
        Flow::Query { output, .. } => {
            let default = match result {
                Some(result) => {
                    scope.result = Some(Arc::clone(&result));
                    result
                }
                None => Arc::clone(&scope.input),
            };
            leave_query(scope, default, assign, output.as_ref(), steps)
        }
    }
}

/// What a Choice state leaves behind, by way of a rule or its default.
pub(super) fn leave_choice(
    flow: &Flow,
    scope: &Scope,
    assign: Option<&Template>,
    output: Option<&Query>,
    steps: &mut u64,
) -> Result<Left, Fault> {
    match flow {
        Flow::Path(path) => {
            let result = input(flow, scope)?;
            leave_path(path, scope, result, assign, steps)
        }
        Flow::Query { .. } => leave_query(scope, Arc::clone(&scope.input), assign, output, steps),
    }
}

fn leave_path(
    flow: &PathFlow,
    scope: &Scope,
    result: Arc<Value>,
    assign: Option<&Template>,
    steps: &mut u64,
) -> Result<Left, Fault> {
    let selected = match &flow.selector {
        Some(selector) => Arc::new(selector.evaluate(scope, &result)?),
        None => result,
    };
    let variables = variables(assign, scope, &selected, steps)?;
    let combined = combine(&flow.result, scope, selected)?;
    let output = part(&flow.output, scope, &combined)?;
    Ok(Left { output, variables })
}

/// What a JSONata state, or a catcher of one, leaves behind; `default` is its
/// output if it does not say.
pub(super) fn leave_query(
    scope: &Scope,
    default: Arc<Value>,
    assign: Option<&Template>,
    output: Option<&Query>,
    steps: &mut u64,
) -> Result<Left, Fault> {
    let variables = variables(assign, scope, &scope.input, steps)?;
    let output = match output {
        Some(output) => Arc::new(output.evaluate(scope, steps)?),
        None => default,
    };
    Ok(Left { output, variables })
}

/// The values of `Assign`, all of them by the variables as they were.
pub(super) fn variables(
    assign: Option<&Template>,
    scope: &Scope,
    data: &Value,
    steps: &mut u64,
) -> Result<Map<String, Value>, Fault> {
    let value = match assign {
        None => return Ok(Map::new()),
        Some(Template::Payload(payload)) => payload.evaluate(scope, data)?,
        Some(Template::Query(query)) => query.evaluate(scope, steps)?,
    };
    match value {
        Value::Object(variables) => Ok(variables),
        // The front end takes objects only.
        _ => Ok(Map::new()),
    }
}

/// Puts a result into the state's raw input.
pub(super) fn combine(
    at: &ResultPath,
    scope: &Scope,
    result: Arc<Value>,
) -> Result<Arc<Value>, Fault> {
    match at {
        ResultPath::Replace => Ok(result),
        ResultPath::Discard => Ok(Arc::clone(&scope.input)),
        ResultPath::At(path) => {
            let places = path.as_reference().unwrap_or_default();
            let mut combined = scope.input.as_ref().clone();
            if put(&mut combined, &places, Arc::unwrap_or_clone(result)) {
                Ok(Arc::new(combined))
            } else {
                Err(Fault::new(
                    names::RESULT_PATH_MATCH,
                    format!("Unable to apply ReferencePath {path} to the state's input"),
                ))
            }
        }
    }
}

fn part(part: &Part, scope: &Scope, data: &Arc<Value>) -> Result<Arc<Value>, Fault> {
    match part {
        Part::All => Ok(Arc::clone(data)),
        Part::Nothing => Ok(Arc::new(json!({}))),
        Part::At(path) => match scope.select(path, data) {
            Ok(value) => Ok(Arc::new(value.into_owned())),
            Err(Miss::TooMuch) => Err(too_much(path)),
            Err(_) => Err(Fault::runtime(format!(
                "Invalid path '{path}' : No results for path"
            ))),
        },
    }
}
