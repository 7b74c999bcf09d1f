//! Filters for lists and objects.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{integer_of, list_of, string_of, wrong};
use crate::expression::ast::BinaryOp;
use crate::expression::eval::{Evaluator, MAX_WALK, Val, owned, position};
use crate::expression::fault::{Fault, Result, other};
use crate::expression::number::Num;
use crate::expression::type_name;

/// Bytes that an element counts besides its content.
const ELEMENT: usize = 16;

pub(super) fn contains<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    evaluator.contains(input, &args[0]).map(owned)
}

pub(super) fn slice<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let len = match input.as_ref() {
        Value::Array(items) => items.len(),
        Value::String(text) => {
            evaluator.read(text.len())?;
            text.chars().count()
        }
        value => return Err(wrong("slice", "a string or a list", value)),
    };
    // Outside means up to the edge: the first ten of three are the three.
    let edge = |index: i64| position(index, len).unwrap_or(0).min(len);
    let from = edge(integer_of("slice", &args[0])?);
    let to = match args.get(1) {
        Some(to) => edge(integer_of("slice", to)?),
        None => len,
    };
    let count = to.saturating_sub(from);
    if let Value::String(text) = input.as_ref() {
        evaluator.make(text.len())?;
        return Ok(owned(
            text.chars().skip(from).take(count).collect::<String>(),
        ));
    }
    let items = list_of("slice", input)?;
    copies(evaluator, items.iter().skip(from).take(count))
}

pub(super) fn reverse<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    match input.as_ref() {
        Value::Array(items) => copies(evaluator, items.iter().rev()),
        Value::String(text) => {
            evaluator.make(text.len())?;
            Ok(owned(text.chars().rev().collect::<String>()))
        }
        value => Err(wrong("reverse", "a string or a list", value)),
    }
}

pub(super) fn first<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    pick(evaluator, "first", input, |_, items| {
        Ok((!items.is_empty()).then_some(0))
    })
}

pub(super) fn last<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    pick(evaluator, "last", input, |_, items| {
        Ok(items.len().checked_sub(1))
    })
}

pub(super) fn min<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    pick(evaluator, "min", input, |evaluator, items| {
        extreme(evaluator, "min", items, Ordering::Less)
    })
}

pub(super) fn max<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    pick(evaluator, "max", input, |evaluator, items| {
        extreme(evaluator, "max", items, Ordering::Greater)
    })
}

pub(super) fn sum<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let mut sum = Num::Int(0);
    for item in list_of("sum", input)? {
        evaluator.step(1)?;
        match keyed(evaluator, "sum", item, args.first())? {
            Value::Number(number) => {
                sum = sum
                    .arithmetic(BinaryOp::Add, Num::of(number))
                    .map_err(|problem| other(format!("`sum`: {problem}")))?;
            }
            value => return Err(wrong("sum", "a list of numbers", value)),
        }
    }
    sum.into_value()
        .map(Cow::Owned)
        .map_err(|problem| other(format!("`sum`: {problem}")))
}

pub(super) fn sort<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let items = list_of("sort", input)?;
    let mut pairs = Vec::with_capacity(items.len());
    for item in items {
        evaluator.step(1)?;
        pairs.push((keyed(evaluator, "sort", item, args.first())?, item));
    }
    check_order("sort", pairs.iter().map(|(key, _)| *key))?;
    // A merge sort compares each element log n times, and may read all of it.
    let rounds = usize::try_from(items.len().max(1).ilog2()).unwrap_or(0) + 1;
    let text: usize = pairs
        .iter()
        .filter_map(|(key, _)| key.as_str())
        .map(str::len)
        .sum();
    evaluator.step(items.len().saturating_mul(rounds))?;
    evaluator.read(text.saturating_mul(rounds))?;
    pairs.sort_by(|(a, _), (b, _)| order(a, b));
    copies(evaluator, pairs.iter().map(|(_, item)| *item))
}

pub(super) fn unique<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in list_of("unique", input)? {
        let key = keyed(evaluator, "unique", item, args.first())?;
        // Pays for the text and bounds the depth of what `canonical` walks.
        evaluator.measure(key, MAX_WALK)?;
        let mut text = String::new();
        canonical(key, &mut text);
        if seen.insert(text) {
            kept.push(item);
        }
    }
    copies(evaluator, kept.into_iter())
}

pub(super) fn flatten<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let items = list_of("flatten", input)?;
    evaluator.step(items.len())?;
    let opened = items.iter().flat_map(|item| match item {
        Value::Array(inner) => inner.as_slice(),
        item => std::slice::from_ref(item),
    });
    copies(evaluator, opened)
}

pub(super) fn map<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let items = list_of("map", input)?;
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        evaluator.make(ELEMENT)?;
        let value = keyed(evaluator, "map", item, args.first())?;
        values.push(evaluator.copy(value)?);
    }
    Ok(owned(values))
}

pub(super) fn filter_where<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let key = string_of("where", &args[0])?;
    let wanted = args.get(1).map_or(&Value::Bool(true), AsRef::as_ref);
    let mut kept = Vec::new();
    for item in list_of("where", input)? {
        evaluator.step(1)?;
        evaluator.look(key.len())?;
        let matches = match item.get(key) {
            Some(value) => evaluator.equal(value, wanted)?,
            None => false,
        };
        if matches {
            kept.push(item);
        }
    }
    copies(evaluator, kept.into_iter())
}

