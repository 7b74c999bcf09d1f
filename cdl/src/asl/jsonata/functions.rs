//! The functions that Step Functions adds to JSONata, and those that have to be
//! made deterministic.

use std::rc::Rc;

use jsonata_core::evaluator::{Evaluator, EvaluatorError};
use jsonata_core::value::JValue;
use serde_json::Value;

use super::{MAX_SEQUENCE, failure, from_value, guard, to_value};
use crate::asl::intrinsic;
use crate::asl::random::{Random, seeded_unit};
use crate::asl::scope::Scope;
use crate::expression::MAX_VALUE_DEPTH;

type Result = std::result::Result<JValue, EvaluatorError>;
type Function = dyn Fn(&[JValue]) -> Result;

/// Longest text that `$pad` makes, in characters; what a state can pass on.
const MAX_PADDED: usize = 256 * 1024;

/// Makes the functions known to an evaluator.
pub(super) fn install(evaluator: &mut Evaluator, scope: &Scope) {
    // One source for all functions of a field; an evaluation has one seq.
    let random = Rc::new(Random::derived(&scope.random));
    let source = Rc::clone(&random);
    // Milliseconds since 1970 are exact in a double for 285,000 years.
    #[expect(clippy::cast_precision_loss)]
    let now = scope.now.0 as f64;
    let functions: [(&str, Box<Function>); 9] = [
        ("partition", Box::new(partition)),
        ("range", Box::new(range)),
        ("hash", Box::new(hash)),
        ("uuid", Box::new(move |_| Ok(random.uuid().into()))),
        ("parse", Box::new(parse)),
        ("random", Box::new(move |args| self::random(args, &source))),
        ("millis", Box::new(move |_| Ok(JValue::Number(now)))),
        ("pad", Box::new(pad)),
        (
            "eval",
            Box::new(|_| Err(failure("$eval is not supported in Step Functions"))),
        ),
    ];
    for (name, function) in functions {
        let known = evaluator.register_fn_override(name, move |args: &[JValue]| function(args));
        debug_assert!(known.is_ok(), "${name} cannot be defined");
    }
}

fn argument(args: &[JValue], at: usize) -> &JValue {
    args.get(at).unwrap_or(&JValue::Undefined)
}

/// A whole number, rounded as for the intrinsic functions.
fn integer(args: &[JValue], at: usize) -> std::result::Result<i64, EvaluatorError> {
    match argument(args, at).as_f64().map(f64::round) {
        Some(number) if number.abs() <= 9_007_199_254_740_992.0 => {
            #[expect(clippy::cast_possible_truncation)] // whole, and within 2^53
            Ok(number as i64)
        }
        _ => Err(failure(format!(
            "argument {} is not a whole number",
            at + 1
        ))),
    }
}

fn json(value: &JValue) -> std::result::Result<Value, EvaluatorError> {
    let mut room = guard::MAX_OUTPUT_NODES;
    to_value(value, MAX_VALUE_DEPTH, &mut room)
        .map_err(|_| failure("an argument is not a JSON value, or too large"))
}

/// AWS's list functions give sequences: one of a single item is that item.
fn sequence(result: std::result::Result<Value, String>) -> Result {
    match result {
        Ok(Value::Array(items)) => {
            let items = items.iter().map(from_value).collect();
            Ok(JValue::sequence(items).unwrap_sequence())
        }
        Ok(other) => Ok(from_value(&other)),
        Err(reason) => Err(failure(reason)),
    }
}

/// `$partition(array, size)`
fn partition(args: &[JValue]) -> Result {
    let items = match json(argument(args, 0))? {
        Value::Array(items) => items,
        other => vec![other],
    };
    sequence(intrinsic::array_partition(&items, integer(args, 1)?))
}

/// `$range(first, last, step)`
fn range(args: &[JValue]) -> Result {
    sequence(intrinsic::array_range(
        integer(args, 0)?,
        integer(args, 1)?,
        integer(args, 2)?,
    ))
}

/// `$hash(data, algorithm)`
fn hash(args: &[JValue]) -> Result {
    let Some(algorithm) = argument(args, 1).as_str() else {
        return Err(failure("argument 2 is not the name of a hash algorithm"));
    };
    match intrinsic::hash(&json(argument(args, 0))?, algorithm) {
        Ok(digest) => Ok(from_value(&digest)),
        Err(reason) => Err(failure(reason)),
    }
}

/// `$parse(text)`: the JSON value that a text stands for.
fn parse(args: &[JValue]) -> Result {
    let Some(text) = argument(args, 0).as_str() else {
        return Err(failure("argument 1 is not a text"));
    };
    match serde_json::from_str::<Value>(text) {
        Ok(value) => Ok(from_value(&value)),
        Err(error) => Err(failure(format!("the text is not JSON: {error}"))),
    }
}

/// `$random([seed])`: from 0, below 1.
fn random(args: &[JValue], source: &Random) -> Result {
    match argument(args, 0) {
        JValue::Undefined => Ok(JValue::Number(source.unit())),
        JValue::Number(seed) => Ok(JValue::Number(seeded_unit(*seed))),
        _ => Err(failure("argument 1 is not a number")),
    }
}

/// `$pad(text, width [, with])`, as jsonata.org has it but bounded: on the right
/// if `width` is positive, on the left if it is negative.
fn pad(args: &[JValue]) -> Result {
    let text = match argument(args, 0) {
        JValue::Undefined => return Ok(JValue::Undefined),
        JValue::String(text) => text.to_string(),
        _ => {
            return Err(failure(
                "T0410: Argument 1 of function \"pad\" does not match function signature",
            ));
        }
    };
    let width = integer(args, 1)?;
    let target = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
    if target > MAX_PADDED.min(MAX_SEQUENCE * 4) {
        return Err(failure(format!(
            "$pad makes at most {MAX_PADDED} characters"
        )));
    }
    let filler = argument(args, 2)
        .as_str()
        .filter(|filler| !filler.is_empty())
        .unwrap_or(" ");
    let missing = target.saturating_sub(text.chars().count());
    let padding: String = filler.chars().cycle().take(missing).collect();
    Ok(if width < 0 {
        padding + &text
    } else {
        text + &padding
    }
    .into())
}
