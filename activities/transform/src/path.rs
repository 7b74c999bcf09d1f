//! Paths into JSON: keys and indexes, joined by dots.

use std::fmt;

use cascade_sdk::{Value, json};
use serde::Deserialize;

/// A path; the empty one is the whole value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Path {
    text: String,
    parts: Vec<String>,
}

impl From<String> for Path {
    fn from(text: String) -> Self {
        let mut parts = Vec::new();
        if !text.is_empty() {
            parts.push(String::new());
        }
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            if c == '.' {
                parts.push(String::new());
                continue;
            }
            // A backslash at the end stands for itself.
            let escaped = (c == '\\').then(|| characters.next()).flatten();
            if let Some(part) = parts.last_mut() {
                part.push(escaped.unwrap_or(c));
            }
        }
        Self { text, parts }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Path {
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.parts
            .iter()
            .try_fold(value, |value, part| match value {
                Value::Object(object) => object.get(part),
                Value::Array(elements) => elements.get(index(part)?),
                _ => None,
            })
    }

    pub(crate) fn find_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        self.parts
            .iter()
            .try_fold(value, |value, part| child_mut(value, part))
    }

    /// Takes the part out; of the whole, `null` is left.
    pub(crate) fn take(&self, value: &mut Value) -> Option<Value> {
        let Some((last, way)) = self.parts.split_last() else {
            return Some(value.take());
        };
        let parent = way
            .iter()
            .try_fold(value, |value, part| child_mut(value, part))?;
        match parent {
            Value::Object(object) => object.remove(last),
            Value::Array(elements) => {
                let index = index(last)?;
                (index < elements.len()).then(|| elements.remove(index))
            }
            _ => None,
        }
    }

    /// Puts a part in, and makes the objects on the way; says what stands in
    /// the way. The index just behind a list's end adds to it.
    pub(crate) fn put(&self, value: &mut Value, part: Value) -> Result<(), String> {
        let mut place = value;
        for (depth, key) in self.parts.iter().enumerate() {
            if place.is_null() {
                *place = json!({});
            }
            let here = || format!("`{}`", self.parts[..depth].join("."));
            place = match place {
                Value::Object(object) => object.entry(key).or_insert(Value::Null),
                Value::Array(elements) => {
                    let len = elements.len();
                    let index = index(key)
                        .filter(|index| *index <= len)
                        .ok_or_else(|| format!("{} has {len} elements, and no `{key}`", here()))?;
                    if index == len {
                        elements.push(Value::Null);
                    }
                    &mut elements[index]
                }
                other => return Err(format!("{} is {}", here(), kind(other))),
            };
        }
        *place = part;
        Ok(())
    }
}

fn child_mut<'v>(value: &'v mut Value, part: &str) -> Option<&'v mut Value> {
    match value {
        Value::Object(object) => object.get_mut(part),
        Value::Array(elements) => elements.get_mut(index(part)?),
        _ => None,
    }
}

fn index(part: &str) -> Option<usize> {
    part.parse().ok()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