pub(super) fn keys<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let mut keys = Vec::new();
    for (key, _) in sorted(evaluator, "keys", input)? {
        evaluator.step(1)?;
        evaluator.make(ELEMENT + key.len())?;
        keys.push(Value::from(key));
    }
    Ok(owned(keys))
}

pub(super) fn values<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    _: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let entries = sorted(evaluator, "values", input)?;
    copies(evaluator, entries.into_iter().map(|(_, value)| value))
}

pub(super) fn merge<'x>(
    evaluator: &mut Evaluator<'x>,
    input: &Val<'x>,
    args: &[Val<'x>],
) -> Result<'x, Val<'x>> {
    let (Value::Object(base), Value::Object(over)) = (input.as_ref(), args[0].as_ref()) else {
        let wrong_one = if input.is_object() { &args[0] } else { input };
        return Err(wrong("merge", "two objects", wrong_one));
    };
    evaluator.look(base.keys().map(String::len).sum())?;
    let mut merged = Map::new();
    for (key, value) in base
        .iter()
        .filter(|(key, _)| !over.contains_key(*key))
        .chain(over)
    {
        evaluator.make(key.len())?;
        merged.insert(key.clone(), evaluator.copy(value)?);
    }
    Ok(Cow::Owned(Value::Object(merged)))
}

/// A list of copies.
fn copies<'x, 'v>(
    evaluator: &mut Evaluator<'x>,
    items: impl Iterator<Item = &'v Value>,
) -> Result<'x, Val<'x>> {
    let mut list = Vec::new();
    for item in items {
        evaluator.make(ELEMENT)?;
        list.push(evaluator.copy(item)?);
    }
    Ok(owned(list))
}

/// One element of a list, borrowed if the list is.
fn pick<'x>(
    evaluator: &mut Evaluator<'x>,
    filter: &'static str,
    input: &Val<'x>,
    choose: impl FnOnce(&mut Evaluator<'x>, &[Value]) -> Result<'x, Option<usize>>,
) -> Result<'x, Val<'x>> {
    let at = choose(evaluator, list_of(filter, input)?)?.ok_or(Fault::Empty(filter))?;
    match input {
        Cow::Borrowed(list) => Ok(Cow::Borrowed(&list[at])),
        Cow::Owned(list) => evaluator.copy(&list[at]).map(Cow::Owned),
    }
}

/// Index of the element that is `wanted` than all others; the first of equals.
fn extreme<'x>(
    evaluator: &mut Evaluator<'x>,
    filter: &'static str,
    items: &[Value],
    wanted: Ordering,
) -> Result<'x, Option<usize>> {
    check_order(filter, items.iter())?;
    evaluator.step(items.len())?;
    evaluator.read(items.iter().filter_map(Value::as_str).map(str::len).sum())?;
    Ok((0..items.len()).reduce(|best, at| {
        if order(&items[at], &items[best]) == wanted {
            at
        } else {
            best
        }
    }))
}

/// The value of `item` that a filter works by: itself, or that of a key.
fn keyed<'x, 'v>(
    evaluator: &mut Evaluator<'x>,
    filter: &str,
    item: &'v Value,
    key: Option<&Val<'x>>,
) -> Result<'x, &'v Value> {
    let Some(key) = key else { return Ok(item) };
    let key = string_of(filter, key)?;
    evaluator.look(key.len())?;
    item.get(key).ok_or_else(|| match item {
        Value::Object(_) => other(format!("`{filter}`: an element does not have the key")),
        _ => wrong(filter, "a list of objects", item),
    })
}

/// That all values are numbers, or all are strings.
fn check_order<'x, 'v>(
    filter: &str,
    mut values: impl Iterator<Item = &'v Value>,
) -> Result<'x, ()> {
    let Some(first) = values.next() else {
        return Ok(());
    };
    let same = |value: &Value| match first {
        Value::Number(_) => value.is_number(),
        _ => value.is_string(),
    };
    if !same(first) {
        return Err(wrong(filter, "numbers or strings", first));
    }
    match values.find(|value| !same(value)) {
        None => Ok(()),
        Some(odd) => Err(other(format!(
            "`{filter}` needs all numbers or all strings, not {} and {}",
            type_name(first),
            type_name(odd)
        ))),
    }
}

/// Order of two numbers or two strings.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Num::of(a).compare(Num::of(b)),
        _ => a.as_str().cmp(&b.as_str()),
    }
}

/// Text that two values share exactly if they are equal.
fn canonical(value: &Value, to: &mut String) {
    match value {
        Value::Number(number) => match Num::of(number) {
            Num::Float(float) if Num::whole(float).is_some() => {
                to.push_str(&Num::whole(float).unwrap_or_default().to_string());
            }
            _ => to.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            to.push('[');
            for item in items {
                canonical(item, to);
                to.push(',');
            }
            to.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            to.push('{');
            for (key, item) in entries {
                to.push_str(&Value::from(key.as_str()).to_string());
                canonical(item, to);
                to.push(',');
            }
            to.push('}');
        }
        scalar => to.push_str(&scalar.to_string()),
    }
}

/// The entries of an object by key, whatever order the map keeps.
fn sorted<'x, 'v>(
    evaluator: &mut Evaluator<'x>,
    filter: &str,
    value: &'v Value,
) -> Result<'x, Vec<(&'v str, &'v Value)>> {
    let Value::Object(map) = value else {
        return Err(wrong(filter, "an object", value));
    };
    let mut entries: Vec<_> = map
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    evaluator.look(entries.iter().map(|(key, _)| key.len()).sum())?;
    entries.sort_by_key(|(key, _)| *key);
    Ok(entries)
}
