//! Filters of paths: `[?(@.price < 10 && @.tag == 'a')]`.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Fuel, Miss, Step, nodes, select};

/// What stands in `[?( )]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// Something is there.
    Exists(Operand),
    Compare(Operand, Operator, Operand),
    /// `=~ /pattern/`
    Matches(Operand, Pattern),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Literal(Value),
    /// `@…`
    Item(Vec<Step>),
    /// `$…`
    Root(Vec<Step>),
}

/// A compiled regular expression, equal to another of the same text.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(pub(super) regex::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Contains,
    Size,
    Empty,
    SubsetOf,
    AnyOf,
    NoneOf,
}

impl Filter {
    /// Whether it holds for `item`; `root` is what `$` means.
    pub(super) fn holds(&self, item: &Value, root: &Value, fuel: &mut Fuel) -> Result<bool, Miss> {
        fuel.take(1)?;
        match self {
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(item, root, fuel)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(item, root, fuel)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(part) => part.holds(item, root, fuel).map(|holds| !holds),
            Self::Exists(operand) => match operand.value(item, root, fuel)? {
                // An indefinite path that finds nothing is an empty list.
                Some(Value::Array(items)) => Ok(!items.is_empty()),
                Some(_) => Ok(true),
                None => Ok(false),
            },
            Self::Compare(left, operator, right) => {
                let left = left.value(item, root, fuel)?;
                let right = right.value(item, root, fuel)?;
                match (left, right) {
                    (Some(left), Some(right)) => operator.holds(&left, &right, fuel),
                    // What is missing equals nothing.
                    (None, None) => Ok(*operator == Operator::Equal),
                    _ => Ok(matches!(operator, Operator::NotEqual | Operator::NotIn)),
                }
            }
            Self::Matches(operand, pattern) => match operand.value(item, root, fuel)? {
                Some(Value::String(text)) => {
                    fuel.take(text.len())?;
                    Ok(pattern.0.is_match(&text))
                }
                _ => Ok(false),
            },
        }
    }
}

impl Operand {
    fn value(&self, item: &Value, root: &Value, fuel: &mut Fuel) -> Result<Option<Value>, Miss> {
        let found = match self {
            Self::Literal(value) => return Ok(Some(value.clone())),
            Self::Item(steps) => select(steps, item, root, fuel),
            Self::Root(steps) => select(steps, root, root, fuel),
        };
        match found {
            Ok(value) => {
                fuel.take(nodes(&value))?;
                Ok(Some(value.into_owned()))
            }
            Err(Miss::NotFound | Miss::BadOperand) => Ok(None),
            Err(Miss::TooMuch) => Err(Miss::TooMuch),
        }
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value, fuel: &mut Fuel) -> Result<bool, Miss> {
        let found = |item: &Value, list: &Value, fuel: &mut Fuel| -> Result<bool, Miss> {
            let Value::Array(items) = list else {
                return Ok(false);
            };
            fuel.take(items.len())?;
            Ok(items.iter().any(|other| same(item, other)))
        };
        let each = |fuel: &mut Fuel| -> Result<Option<Vec<bool>>, Miss> {
            let Value::Array(items) = left else {
                return Ok(None);
            };
            let hits: Result<Vec<_>, _> =
                items.iter().map(|item| found(item, right, fuel)).collect();
            hits.map(Some)
        };
        Ok(match self {
            Self::Equal => same(left, right),
            Self::NotEqual => !same(left, right),
            Self::Less => order(left, right) == Some(Ordering::Less),
            Self::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
            Self::Greater => order(left, right) == Some(Ordering::Greater),
            Self::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
            Self::In => found(left, right, fuel)?,
            Self::NotIn => !found(left, right, fuel)?,
            Self::Contains => match (left, right) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                _ => found(right, left, fuel)?,
            },
            Self::Size => size(left).is_some_and(|len| right.as_u64() == Some(len as u64)),
            Self::Empty => size(left).is_some_and(|len| right.as_bool() == Some(len == 0)),
            Self::SubsetOf => each(fuel)?.is_some_and(|hits| hits.iter().all(|hit| *hit)),
            Self::AnyOf => each(fuel)?.is_some_and(|hits| hits.iter().any(|hit| *hit)),
            Self::NoneOf => each(fuel)?.is_some_and(|hits| !hits.iter().any(|hit| *hit)),
        })
    }
}

/// Equal as JSON, numbers by value.
pub(in crate::asl) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || order(left, right) == Some(Ordering::Equal)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => left == right,
    }
}

/// The order of two numbers or two strings.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::Array(items) => Some(items.len()),
        Value::String(text) => Some(text.chars().count()),
        _ => None,
    }
}
