//! What an execution is found by: labels and attributes.
//!
//! Labels are given by whoever starts an execution, and stay. Attributes are what its
//! workflow says of it, `attributes:`, computed anew whenever the context has changed:
//! they follow from the execution as everything else does, so replay gives them again.
//! They never influence how it goes on. One that cannot be computed yet, since what it
//! reads is not there, is not there either; nothing fails because of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Timestamp;
use crate::expression::{Env, Template};
use crate::machine::Machine;

/// Most labels of an execution: each is an entry of two indexes.
pub const MAX_LABELS: usize = 16;

/// Most attributes of a workflow: each is an entry of two indexes, and computed after
/// each event that changes the context.
pub const MAX_ATTRIBUTES: usize = 16;

/// Longest name of a label, in bytes, as in Kubernetes.
pub const MAX_LABEL_NAME_BYTES: usize = 63;

/// Longest value of a label or an attribute, in bytes: it is part of an index, and of
/// every row of a list.
pub const MAX_TAG_VALUE_BYTES: usize = 256;

/// Steps that an attribute may take. A path or a comparison takes a few; sixteen times
/// this is some milliseconds, for which others wait.
const ATTRIBUTE_STEPS: usize = 10_000;

/// What an execution is found by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// As given at the start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// As the workflow says, by name: strings, numbers and booleans. A string that is
    /// an RFC 3339 time is a time ([`Scalar`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
}

/// A value of an attribute, with its type: values of different types are never equal, and
/// none is greater.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A number; integers are exact.
    Number(serde_json::Number),
    /// True or false.
    Bool(bool),
    /// A point in time, with the milliseconds that it has.
    Time(Timestamp),
}

/// What is wrong with labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// Too many.
    #[error("an execution has at most {MAX_LABELS} labels, not {0}")]
    Number(usize),
    /// A name.
    #[error(
        "label name `{0}` is not allowed: names have 1 to {MAX_LABEL_NAME_BYTES} letters, digits \
         and `-_./` of ASCII, and begin and end with a letter or digit"
    )]
    Name(String),
    /// A value.
    #[error(
        "label `{name}` has a value of {bytes} bytes; at most {MAX_TAG_VALUE_BYTES} are allowed"
    )]
    Value {
        /// Of which label.
        name: String,
        /// How long it is.
        bytes: usize,
    },
}

impl Tags {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.attributes.is_empty()
    }

    /// Bytes of names and values, roughly.
    pub fn bytes(&self) -> usize {
        let labels = self.labels.iter();
        let labels = labels.map(|(name, value)| name.len() + value.len());
        let attributes = self
            .attributes
            .iter()
            .map(|(name, value)| name.len() + value.as_str().map_or(size_of::<u64>(), str::len));
        labels.sum::<usize>() + attributes.sum::<usize>()
    }
}

/// Whether a label can have such a name.
pub fn is_label_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= MAX_LABEL_NAME_BYTES
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

/// Whether an execution may be started with these labels.
///
/// # Errors
///
/// [`InvalidLabels`] tells what is wrong.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), InvalidLabels> {
    if labels.len() > MAX_LABELS {
        return Err(InvalidLabels::Number(labels.len()));
    }
    for (name, value) in labels {
        if !is_label_name(name) {
            let shown = name.chars().take(MAX_LABEL_NAME_BYTES).collect();
            return Err(InvalidLabels::Name(shown));
        }
        if value.len() > MAX_TAG_VALUE_BYTES {
            let (name, bytes) = (name.clone(), value.len());
            return Err(InvalidLabels::Value { name, bytes });
        }
    }
    Ok(())
}

/// Whether an attribute can have such a name: a word, so that it can be written before an
/// operator.
pub fn is_attribute_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Scalar {
    /// The value with its type; `None` if an attribute cannot have it.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.len() > MAX_TAG_VALUE_BYTES => None,
            Value::String(text) => Some(Self::of_text(text)),
            Value::Number(number) => Some(Self::Number(number.clone())),
            Value::Bool(it) => Some(Self::Bool(*it)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// How it compares to another value; not at all to one of another type.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Number(a), Self::Number(b)) => Some(numbers(a, b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    fn of_text(text: &str) -> Self {
        // The least that any other text is asked for.
        let dated = text.as_bytes().get(4) == Some(&b'-');
        let time = dated
            .then(|| text.parse::<jiff::Timestamp>().ok())
            .flatten();
        let time = time.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        match time {
            Some(at) => Self::Time(Timestamp(at)),
            None => Self::Text(text.to_owned()),
        }
    }
}

