//! JSONPath as the Amazon States Language has it.
//!
//! Step Functions evaluates paths with Jayway's `JsonPath`, which differs from
//! RFC 9535: a *definite* path (names and indexes only) gives one value or
//! fails, an *indefinite* one (wildcards, slices, filters, descendants) gives a
//! list of whatever there is, and an empty list if there is nothing, even if
//! what it looks into is missing. A path starts at the state's data (`$`), at
//! the context object (`$$`) or at a variable (`$name`).
//!
//! Evaluation is in place and counted: [`Fuel`] bounds the values visited, so
//! that chained descents over nested data end with an error.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

mod filter;
mod parser;

use filter::Filter;
pub(super) use filter::same;

/// Longest path, in bytes: far more than anyone can read.
pub(crate) const MAX_PATH_LEN: usize = 4096;

/// Values that the paths of one evaluation may visit: some milliseconds' worth.
pub(crate) const MAX_VISITS: usize = 1_000_000;

/// A compiled path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    text: Box<str>,
    pub(crate) root: Root,
    steps: Vec<Step>,
}

/// What a path starts at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// `$`
    Input,
    /// `$$`
    Context,
    /// `$name`
    Variable(Box<str>),
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// `.name`, `['name']`
    Name(Box<str>),
    /// `['a', 'b']`
    Names(Vec<Box<str>>),
    /// `.*`, `[*]`
    Wildcard,
    /// `[0]`, `[-1]`
    Index(i64),
    /// `[0, 2]`
    Indexes(Vec<i64>),
    /// `[1:3]`, `[-2:]`
    Slice(Option<i64>, Option<i64>),
    /// `[?(@.a > 1)]`
    Filter(Filter),
    /// `..`: the step after it applies to every descendant.
    Descend,
    /// `.length()`, at the end.
    Function(Function),
}

/// A function at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Length,
    Min,
    Max,
    Avg,
    Sum,
    Keys,
}

/// What is wrong with the text of a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct PathError {
    /// Where, in bytes from its start.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// Why a path gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Nothing is there.
    NotFound,
    /// More values were to be visited than may be.
    TooMuch,
    /// A function was applied to something that it is not defined for.
    BadOperand,
}

/// How many values may still be visited.
#[derive(Debug)]
pub(crate) struct Fuel(pub(crate) usize);

impl Fuel {
    pub(super) fn take(&mut self, count: usize) -> Result<(), Miss> {
        match self.0.checked_sub(count) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(Miss::TooMuch),
        }
    }
}

impl Path {
    /// Compiles the text of a path.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        parser::parse(text)
    }

    /// What follows the root.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether it is a root and nothing else.
    pub(crate) fn is_root(&self) -> bool {
        self.steps.is_empty()
    }

    /// The value, or the list of values, that it leads to from `root`.
    pub(crate) fn select<'v>(
        &self,
        root: &'v Value,
        fuel: &mut Fuel,
    ) -> Result<Cow<'v, Value>, Miss> {
        select(&self.steps, root, root, fuel)
    }

    /// The names and indexes of a reference path: one that says where a value goes.
    /// `None` if it is not one (ASL: no wildcards, slices, filters, functions).
    pub(crate) fn as_reference(&self) -> Option<Vec<Place<'_>>> {
        let place = |step: &Step| matches!(step, Step::Name(_) | Step::Index(0..));
        if self.root != Root::Input || !self.steps.iter().all(place) {
            return None;
        }
        let places = self.steps.iter().map(|step| match step {
            Step::Name(name) => Place::Name(name),
            Step::Index(index) => Place::Index(usize::try_from(*index).unwrap_or(usize::MAX)),
            _ => unreachable!("every step was seen to be a name or an index"),
        });
        Some(places.collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A step of a reference path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'p> {
    Name(&'p str),
    Index(usize),
}

/// Puts `value` at `places` in `target`, making objects on the way. `false` if
/// something on the way is neither missing nor an object nor a list that is
/// long enough.
pub(crate) fn put(target: &mut Value, places: &[Place<'_>], value: Value) -> bool {
    let mut at = target;
    for place in places {
        at = match place {
            Place::Name(name) => {
                if at.is_null() {
                    *at = Value::Object(serde_json::Map::new());
                }
                let Value::Object(map) = at else { return false };
                map.entry((*name).to_owned()).or_insert(Value::Null)
            }
            Place::Index(index) => match at.as_array_mut().and_then(|list| list.get_mut(*index)) {
                Some(item) => item,
                None => return false,
            },
        };
    }
    *at = value;
    true
}

/// What a copy costs: one for each value, and for each 64 bytes of text.
pub(super) fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes).sum::<usize>(),
        Value::String(text) => 1 + text.len() / 64,
        _ => 1,
    }
}

fn is_definite(steps: &[Step]) -> bool {
    let last = steps.len().saturating_sub(1);
    steps.iter().enumerate().all(|(at, step)| match step {
        Step::Name(_) | Step::Index(_) | Step::Function(_) => true,
        // At the end it gives an object of these names.
        Step::Names(_) => at == last,
        Step::Wildcard | Step::Indexes(_) | Step::Slice(..) | Step::Filter(_) | Step::Descend => {
            false
        }
    })
}

