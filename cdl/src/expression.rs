//! The expression language of CDL: what stands between `{{` and `}}`, and the
//! paths that results go to.
//!
//! A [`Template`] is a JSON tree with expressions in it, compiled once by a
//! front end and evaluated by the machine, in place, over the context of an
//! execution. Evaluation is pure: the time, the ids and the number of shards
//! come in through [`Env`], so two evaluations over the same environment give
//! the same value. `docs/expressions.md` is the page for authors.
//!
//! Expressions are written by tenants and run on the engine's own threads, so
//! everything is bounded: the length and height of an expression, the steps of
//! an evaluation, the memory that it makes, the depth of values. At a bound
//! comes an error, never a panic, an overflow of the stack or a long silence.
//!
//! Neighbours: the front ends build templates and paths, the machine evaluates
//! them. Nothing here is ever stored, so a crash loses nothing.

use std::fmt;

use serde_json::Value;

use crate::{ExecutionId, Timestamp};

mod ast;
mod eval;
mod fault;
mod filters;
mod lexer;
mod number;
mod parser;
mod path;
mod secrets;
mod template;

#[cfg(test)]
mod tests;

pub use path::Path;
pub use secrets::{Secrets, UnknownSecret};
pub use template::{Reference, Root, Template};

/// Longest expression between `{{` and `}}`, in bytes: far more than anyone can
/// read, and few enough nodes that compiling takes microseconds.
pub const MAX_EXPRESSION_LEN: usize = 4096;

/// Greatest height of an expression's tree. Parsing, evaluating and dropping
/// recurse by the height, and must fit a thread's stack with room to spare.
pub const MAX_EXPRESSION_HEIGHT: usize = 64;

/// Deepest value that an expression may make or a result may form in the
/// context. `serde_json` reads 127 levels; a value must stay readable inside an
/// event inside a history, and what walks it recurses.
pub const MAX_VALUE_DEPTH: usize = 100;

/// Steps of one evaluation: one for each node evaluated, each element that an
/// operator or filter looks at, and each 64 bytes of text. An evaluation at
/// this bound takes some tens of milliseconds, on a thread that it shares.
pub const MAX_STEPS: usize = 1_000_000;

/// Memory that one evaluation may make, its result included, counted as 16
/// bytes for each value and the length of each text and key. A list of 100,000
/// small objects fits.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What an expression can see.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The execution's context: `$`. Its key `workflow` is also the word `workflow`.
    pub context: &'a Value,
    /// Objects whose keys hide those of the context, the innermost first: what
    /// the iterations around have written.
    pub overlays: &'a [&'a Value],
    /// Further words: `map` in an iteration. Of two of one name the first is meant; the second is `map.parent`, and so on.
    pub locals: &'a [(&'a str, &'a Value)],
    /// The word `now`: the time of the event being applied.
    pub now: Timestamp,
    /// What the filter `shard` counts modulo.
    pub shards: u32,
    /// The execution; feeds `uuid`.
    pub id: ExecutionId,
    /// A number that no other evaluation of this execution uses; feeds `uuid`.
    pub seq: u64,
}

/// What is wrong with the text of an expression or path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where, in bytes from the start of the text that was parsed.
    pub offset: usize,
    /// How many bytes are at fault; 0 at the end of the text.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl SyntaxError {
    fn new(span: std::ops::Range<usize>, message: impl Into<String>) -> Self {
        Self {
            offset: span.start,
            len: span.len(),
            message: message.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Why an evaluation gave no value; an `ExpressionError` of the workflow.
///
/// Names paths, filters and types, never the values: a secret may be among them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// What went wrong, for people.
    pub message: String,
}

/// Longest message of an [`EvalError`], in characters: it goes into the history,
/// and a path may be long.
const MAX_MESSAGE: usize = 500;

impl EvalError {
    fn new(mut message: String) -> Self {
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push_str("...");
        }
        Self { message }
    }
}

/// The filters' names, for completion and documentation.
pub fn filter_names() -> impl Iterator<Item = &'static str> {
    filters::FILTERS.iter().map(|filter| filter.name)
}

/// An expression with a filter, for those who look one up.
pub fn filter_example(name: &str) -> Option<&'static str> {
    let found = filters::FILTERS.iter().find(|filter| filter.name == name);
    found.map(|filter| filter.example)
}

/// Whether `value` has at most `levels` levels of lists and objects.
pub fn fits_depth(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| fits_depth(item, levels - 1)),
        Value::Object(map) => levels > 0 && map.values().all(|item| fits_depth(item, levels - 1)),
        _ => true,
    }
}

/// Longest word that is compared with others, in bytes: comparing takes time by
/// the product of the lengths, and keys of a context can be of any.
const MAX_SLIP: usize = 64;

/// The name of the one of `known` that `word` is most likely a slip of.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_SLIP {
        return None;
    }
    // A third of the letters may differ: `totl` finds `total`, `x` finds nothing.
    let limit = word.chars().count().div_ceil(3).min(3);
    known
        .filter(|name| name.len() <= 2 * MAX_SLIP)
        .map(|name| (strsim::osa_distance(word, name), name))
        .filter(|(distance, _)| *distance <= limit && *distance < word.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// What `value` is, in a message.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `.key`, or `['key']` if the key is not a plain word.
pub(crate) fn key_text(key: &str) -> String {
    let mut text = String::new();
    let _ = write_key(&mut text, key); // writing to a String cannot fail
    text
}

/// Writes `.key`, or `['key']` if the key is not a plain word.
fn write_key(f: &mut impl fmt::Write, key: &str) -> fmt::Result {
    if lexer::is_word(key) {
        write!(f, ".{key}")
    } else {
        f.write_str("['")?;
        for c in key.chars() {
            match c {
                '\'' => f.write_str("\\'")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_str("']")
    }
}
