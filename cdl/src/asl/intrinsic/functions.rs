//! What the intrinsic functions compute. An `Err` is for people: the error of
//! the state is `States.IntrinsicFailure`, whatever the reason.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use sha2::Digest as _;

use super::Function;
use crate::asl::path::same;
use crate::asl::random::{Random, seeded_unit};

/// Longest text that Base64 and hash functions take, in characters (AWS's limit).
const MAX_CODED_CHARS: usize = 10_000;

/// Most numbers of a range (AWS's limit).
const MAX_RANGE: usize = 1_000;

/// Longest text or list that a function makes, in bytes: AWS's limit for the
/// data of a state, which no larger result could pass.
const MAX_RESULT_BYTES: usize = 256 * 1024;

impl Function {
    /// Applies it. The number of `arguments` was checked by the parser; `raw` is
    /// the first one with its escapes, if it is a literal text.
    pub(in crate::asl) fn apply(
        self,
        arguments: &[Value],
        raw: Option<&str>,
        random: &Random,
    ) -> Result<Value, String> {
        let argument = |at: usize| arguments.get(at).unwrap_or(&Value::Null);
        match self {
            Self::Format => format(argument(0), raw, arguments.get(1..).unwrap_or_default()),
            Self::StringToJson => string_to_json(text(argument(0))?),
            Self::JsonToString => Ok(argument(0).to_string().into()),
            Self::Array => Ok(Value::Array(arguments.to_vec())),
            Self::ArrayPartition => array_partition(list(argument(0))?, integer(argument(1))?),
            Self::ArrayContains => {
                let items = list(argument(0))?;
                Ok(items.iter().any(|item| same(item, argument(1))).into())
            }
            Self::ArrayRange => array_range(
                integer(argument(0))?,
                integer(argument(1))?,
                integer(argument(2))?,
            ),
            Self::ArrayGetItem => {
                let (items, index) = (list(argument(0))?, integer(argument(1))?);
                let item = usize::try_from(index).ok().and_then(|at| items.get(at));
                item.cloned()
                    .ok_or_else(|| format!("index {index} is outside of a list of {}", items.len()))
            }
            Self::ArrayLength => Ok(list(argument(0))?.len().into()),
            Self::ArrayUnique => Ok(unique(list(argument(0))?)),
            Self::Base64Encode => base64_encode(text(argument(0))?),
            Self::Base64Decode => base64_decode(text(argument(0))?),
            Self::Hash => hash(argument(0), text(argument(1))?),
            Self::JsonMerge => json_merge(argument(0), argument(1), argument(2)),
            Self::MathRandom => math_random(argument(0), argument(1), arguments.get(2), random),
            Self::MathAdd => {
                let sum = integer(argument(0))?.checked_add(integer(argument(1))?);
                sum.map(Value::from)
                    .ok_or_else(|| "the sum has no exact number".to_owned())
            }
            Self::StringSplit => Ok(split(text(argument(0))?, text(argument(1))?)),
            Self::Uuid => Ok(random.uuid().into()),
        }
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("expected a text, not {}", kind(value)))
}

fn list(value: &Value) -> Result<&[Value], String> {
    let items = value.as_array().map(Vec::as_slice);
    items.ok_or_else(|| format!("expected a list, not {}", kind(value)))
}

/// A whole number; AWS rounds to the nearest.
fn integer(value: &Value) -> Result<i64, String> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let rounded = value.as_f64().map(f64::round);
    match rounded {
        // The bounds of what a double counts exactly.
        Some(number) if number.abs() <= 9_007_199_254_740_992.0 => {
            #[expect(clippy::cast_possible_truncation)] // whole, and within 2^53
            Ok(number as i64)
        }
        _ => Err(format!("expected a whole number, not {}", kind(value))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number of this size",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Replaces each `{}` of a template. A template that is a literal has its
/// escapes still, so that `\{\}` is no place for an argument.
fn format(template: &Value, raw: Option<&str>, arguments: &[Value]) -> Result<Value, String> {
    let template = match raw {
        Some(raw) => raw,
        None => text(template)?,
    };
    let mut result = String::new();
    let mut rest = arguments.iter();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next_if(|next| "'{}\\".contains(*next)) {
                Some(escaped) => result.push(escaped),
                None => result.push('\\'),
            },
            '{' if chars.next_if_eq(&'}').is_some() => {
                let Some(argument) = rest.next() else {
                    return Err("there are more `{}` than arguments".to_owned());
                };
                write_plain(argument, &mut result);
            }
            c => result.push(c),
        }
        if result.len() > MAX_RESULT_BYTES {
            return Err(format!("the result has more than {MAX_RESULT_BYTES} bytes"));
        }
    }
    match rest.next() {
        None => Ok(result.into()),
        Some(_) => Err("there are more arguments than `{}`".to_owned()),
    }
}