/// Follows `steps` from `value`; `root` is what `$` means in a filter.
fn select<'v>(
    steps: &[Step],
    value: &'v Value,
    root: &'v Value,
    fuel: &mut Fuel,
) -> Result<Cow<'v, Value>, Miss> {
    if let Some((Step::Function(function), before)) = steps.split_last() {
        let operand = select(before, value, root, fuel)?;
        return function.apply(&operand, fuel).map(Cow::Owned);
    }
    if is_definite(steps) {
        return select_one(steps, value, fuel);
    }
    let mut found = vec![value];
    let mut at = 0;
    while let Some(step) = steps.get(at) {
        at += 1;
        if *step == Step::Descend {
            let mut all = Vec::new();
            for value in found {
                descend(value, &mut all, fuel)?;
            }
            found = all;
            continue;
        }
        let mut next = Vec::new();
        for value in found {
            follow(step, value, root, &mut next, fuel)?;
        }
        found = next;
    }
    // Values that lie in each other are copied more than once.
    for value in &found {
        fuel.take(nodes(value))?;
    }
    Ok(Cow::Owned(Value::Array(
        found.into_iter().cloned().collect(),
    )))
}

fn select_one<'v>(
    steps: &[Step],
    value: &'v Value,
    fuel: &mut Fuel,
) -> Result<Cow<'v, Value>, Miss> {
    let mut at = value;
    for step in steps {
        fuel.take(1)?;
        let next = match step {
            Step::Name(name) => at.get(&**name),
            Step::Index(index) => element(at, *index),
            Step::Names(names) => {
                let Value::Object(map) = at else {
                    return Err(Miss::NotFound);
                };
                let picked = names
                    .iter()
                    .filter_map(|name| Some((name.to_string(), map.get(&**name)?.clone())));
                return Ok(Cow::Owned(Value::Object(picked.collect())));
            }
            _ => unreachable!("a definite path has only names and indexes"),
        };
        at = next.ok_or(Miss::NotFound)?;
    }
    Ok(Cow::Borrowed(at))
}

fn element(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let index = if index < 0 {
        list.len()
            .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(index).ok()?
    };
    list.get(index)
}

/// `value` and all within it, parents first.
fn descend<'v>(value: &'v Value, all: &mut Vec<&'v Value>, fuel: &mut Fuel) -> Result<(), Miss> {
    fuel.take(1)?;
    all.push(value);
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| descend(item, all, fuel)),
        Value::Object(map) => map.values().try_for_each(|item| descend(item, all, fuel)),
        _ => Ok(()),
    }
}

/// Adds what `step` leads to from `value`.
fn follow<'v>(
    step: &Step,
    value: &'v Value,
    root: &'v Value,
    next: &mut Vec<&'v Value>,
    fuel: &mut Fuel,
) -> Result<(), Miss> {
    fuel.take(1)?;
    match step {
        Step::Name(name) => next.extend(value.get(&**name)),
        Step::Names(names) => next.extend(names.iter().filter_map(|name| value.get(&**name))),
        Step::Index(index) => next.extend(element(value, *index)),
        Step::Indexes(indexes) => {
            next.extend(indexes.iter().filter_map(|index| element(value, *index)));
        }
        Step::Wildcard => match value {
            Value::Array(items) => next.extend(items),
            Value::Object(map) => next.extend(map.values()),
            _ => {}
        },
        Step::Slice(from, to) => {
            if let Value::Array(items) = value {
                next.extend(&items[slice(items.len(), *from, *to)]);
            }
        }
        Step::Filter(filter) => match value {
            Value::Array(items) => {
                for item in items {
                    if filter.holds(item, root, fuel)? {
                        next.push(item);
                    }
                }
            }
            // Jayway: a filter on an object is about the object itself.
            Value::Object(_) if filter.holds(value, root, fuel)? => next.push(value),
            _ => {}
        },
        Step::Descend | Step::Function(_) => {
            unreachable!("descents and functions are dealt with by `select`")
        }
    }
    Ok(())
}

/// The range of `[from:to]` in a list of `len`; negative counts from the end.
fn slice(len: usize, from: Option<i64>, to: Option<i64>) -> std::ops::Range<usize> {
    let resolve = |index: i64| {
        let distance = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
        if index < 0 {
            len.saturating_sub(distance)
        } else {
            distance.min(len)
        }
    };
    let start = from.map_or(0, resolve);
    let end = to.map_or(len, resolve);
    start..end.max(start)
}

impl Function {
    fn apply(self, operand: &Value, fuel: &mut Fuel) -> Result<Value, Miss> {
        match (self, operand) {
            (Self::Length, Value::Array(items)) => Ok(items.len().into()),
            (Self::Length, Value::Object(map)) => Ok(map.len().into()),
            (Self::Length, Value::String(text)) => Ok(text.chars().count().into()),
            (Self::Keys, Value::Object(map)) => {
                fuel.take(map.len())?;
                Ok(map.keys().cloned().map(Value::String).collect())
            }
            (Self::Min | Self::Max | Self::Avg | Self::Sum, Value::Array(items)) => {
                fuel.take(items.len())?;
                let numbers: Vec<f64> = items.iter().filter_map(Value::as_f64).collect();
                self.aggregate(&numbers).ok_or(Miss::BadOperand)
            }
            _ => Err(Miss::BadOperand),
        }
    }

    fn aggregate(self, numbers: &[f64]) -> Option<Value> {
        let sum: f64 = numbers.iter().sum();
        let result = match self {
            Self::Sum => sum,
            // A list has at most as many items as bytes of text: exact as f64.
            #[expect(clippy::cast_precision_loss)]
            Self::Avg if !numbers.is_empty() => sum / numbers.len() as f64,
            Self::Min => numbers.iter().copied().reduce(f64::min)?,
            Self::Max => numbers.iter().copied().reduce(f64::max)?,
            Self::Avg | Self::Length | Self::Keys => return None,
        };
        serde_json::Number::from_f64(result).map(Value::Number)
    }
}

#[cfg(test)]
mod tests;