/// How numbers compare; integers exactly.
fn numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => to_float(a, b.as_f64().unwrap_or(f64::MAX)),
        (None, Some(b)) => to_float(b, a.as_f64().unwrap_or(f64::MAX)).reverse(),
        (None, None) => {
            let (a, b) = (a.as_f64(), b.as_f64());
            a.partial_cmp(&b).unwrap_or(Ordering::Equal) // no number of JSON is not a number
        }
    }
}

/// How an integer of 64 bits compares to another number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what has no such integer saturates, beyond all of 64 bits"
)]
fn to_float(integer: i128, float: f64) -> Ordering {
    let whole = float.floor();
    let order = integer.cmp(&(whole as i128));
    // With a fraction it is greater than the integer below it.
    order.then(if float > whole {
        Ordering::Less
    } else {
        Ordering::Equal
    })
}

/// What an attribute of a file gives, if it is the same for every execution, has to be.
pub(crate) fn is_attribute(value: &Value) -> bool {
    Scalar::of(value).is_some()
}

/// The attributes of an execution with this context.
fn attributes(templates: &BTreeMap<String, Template>, env: &Env<'_>) -> BTreeMap<String, Value> {
    let given = templates.iter().filter_map(|(name, template)| {
        let (value, _) = template.eval_within(env, ATTRIBUTE_STEPS);
        let value = value.ok()?;
        is_attribute(&value).then(|| (name.clone(), value.into_owned()))
    });
    given.collect()
}

impl Machine<'_> {
    /// Computes the attributes anew, if the context has changed since.
    pub(crate) fn tag(&mut self) {
        if !std::mem::take(&mut self.untagged) {
            return;
        }
        let execution = &self.execution;
        if self.program.attributes.is_empty() || execution.context.is_null() {
            return;
        }
        let env = Env {
            context: &execution.context,
            overlays: &[],
            locals: &[],
            now: self.now,
            shards: execution.shards,
            id: execution.id,
            // No number of the execution's is used up: what is searched for must not
            // change what is run.
            seq: 0,
        };
        self.execution.tags.attributes = attributes(&self.program.attributes, &env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_in_number_name_and_value() {
        let label = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for good in ["a", "app.kubernetes.io/name", "A-1_b"] {
            assert_eq!(check_labels(&label(good, "ü\0")), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "ä", "a=b", &"a".repeat(64)] {
            let found = check_labels(&label(bad, "v"));
            assert!(matches!(found, Err(InvalidLabels::Name(_))), "{bad}");
        }
        assert_eq!(check_labels(&label("a", &"x".repeat(256))), Ok(()));
        assert!(check_labels(&label("a", &"x".repeat(257))).is_err());
        let many = |count: usize| {
            (0..count)
                .map(|n| (format!("l{n}"), String::new()))
                .collect()
        };
        assert_eq!(check_labels(&many(16)), Ok(()));
        assert_eq!(check_labels(&many(17)), Err(InvalidLabels::Number(17)));
    }

    #[test]
    fn a_text_that_is_a_time_is_a_time() {
        let of = |text: &str| Scalar::of(&Value::from(text));
        assert_eq!(
            of("1970-01-01T00:00:01Z"),
            Some(Scalar::Time(Timestamp(1_000)))
        );
        assert_eq!(
            of("1970-01-01T01:00:01+01:00"),
            Some(Scalar::Time(Timestamp(1_000)))
        );
        for text in [
            "",
            "1970-01-01",
            "2026-99-01T00:00:00Z",
            "1900-01-01T00:00:00Z",
            "éé-é",
        ] {
            assert_eq!(of(text), Some(Scalar::Text(text.to_owned())), "{text}");
        }
        assert_eq!(of(&"x".repeat(257)), None);
    }
}
