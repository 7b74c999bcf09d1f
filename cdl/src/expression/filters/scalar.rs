//! Filters for single values: conversions, numbers, time, identity.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{integer_of, string_of, wrong};
use crate::expression::MAX_VALUE_DEPTH;
use crate::expression::eval::{Evaluator, Val, owned};
use crate::expression::fault::{Result, other};
use crate::expression::number::Num;
use crate::{Timestamp, fnv1a32};

/// Longest format of `date`, in bytes: each directive may be padded to 255.
const MAX_FORMAT: usize = 256;

/// Times that `from_json` counts a text before it reads it. In the extreme,
/// `[0,0,0]`, a value takes sixteen times its text; it is measured only after.
const PARSED_GROWTH: usize = 4;

/// Most digits that `round` keeps: more than a float has.
const MAX_DIGITS: i64 = 15;

pub(super) fn shard<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    if input.is_array() || input.is_object() || input.is_null() {
        return Err(wrong("shard", "a string, number or boolean", input));
    }
    let text = evaluator.text(input)?;
    evaluator.read(text.len())?;
    let shard = fnv1a32(text.as_bytes()) % evaluator.env.shards.max(1);
    Ok(owned(format!("shard-{shard}")))
}

pub(super) fn hash<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = evaluator.text(input)?;
    // Hashing takes several times as long as other reading.
    evaluator.read(text.len().saturating_mul(4))?;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
    }
    Ok(owned(hex))
}

pub(super) fn uuid_of<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = evaluator.text(input)?;
    evaluator.read(text.len().saturating_mul(4))?;
    Ok(uuid(evaluator, &text))
}

/// A UUID that is fresh, yet the same in every replay: a hash (version 8) of
/// the execution, the evaluation's number, the occurrence in it, and `text`.
pub(in crate::expression) fn uuid<'x>(evaluator: &mut Evaluator<'x>, text: &str) -> Val<'x> {
    let mut hash = Sha256::new();
    hash.update(evaluator.env.id.0.as_bytes());
    hash.update(evaluator.env.seq.to_be_bytes());
    hash.update(evaluator.uuids.to_be_bytes());
    hash.update(text.as_bytes());
    evaluator.uuids += 1;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    owned(Uuid::new_v8(bytes).to_string())
}

pub(super) fn json<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    evaluator.json(input).map(owned)
}

pub(super) fn from_json<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = string_of("from_json", input)?;
    evaluator.make(text.len().saturating_mul(PARSED_GROWTH))?;
    let value: Value = serde_json::from_str(text)
        .map_err(|error| other(format!("`from_json`: {}", without_content(&error))))?;
    evaluator.measure(&value, MAX_VALUE_DEPTH)?;
    Ok(Cow::Owned(value))
}

/// What is wrong with a JSON text and where, without any of it.
fn without_content(error: &serde_json::Error) -> String {
    let what = if error.is_eof() {
        "text ends early"
    } else {
        "text is not JSON"
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

pub(super) fn string<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    evaluator.json(input).map(owned)
}

pub(super) fn number<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let text = input
        .as_str()
        .ok_or_else(|| wrong("number", "a string or a number", input))?
        .trim();
    evaluator.read(text.len())?;
    // JSON's own grammar, so that nothing like `inf`, `0x1` or `1_000` gets in.
    match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Number(_)) => Ok(Cow::Owned(value)),
        _ => Err(other("`number` needs a string that is a number")),
    }
}

pub(super) fn date<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let at = match input.as_ref() {
        Value::String(text) => {
            evaluator.read(text.len())?;
            text.parse()
                .map_err(|_| other("`date` needs an RFC 3339 time, as in `2026-01-31T09:30:00Z`"))?
        }
        Value::Number(_) => jiff::Timestamp::from_millisecond(integer_of("date", input)?)
            .map_err(|_| other("`date`: the number is outside the years -9999 to 9999"))?,
        wrong_type => return Err(wrong("date", "RFC 3339 text or milliseconds", wrong_type)),
    };
    let Some(format) = args.first() else {
        let millis = u64::try_from(at.as_millisecond())
            .map_err(|_| other("`date` before 1970 needs a format"))?;
        return Ok(owned(Timestamp(millis).to_string()));
    };
    let format = string_of("date", format)?;
    if format.len() > MAX_FORMAT {
        return Err(other(format!(
            "`date` needs a format of at most {MAX_FORMAT} bytes"
        )));
    }
    let text = jiff::fmt::strtime::format(format, at).map_err(|_| {
        other("`date` needs a `strftime` format, as in `%Y-%m-%d`; a directive in it is unknown")
    })?;
    evaluator.make(text.len())?;
    Ok(owned(text))
}

pub(super) fn round<'x>(
    _: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let digits = match args.first() {
        Some(digits) => integer_of("round", digits)?,
        None => 0,
    };
    if !(0..=MAX_DIGITS).contains(&digits) {
        return Err(other(format!("`round` keeps 0 to {MAX_DIGITS} digits")));
    }
    if digits == 0 {
        return rounded("round", input, f64::round);
    }
    match number_of("round", input)? {
        Num::Int(_) => Ok(input.clone()),
        Num::Float(float) => {
            let scale = 10_f64.powi(i32::try_from(digits).unwrap_or(0));
            let scaled = (float * scale).round() / scale;
            // Too large to scale is too large to have digits behind the point.
            Ok(owned(if scaled.is_finite() { scaled } else { float }))
        }
    }
}

pub(super) fn floor<'x>(
    _: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    rounded("floor", input, f64::floor)
}

pub(super) fn ceil<'x>(
    _: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    rounded("ceil", input, f64::ceil)
}

pub(super) fn abs<'x>(
    _: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let number = number_of("abs", input)?;
    let positive = match number {
        Num::Int(int) => Num::Int(int.abs()),
        Num::Float(float) => Num::Float(float.abs()),
    };
    positive.into_value().map(Cow::Owned).map_err(other)
}

fn number_of<'x>(filter: &str, value: &Value) -> Result<'x, Num> {
    match value {
        Value::Number(number) => Ok(Num::of(number)),
        _ => Err(wrong(filter, "a number", value)),
    }
}

fn rounded<'x>(filter: &str, value: &Value, round: fn(f64) -> f64) -> Result<'x, Val<'x>> {
    let number = number_of(filter, value)?.rounded(round);
    number.into_value().map(Cow::Owned).map_err(other)
}