/// A value as Java prints it, which is what AWS interpolates: `{a=1, b=[x]}`.
fn write_plain(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_plain(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                out.push_str(key);
                out.push('=');
                write_plain(item, out);
            }
            out.push('}');
        }
        other => {
            let _ = write!(out, "{other}"); // writing to a String cannot fail
        }
    }
}

/// AWS reads blank text as `null`.
fn string_to_json(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|error| format!("the text is not JSON: {error}"))
}

/// Chunks of `size`, the last one with what is left.
pub(crate) fn array_partition(items: &[Value], size: i64) -> Result<Value, String> {
    match usize::try_from(size) {
        Ok(size @ 1..) => Ok(items
            .chunks(size)
            .map(|chunk| Value::Array(chunk.to_vec()))
            .collect()),
        _ => Err(format!("a chunk cannot have {size} items")),
    }
}

/// From `first` up or down to `last`, both included.
pub(crate) fn array_range(first: i64, last: i64, step: i64) -> Result<Value, String> {
    if step == 0 {
        return Err("the step of a range cannot be 0".to_owned());
    }
    let mut numbers = Vec::new();
    let mut next = Some(first);
    while let Some(number) = next {
        if (step > 0 && number > last) || (step < 0 && number < last) {
            break;
        }
        if numbers.len() == MAX_RANGE {
            return Err(format!("a range has at most {MAX_RANGE} numbers"));
        }
        numbers.push(Value::from(number));
        next = number.checked_add(step);
    }
    Ok(Value::Array(numbers))
}

fn unique(items: &[Value]) -> Value {
    // By text, since values have no order; numbers by value, as `same` has it.
    let mut seen = std::collections::BTreeSet::new();
    let key = |item: &Value| match item.as_f64() {
        Some(number) => number.to_string(),
        None => item.to_string(),
    };
    let first = items.iter().filter(|item| seen.insert(key(item)));
    first.cloned().collect()
}

fn check_len(text: &str) -> Result<(), String> {
    // Counting stops where the answer is known.
    match text.chars().nth(MAX_CODED_CHARS) {
        None => Ok(()),
        Some(_) => Err(format!(
            "the text has more than {MAX_CODED_CHARS} characters"
        )),
    }
}

fn base64_encode(text: &str) -> Result<Value, String> {
    check_len(text)?;
    Ok(STANDARD.encode(text).into())
}

fn base64_decode(text: &str) -> Result<Value, String> {
    check_len(text)?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| format!("the text is not Base64: {error}"))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err("the decoded bytes are not UTF-8".to_owned()),
    }
}

/// A digest in hexadecimal; of what is not text, that of its JSON.
pub(crate) fn hash(data: &Value, algorithm: &str) -> Result<Value, String> {
    let text = match data {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    check_len(&text)?;
    let digest = match algorithm {
        "MD5" => hex(&md5::Md5::digest(&text)),
        "SHA-1" => hex(&sha1::Sha1::digest(&text)),
        "SHA-256" => hex(&sha2::Sha256::digest(&text)),
        "SHA-384" => hex(&sha2::Sha384::digest(&text)),
        "SHA-512" => hex(&sha2::Sha512::digest(&text)),
        other => return Err(format!("there is no hash algorithm `{other}`")),
    };
    Ok(digest.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// AWS merges shallowly only: the third argument has to be `false`.
fn json_merge(first: &Value, second: &Value, deep: &Value) -> Result<Value, String> {
    let (Value::Object(first), Value::Object(second)) = (first, second) else {
        return Err("only objects can be merged".to_owned());
    };
    if *deep != Value::Bool(false) {
        return Err("deep merging is not supported: the third argument is false".to_owned());
    }
    let merged = first.iter().chain(second);
    let merged: Map<_, _> = merged.map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Value::Object(merged))
}

/// A whole number from `first`, below `last`.
fn math_random(
    first: &Value,
    last: &Value,
    seed: Option<&Value>,
    random: &Random,
) -> Result<Value, String> {
    let (first, last) = (integer(first)?, integer(last)?);
    let Some(span @ 1..) = last.checked_sub(first) else {
        return Err("the end of the range is not beyond its start".to_owned());
    };
    let unit = match seed {
        Some(seed) => match seed.as_f64() {
            Some(seed) => seeded_unit(seed),
            None => return Err(format!("expected a number, not {}", kind(seed))),
        },
        None => random.unit(),
    };
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    // below the span, so within 64 bits; a span beyond 2^53 loses its last digits only
    let offset = (unit * span as f64) as i64;
    Ok(Value::Number(Number::from(
        first + offset.clamp(0, span - 1),
    )))
}

/// Each character of `separators` separates; there are no empty parts.
fn split(text: &str, separators: &str) -> Value {
    if separators.is_empty() {
        return Value::Array(vec![text.into()]);
    }
    let parts = text.split(|c| separators.contains(c));
    parts
        .filter(|part| !part.is_empty())
        .map(Value::from)
        .collect()
}
