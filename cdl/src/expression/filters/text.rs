//! Filters for text.

use serde_json::Value;

use super::{list_of, string_of, wrong};
use crate::expression::eval::{Evaluator, Val, owned};
use crate::expression::fault::{Result, other};

/// Bytes that an element of a list of strings counts besides its text.
const ELEMENT: usize = 16;

/// A letter may become three in the other case, each of up to three bytes.
const CASE_GROWTH: usize = 3;

pub(super) fn upper<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = string_of("upper", input)?;
    evaluator.make(text.len().saturating_mul(CASE_GROWTH))?;
    Ok(owned(text.to_uppercase()))
}

pub(super) fn lower<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = string_of("lower", input)?;
    evaluator.make(text.len().saturating_mul(CASE_GROWTH))?;
    Ok(owned(text.to_lowercase()))
}

pub(super) fn trim<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = string_of("trim", input)?;
    evaluator.make(text.len())?;
    Ok(owned(text.trim()))
}

pub(super) fn replace<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = string_of("replace", input)?;
    let from = string_of("replace", &args[0])?;
    let to = string_of("replace", &args[1])?;
    if from.is_empty() {
        return Err(other(
            "`replace` needs something to replace, not an empty string",
        ));
    }
    evaluator.read(text.len())?;
    let count = text.matches(from).count();
    evaluator.step(count)?;
    let grown = text.len().saturating_add(count.saturating_mul(to.len()));
    evaluator.make(grown - count * from.len())?;
    Ok(owned(text.replace(from, to)))
}

pub(super) fn split<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = string_of("split", input)?;
    let separator = string_of("split", &args[0])?;
    if separator.is_empty() {
        return Err(other("`split` needs a separator, not an empty string"));
    }
    evaluator.make(text.len())?;
    let mut parts = Vec::new();
    for part in text.split(separator) {
        evaluator.step(1)?;
        evaluator.make(ELEMENT)?;
        parts.push(Value::from(part));
    }
    Ok(owned(parts))
}

pub(super) fn join<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let separator = match args.first() {
        Some(separator) => string_of("join", separator)?,
        None => ",",
    };
    let mut joined = String::new();
    for (at, item) in list_of("join", input)?.iter().enumerate() {
        evaluator.step(1)?;
        if at > 0 {
            evaluator.make(separator.len())?;
            joined.push_str(separator);
        }
        evaluator.push_text(&mut joined, item)?;
    }
    Ok(owned(joined))
}

pub(super) fn length<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    Ok(owned(match input.as_ref() {
        Value::String(text) => {
            evaluator.read(text.len())?;
            text.chars().count()
        }
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        value => return Err(wrong("length", "a string, list or object", value)),
    }))
}
