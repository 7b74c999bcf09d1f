//! Why an evaluation gives no value, and how to say it.
//!
//! Messages name paths, operators and types, never values.

use std::fmt::Write as _;

use serde_json::Value;

use super::ast::{Access, Base, BinaryOp, Step};
use super::{MAX_VALUE_DEPTH, nearest, type_name, write_key};

pub(super) type Result<'x, T> = std::result::Result<T, Fault<'x>>;

/// Why there is no value. Not yet a message: what `default` catches is never
/// read by anybody.
#[derive(Debug)]
pub(super) enum Fault<'x> {
    /// A path leads nowhere: its step `at` found nothing in `parent`, which is
    /// absent if it was made by the expression itself.
    Missing {
        access: &'x Access,
        at: usize,
        parent: Option<&'x Value>,
    },
    /// A filter wants an element of an empty list.
    Empty(&'static str),
    /// Anything else; `default` does not catch it.
    Other(String),
}

/// Keys that a message looks through for a similar one.
const KEYS_COMPARED: usize = 64;

impl Fault<'_> {
    /// What went wrong, for people.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Missing { access, at, parent } => missing(access, *at, *parent),
            Self::Empty(filter) => format!("`{filter}` of an empty list"),
            Self::Other(message) => message.clone(),
        }
    }
}

pub(super) fn other<'x>(message: impl Into<String>) -> Fault<'x> {
    Fault::Other(message.into())
}

/// That `op` does not take these two.
pub(super) fn operands<'x>(op: BinaryOp, left: &Value, right: &Value) -> Fault<'x> {
    let wanted = match op {
        BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Remainder => {
            "two numbers"
        }
        _ => "two numbers or two strings",
    };
    let (left, right) = (type_name(left), type_name(right));
    other(format!(
        "`{}` needs {wanted}, not {left} and {right}",
        op.symbol()
    ))
}

/// That a value would be deeper than a value may be.
pub(super) fn too_deep<'x>() -> Fault<'x> {
    other(format!(
        "value is nested deeper than {MAX_VALUE_DEPTH} levels"
    ))
}

/// That nothing is at the step `at` of a path.
fn missing(access: &Access, at: usize, parent: Option<&Value>) -> String {
    let path = render(access, at + 1);
    let Some(parent) = parent else {
        return format!("`{path}` is missing");
    };
    let within = render(access, at);
    match (&access.steps[at], parent) {
        (Step::Key(key), Value::Object(map)) => {
            let keys = map.keys().take(KEYS_COMPARED).map(String::as_str);
            match nearest(key, keys) {
                Some(near) => format!("`{path}` is missing, did you mean `{near}`?"),
                None => format!("`{path}` is missing"),
            }
        }
        (Step::Index(_), Value::Array(items)) => {
            let plural = if items.len() == 1 { "" } else { "s" };
            format!(
                "`{path}` is missing: `{within}` has {} element{plural}",
                items.len()
            )
        }
        (Step::Computed(_), Value::Object(_) | Value::Array(_)) => format!("`{path}` is missing"),
        _ => format!("`{path}` is missing: `{within}` is {}", type_name(parent)),
    }
}

/// The path up to its step `to`.
fn render(access: &Access, to: usize) -> String {
    let mut path = match &access.base {
        Base::Context => "$".to_owned(),
        Base::Local(name) => name.to_string(),
        Base::Value(_) => "(...)".to_owned(),
    };
    for step in &access.steps[..to] {
        match step {
            Step::Key(key) => write_key(&mut path, key),
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Computed(_) => path.write_str("[...]"),
        }
        .expect("writing to a string does not fail");
    }
    path
}
