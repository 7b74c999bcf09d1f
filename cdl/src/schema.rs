//! JSON Schema: what the answer to a `HumanTask` has to look like.
//!
//! The keywords of draft 2020-12 for single documents, applied directly to the
//! JSON that the schema is. A keyword that is not known here is refused when
//! the file is read, never passed over: an answer that fits does fit. Schemas
//! and answers both come from strangers, so a check is bounded in steps, a
//! regular expression takes linear time, and nothing is fetched from anywhere.

mod check;
mod keywords;

use std::collections::BTreeSet;

use serde_json::Value;

use keywords::Keyword;

/// Largest schema, as JSON text in bytes: that of a form with hundreds of fields.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// Most regular expressions of a schema. Each is compiled for every answer.
pub const MAX_PATTERNS: usize = 16;

/// Longest regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 256;

/// What a compiled regular expression may take, in bytes. It takes up to this
/// many steps for each character of a text.
const PATTERN_BYTES: usize = 128 * 1024;

/// A JSON Schema that can be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    source: Value,
    /// How many regular expressions it has.
    patterns: usize,
}

/// Why something is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at `#{at}`")]
pub struct SchemaError {
    /// JSON Pointer to the place in the schema.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

/// A part of a value that is not as the schema says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Misfit {
    /// JSON Pointer to the part; empty for the whole.
    pub at: String,
    /// What it has to be.
    pub message: String,
}

/// Why a value does not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not as the schema says.
    #[error("it does not fit the schema")]
    Misfits(Vec<Misfit>),
    /// Finding out takes too long.
    #[error("schema and value together are too large to be checked")]
    TooMuch,
}

impl Schema {
    /// Takes a JSON Schema, if all of it is understood.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] for the first thing in it that is not.
    pub fn new(source: Value) -> Result<Self, SchemaError> {
        let fail = |message: String| {
            let at = String::new();
            Err(SchemaError { at, message })
        };
        let bytes = source.to_string().len();
        if bytes > MAX_SCHEMA_BYTES {
            return fail(format!(
                "a schema has at most {MAX_SCHEMA_BYTES} bytes, not {bytes}"
            ));
        }
        let mut reading = Reading {
            root: &source,
            refs: BTreeSet::new(),
            patterns: 0,
        };
        reading.schema(&source, &mut String::new())?;
        let patterns = reading.patterns;
        if patterns > MAX_PATTERNS {
            return fail(format!(
                "a schema has at most {MAX_PATTERNS} regular expressions, not {patterns}"
            ));
        }
        Ok(Self { source, patterns })
    }

    /// The schema as it was given.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// How many regular expressions it has.
    pub(crate) fn patterns(&self) -> usize {
        self.patterns
    }

    /// Whether a value is as the schema says.
    ///
    /// # Errors
    ///
    /// [`Unfit`] says why it is not, or that it cannot be told.
    pub fn check(&self, value: &Value) -> Result<(), Unfit> {
        check::check(&self.source, value)
    }
}

/// A schema that is looked through before it is used.
struct Reading<'a> {
    root: &'a Value,
    /// References that have been followed.
    refs: BTreeSet<&'a str>,
    patterns: usize,
}

impl<'a> Reading<'a> {
    /// Recursion is bounded by how deep a file may nest; what is referred to is
    /// looked through once.
    fn schema(&mut self, schema: &'a Value, at: &mut String) -> Result<(), SchemaError> {
        let entries = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(entries) => entries,
            _ => return fail(at, "a schema is an object, `true` or `false`"),
        };
        for (key, value) in entries {
            let Some(keyword) = Keyword::of(key) else {
                let message = format!("`{key}` is not a keyword that this version knows");
                return fail(at, message);
            };
            let length = at.len();
            push(at, key);
            self.keyword(keyword, value, at)?;
            at.truncate(length);
        }
        Ok(())
    }

    fn keyword(
        &mut self,
        keyword: Keyword,
        value: &'a Value,
        at: &mut String,
    ) -> Result<(), SchemaError> {
        match (keyword, value) {
            (Keyword::Schema, _) => self.schema(value, at),
            (Keyword::Schemas, Value::Array(items)) if !items.is_empty() => {
                let mut each = items.iter().enumerate();
                each.try_for_each(|(index, item)| self.inner(item, &index.to_string(), at))
            }
            (Keyword::Named, Value::Object(entries)) => {
                let mut each = entries.iter();
                each.try_for_each(|(name, item)| self.inner(item, name, at))
            }
            (Keyword::Matching, Value::Object(entries)) => {
                entries.iter().try_for_each(|(text, item)| {
                    self.pattern(text, at)?;
                    self.inner(item, text, at)
                })
            }
            (Keyword::Pattern, Value::String(text)) => self.pattern(text, at),
            (Keyword::Reference, Value::String(text)) => self.reference(text, at),
            _ if is_plain(keyword, value) => Ok(()),
            (keyword, _) => fail(at, format!("this must be {}", keyword.expects())),
        }
    }

    fn inner(&mut self, schema: &'a Value, name: &str, at: &mut String) -> Result<(), SchemaError> {
        let length = at.len();
        push(at, name);
        self.schema(schema, at)?;
        at.truncate(length);
        Ok(())
    }

    fn pattern(&mut self, text: &str, at: &str) -> Result<(), SchemaError> {
        self.patterns += 1;
        // What is beyond the limit is refused as a whole, and need not be compiled.
        if self.patterns > MAX_PATTERNS {
            return Ok(());
        }
        match keywords::pattern(text) {
            Ok(_) => Ok(()),
            Err(message) => fail(at, message),
        }
    }

    fn reference(&mut self, text: &'a str, at: &str) -> Result<(), SchemaError> {
        let Some(target) = keywords::target(self.root, text) else {
            let message =
                format!("`{text}` must lead to a place in this schema, such as `#/$defs/name`");
            return fail(at, message);
        };
        if self.refs.insert(text) {
            let mut at = text.trim_start_matches('#').to_owned();
            self.schema(target, &mut at)?;
        }
        Ok(())
    }
}

/// Whether a keyword without schemas in it has a value that it can have.
fn is_plain(keyword: Keyword, value: &Value) -> bool {
    let is_type = |name: &Value| name.as_str().is_some_and(keywords::is_type);
    match (keyword, value) {
        (Keyword::Types, Value::Array(names)) => !names.is_empty() && names.iter().all(is_type),
        (Keyword::Types, name) => is_type(name),
        (Keyword::Names, names) => is_names(names),
        (Keyword::NamesOf, Value::Object(entries)) => entries.values().all(is_names),
        (Keyword::Count, Value::Number(number)) => keywords::count(number).is_some(),
        (Keyword::Step, Value::Number(number)) => number.as_f64().is_some_and(|step| step > 0.0),
        (Keyword::Note | Keyword::Constant, _)
        | (Keyword::List, Value::Array(_))
        | (Keyword::Flag, Value::Bool(_))
        | (Keyword::Number, Value::Number(_)) => true,
        _ => false,
    }
}

fn is_names(value: &Value) -> bool {
    let names = value.as_array();
    names.is_some_and(|names| names.iter().all(Value::is_string))
}

fn fail<T>(at: &str, message: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError {
        at: at.to_owned(),
        message: message.into(),
    })
}

/// Adds a name to a JSON Pointer.
fn push(at: &mut String, name: &str) {
    at.push('/');
    at.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests;
